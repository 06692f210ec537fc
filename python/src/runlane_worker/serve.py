"""The warm worker: JSON Lines both ways, many jobs in flight.

What is written during one turn of the event loop goes out in one system call. While the node does not read, no more
jobs are read either, so that memory stays bounded by what is in flight.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import suppress
from functools import partial

from . import protocol, providers
from .errors import JobError, ProtocolError
from .job import parse
from .protocol import Message
from .run import Deadlines, Running, encode_terminal
from .stdio import Channels

_OK, _BROKEN, _MALFORMED = 0, 1, 2

_YOUNG_OBJECTS_MAX = 20_000


class _Output(asyncio.Protocol):
    """Watches stdout: whether the node reads."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def pause_writing(self) -> None:
        self.server.pause_reading(True)

    def resume_writing(self) -> None:
        self.server.pause_reading(False)
        self.server.emptied()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.server.emptied()
        self.server.finish(_BROKEN, "stdout was closed: the node is gone")


class _Input(asyncio.Protocol):
    """Cuts stdin into lines."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        if b"\n" not in data:
            self.parts.append(data)
            return
        *lines, rest = (b"".join(self.parts) + data).split(b"\n")
        self.parts = [rest] if rest else []
        for line in lines:
            self.server.take(line)

    def eof_received(self) -> None:
        self.server.input_ended(cut=bool(self.parts))


class Server:
    """Takes messages and answers them until it is told to stop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[str, Running] = {}
        self._deadlines = Deadlines()
        # The loop itself holds tasks only weakly.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lines: list[bytes] = []
        self._stopping = False
        self._ended: asyncio.Future[int] = loop.create_future()
        self._emptied = asyncio.Event()
        self._reader: asyncio.ReadTransport
        self._writer: asyncio.WriteTransport

    async def run(self, channels: Channels) -> int:
        """Says hello, serves, and returns the exit status.

        Raises:
            ValueError: stdin or stdout is a regular file.
        """
        stdin, stdout = os.fdopen(channels.input, "rb", 0), os.fdopen(channels.output, "wb", 0)
        writer, _ = await self._loop.connect_write_pipe(lambda: _Output(self), stdout)
        self._writer = writer
        self._send(protocol.hello(providers.names()))
        reader, _ = await self._loop.connect_read_pipe(lambda: _Input(self), stdin)
        self._reader = reader
        status = await self._ended
        self._flush()
        return status

    async def drained(self) -> None:
        """Waits until the node has read everything, or is gone."""
        self._writer.set_write_buffer_limits(0)
        if self._writer.get_write_buffer_size():
            await self._emptied.wait()

    def pause_reading(self, pause: bool) -> None:
        """Takes no more input while the output is stuck."""
        if pause:
            self._reader.pause_reading()
        else:
            self._reader.resume_reading()

    def emptied(self) -> None:
        """The node has read all that was written, or never will."""
        self._emptied.set()

    def take(self, line: bytes) -> None:
        """Acts on one line of input."""
        if self._ended.done() or not line.strip():
            return
        try:
            message = protocol.decode(line)
        except ProtocolError as error:
            self.finish(_MALFORMED, str(error))
            return
        kind = message.get("type")
        if kind == "job":
            self._start(message)
        elif protocol.version_problem(message) is None and kind == "cancel":
            # An unknown id is no error: the job may just have ended.
            running = self._running.get(protocol.job_id_of(message) or "")
            # A job's deadline is its own timer's, which knows whether the loop was held up.
            if running and message.get("reason") != "deadline":
                running.cancel()
        elif protocol.version_problem(message) is None and kind == "shutdown":
            self._stopping = True
            self._end_if_idle()
        else:
            problem = protocol.version_problem(message) or f"type is {kind!r}; this worker takes job, cancel, shutdown"
            self._refuse(message, JobError("validation", problem))

    def _start(self, message: Message) -> None:
        job_id = protocol.job_id_of(message)
        if job_id is None or job_id in self._running:
            self._refuse(message, JobError("validation", "a job with this jobId is already in flight"))
            return
        if self._stopping:
            self._refuse(message, JobError("unknown", "the worker is shutting down; the job was not begun"))
            return
        try:
            running = Running(parse(message), self._send, self._deadlines)
        except JobError as failure:
            self._refuse(message, failure)
            return
        self._running[job_id] = running
        task = self._loop.create_task(self._do(running))
        if not task.done():
            self._tasks[job_id] = task

    async def _do(self, running: Running) -> None:
        job_id = running.job.job_id
        event = await running.run()
        del self._running[job_id]
        self._tasks.pop(job_id, None)
        self._write(encode_terminal(job_id, event))
        self._end_if_idle()

    def _refuse(self, message: Message, failure: JobError) -> None:
        job_id = protocol.job_id_of(message)
        if job_id is None:
            self.finish(_MALFORMED, f"a message without a readable jobId: {failure.message}")
        elif job_id in self._running:
            # That job will have its one terminal event; a second would break the protocol.
            print(f"runlane_worker: ignored a message about job {job_id}: {failure.message}", file=sys.stderr)
        else:
            self._send(protocol.error(job_id, failure))

    def _send(self, message: Message) -> None:
        self._write(protocol.encode(message))

    def _write(self, line: bytes) -> None:
        if not self._lines:
            self._loop.call_soon(self._flush)
        self._lines.append(line)

    def _flush(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._emptied.clear()
            self._writer.write(b"".join(lines))

    def _end_if_idle(self) -> None:
        if self._stopping and not self._running:
            self.finish(_OK)

    def input_ended(self, *, cut: bool) -> None:
        """The end of stdin: the node is gone, unless it has said ``shutdown`` before."""
        if cut:
            print("runlane_worker: stdin ended within a message", file=sys.stderr)
        if not self._stopping:
            left = f"; {len(self._running)} jobs are abandoned" if self._running else ""
            self.finish(_OK, f"stdin ended: the node is gone{left}" if left else None)

    def finish(self, status: int, reason: str | None = None) -> None:
        """Ends the worker; the first reason counts."""
        if not self._ended.done():
            if reason:
                print(f"runlane_worker: {reason}", file=sys.stderr)
            self._ended.set_result(status)


async def _main(channels: Channels) -> int:
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        # A job that waits for nothing is then done without a turn of the loop.
        loop.set_task_factory(partial(asyncio.eager_task_factory))
    server = Server(loop)
    try:
        status = await server.run(channels)
    except ValueError:
        print("runlane_worker: --serve needs pipes, sockets or terminals as stdin and stdout", file=sys.stderr)
        status = _MALFORMED
    else:
        try:
            await asyncio.wait_for(server.drained(), 1)
        except TimeoutError:
            print("runlane_worker: the last messages were not read", file=sys.stderr)
    sys.stderr.flush()
    # What still runs belongs to a node that is gone; neither threads nor clients may hold up the end.
    os._exit(status)


def _prepare() -> None:
    """Imports the client of the provider that the node will ask for, before a job's deadline runs.

    A client that cannot be imported ends the worker: no job could be done in it.
    """
    if name := os.environ.get("WORKER_PROVIDER"):
        # What it lacks is told to each job.
        with suppress(JobError):
            providers.get(name)


def main(channels: Channels) -> int:
    """Serves until shutdown, or until a pipe's end says that the node is gone; then the process ends.

    The exit status is 0 after a shutdown or the end of stdin, 2 after input that is no message, 1 when stdout broke.
    """
    _prepare()
    # Jobs in flight are many young objects, none of them garbage: the default looks at them after every few jobs, and
    # from time to time at everything that was imported.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_MAX)
    return asyncio.run(_main(channels))
