"""One job on stdin, one terminal event on stdout."""

from __future__ import annotations

import asyncio
import os
import sys

from . import protocol
from .errors import JobError, ProtocolError
from .job import parse
from .protocol import Message
from .run import Deadlines, Running, encode_terminal
from .stdio import Channels, write_all

_CHUNK_BYTES = 1 << 20


def main(channels: Channels) -> int:
    """Reads to the end of stdin, does the job and returns the exit status.

    Returns:
        0 when a terminal event was written, whatever it says; 2 when the input names no job; 1 when nobody read.
    """
    data = bytearray()
    while chunk := os.read(channels.input, _CHUNK_BYTES):
        data += chunk
    try:
        message = protocol.decode(bytes(data))
    except ProtocolError as error:
        return _refuse(f"{error}; one job object was expected on stdin")
    job_id = protocol.job_id_of(message)
    if job_id is None:
        return _refuse("the object on stdin has no jobId; one job object was expected")
    try:
        line = encode_terminal(job_id, asyncio.run(_run(message)))
    except JobError as failure:
        line = protocol.encode(protocol.error(job_id, failure))
    try:
        write_all(channels.output, line)
    except BrokenPipeError:
        print("runlane_worker: nobody read the result", file=sys.stderr)
        return 1
    return 0


async def _run(message: Message) -> Message:
    # Progress has no place here: stdout carries the terminal event and nothing else.
    running = Running(parse(message), lambda _: None, Deadlines())
    return await asyncio.create_task(running.run())


def _refuse(reason: str) -> int:
    print(f"runlane_worker: {reason}", file=sys.stderr)
    return 2
