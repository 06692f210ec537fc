"""A provider for the demo and the tests: no model, no network, no price.

A model is ``mock/<behaviour>?key=value&…``. Its answers depend on nothing but the model's id, the scenario's key and
dimensions, the seed and the turn, so that every run can be repeated exactly.

===================  =================================================================================================
behaviour            answers
===================  =================================================================================================
``echo``             the question
``rater``            a sentence with a rating within the scoring's range (1 to 5 without one); see `_rating`
===================  =================================================================================================

===================  =================================================================================================
key                  each call
===================  =================================================================================================
``delayMs=N``        takes N milliseconds before anything else happens
``crash=exit``       ends the process with the exit status 70, ``segv`` by SIGSEGV, ``oom`` by SIGKILL as the kernel
                     does when memory runs out (only 64 MiB are really taken)
``hang=1``           blocks the whole process for ever: it answers nothing any more, a cancel included; a signal ends it
``stdout=garbage``   writes a line that is no JSON and one that is no UTF-8 to the real stdout, then goes on
``stdout=huge``      writes one endless line to the real stdout, at most 1 GiB, then goes on
``fail=CODE``        fails with that code of the protocol
``failFirst=N``      fails only while the attempt is N or lower; the code is ``network`` when ``fail`` is not given
``retryAfterMs=N``   lets the failure ask for that wait
===================  =================================================================================================

Other keys (such as ``hold``, which the node reads) only make the id a different one. Tokens are simulated, a quarter of
the characters; a cost is only told when the job brings a price, since the mock has none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import time
from functools import lru_cache
from typing import NamedTuple, NoReturn
from urllib.parse import parse_qsl

from .. import stdio
from ..errors import RETRYABLE, JobError
from . import Completion, Request

MODEL_VERSION = "mock-1"
"""The version that every answer names; it changes when the answers do."""

CRASH_EXIT_STATUS = 70
"""How the process ends under ``crash=exit``."""

HUGE_MAX_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 16
_OOM_BYTES = 64 << 20
_DELAY_MAX_MS = 86_400_000
_STATUS = {"rate_limit": 429, "quota_exhausted": 429, "auth": 401, "not_found": 404, "server_error": 503}
_SENTENCES = (
    "On balance I would rate this {} out of {}.",
    "My rating is {} on a scale that ends at {}.",
    "Weighing both sides, I arrive at a {}, where {} is the highest.",
)


class Behaviour(NamedTuple):
    """What a model's id asks for."""

    name: str
    delay_s: float
    crash: str | None
    hang: bool
    stdout: str | None
    fail: str | None
    fail_first: int | None
    retry_after_ms: int | None


@lru_cache(maxsize=4096)
def behaviour(name: str) -> Behaviour:
    """Reads what stands after ``mock/``.

    Raises:
        JobError: ``not_found`` for an unknown behaviour, ``validation`` for a key's value that cannot be.
    """
    base, _, query = name.partition("?")
    if base not in ("echo", "rater"):
        raise JobError("not_found", f"the mock has no behaviour {base!r}; it has echo and rater")
    keys = dict(parse_qsl(query, keep_blank_values=True))

    def number(key: str, high: int) -> int | None:
        text = keys.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= high):
            raise JobError("validation", f"the mock's {key} is {text!r}, but must be an integer from 0 to {high}")
        return int(text)

    def one_of(key: str, choices: tuple[str, ...]) -> str | None:
        text = keys.get(key)
        if text is not None and text not in choices:
            raise JobError("validation", f"the mock's {key} is {text!r}, but must be one of {', '.join(choices)}")
        return text

    fail_first = number("failFirst", 1_000_000)
    fail = one_of("fail", tuple(code for code in RETRYABLE if code != "cancelled"))
    return Behaviour(
        name=base,
        delay_s=(number("delayMs", _DELAY_MAX_MS) or 0) / 1000,
        crash=one_of("crash", ("exit", "segv", "oom")),
        hang=one_of("hang", ("0", "1")) == "1",
        stdout=one_of("stdout", ("garbage", "huge")),
        fail=fail or ("network" if fail_first is not None else None),
        fail_first=fail_first,
        retry_after_ms=number("retryAfterMs", _DELAY_MAX_MS),
    )


class Mock:
    """The provider ``mock``."""

    async def complete(self, request: Request) -> Completion:
        """Behaves as the model's name says."""
        does = behaviour(request.model_name)
        if does.delay_s:
            await asyncio.sleep(does.delay_s)
        if does.crash:
            _crash(does.crash)
        if does.hang:
            _hang()
        if does.stdout:
            _spoil_stdout(does.stdout)
        attempt = request.context.attempt
        if does.fail and (does.fail_first is None or attempt <= does.fail_first):
            raise JobError(
                does.fail,
                f"the mock fails with {does.fail}, as {request.model_id} asks",
                retry_after_ms=does.retry_after_ms,
                http_status=_STATUS.get(does.fail),
                detail={"attempt": attempt},
            )
        text = request.messages[-1].content if does.name == "echo" else _rating(request)
        usage = {
            "input": sum(_tokens(message.content) for message in request.messages),
            "output": _tokens(text),
            "reasoning": 0,
            "cacheRead": 0,
            "cacheWrite": 0,
        }
        return Completion(text, "stop", usage, MODEL_VERSION)


def _tokens(text: str) -> int:
    return (len(text) + 3) // 4


def _random(*parts: object) -> random.Random:
    """A generator whose seed is the hash of the parts, the same everywhere."""
    data = json.dumps(parts, sort_keys=True).encode()
    return random.Random(hashlib.sha256(data).digest())  # noqa: S311 # a simulation, not a secret


def _rating(request: Request) -> str:
    """A sentence with a rating that analyses find something in.

    The rating is the middle of the scale plus, in parts of the scale's width: what each level of each dimension is
    worth to everybody (σ 0.18), how this model deviates there (σ 0.06) and in general (σ 0.08), and noise (σ 0.10).
    """
    context = request.context
    low, high = context.scoring or (1, 5)
    position = 0.5 + _random("model", request.model_id).gauss(0, 0.08)
    for name, level in context.dimensions.items():
        position += _random("level", name, level).gauss(0, 0.18)
        position += _random("taste", request.model_id, name, level).gauss(0, 0.06)
    noise = _random("answer", request.model_id, context.scenario_key, request.seed, context.turn)
    position += noise.gauss(0, 0.10)
    rating = min(high, max(low, round(low + position * (high - low))))
    return noise.choice(_SENTENCES).format(rating, high)


def _crash(way: str) -> NoReturn:
    if way == "exit":
        os._exit(CRASH_EXIT_STATUS)
    if way == "segv":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    else:
        ballast = bytearray(os.urandom(4096) * (_OOM_BYTES // 4096))
        os.kill(os.getpid(), signal.SIGKILL)
        del ballast
    raise AssertionError("the signal ended the process")


def _hang() -> NoReturn:
    print("the mock hangs, as asked", file=sys.stderr, flush=True)
    while True:
        time.sleep(3600)


def _spoil_stdout(way: str) -> None:
    if way == "garbage":
        stdio.write_raw(b"this is no JSON\n\xff\xfe is no UTF-8\n")
        return
    chunk = b"x" * _CHUNK_BYTES
    for _ in range(HUGE_MAX_BYTES // _CHUNK_BYTES):
        stdio.write_raw(chunk)
    stdio.write_raw(b"\n")
