"""Encodes and decodes the messages: one JSON object a line, UTF-8, never NaN or Infinity."""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from . import WORKER
from .errors import RETRYABLE, JobError, ProtocolError

VERSION = 1
"""The version of the protocol."""

KINDS = ("probe:scenario", "analyze:basic", "analyze:deep")
"""The kinds of jobs that this worker takes."""

Message = dict[str, Any]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode


def encode(message: Message) -> bytes:
    """One line, with its end.

    Text that is no Unicode (half of a surrogate pair, which JSON's escapes can carry) becomes U+FFFD.

    Raises:
        ValueError: The message holds NaN or Infinity.
    """
    text = _encode(message)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return data + b"\n"


def decode(line: bytes) -> Message:
    """The object on a line.

    Raises:
        ProtocolError: It is none.
    """
    try:
        message = _decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the input is not valid JSON in UTF-8: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("the input is JSON but not an object")
    return message


def job_id_of(message: Message) -> str | None:
    """The id of the message's job, if it can be read."""
    job_id = message.get("jobId")
    return job_id if isinstance(job_id, str) and job_id else None


def version_problem(message: Message) -> str | None:
    """What is wrong with the version of a message."""
    version = message.get("v")
    if version == VERSION and version is not True:
        return None
    return f"v is {version!r}, but this worker speaks version {VERSION}"


def hello(providers: list[str]) -> Message:
    """The first line of a warm worker."""
    head: Message = {"v": VERSION, "type": "hello", "pid": os.getpid(), "worker": WORKER}
    return head | {"kinds": list(KINDS), "providers": providers}


def heartbeat(job_id: str, activity: str) -> Message:
    """A job is still being worked on."""
    return {"v": VERSION, "type": "heartbeat", "jobId": job_id, "activity": activity}


def progress(job_id: str, done: int, total: int, message: str) -> Message:
    """How far a job is."""
    return {"v": VERSION, "type": "progress", "jobId": job_id, "done": done, "total": total, "message": message}


def result(job_id: str, field: str, value: Message) -> Message:
    """A job succeeded; `field` is ``transcript`` or ``analysis``."""
    return {"v": VERSION, "type": "result", "jobId": job_id, field: value}


def unchanged(job_id: str) -> Message:
    """The stored analysis, whose code the job named, is what would be computed."""
    return {"v": VERSION, "type": "result", "jobId": job_id, "unchanged": True}


def error(job_id: str, failure: JobError) -> Message:
    """A job failed."""
    return {
        "v": VERSION,
        "type": "error",
        "jobId": job_id,
        "error": {
            "code": failure.code,
            "message": failure.message or failure.code,
            "retryable": RETRYABLE[failure.code],
            "retryAfterMs": failure.retry_after_ms,
            "httpStatus": failure.http_status,
            "detail": failure.detail,
        },
        "usage": failure.usage,
        "costUsd": failure.cost_usd,
    }
