"""Runs one job from its message to its terminal event: deadline, cancel, and every error as an event."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Callable
from itertools import takewhile

from . import code, probe, protocol
from .errors import JobError
from .job import Analyze, Head, Probe
from .pricing import Meter
from .protocol import Message
from .steps import Steps

LATE_S = 0.05
"""A timer that fires later than this was held up by somebody's code. What is shorter costs no job its deadline."""

_THREADED = ("OPENBLAS", "OMP", "MKL")

Send = Callable[[Message], None]
"""Sends a message; may be called on the event loop's thread only."""


class Stopped(Exception):  # noqa: N818 # it is no error of the analysis
    """An analysis noticed that it shall stop."""


class Deadlines:
    """Tells jobs that they are overdue, with one timer for all that may take equally long.

    They are due in the order in which they begin, and nearly all end in time: a timer for each, set and taken back,
    would take a tenth of the time that the worker has for a job that waits for nothing.
    """

    def __init__(self) -> None:
        self._due_at: dict[float, dict[Running, float]] = {}

    def begin(self, running: Running) -> None:
        """Has the job told when its time is over."""
        loop = asyncio.get_running_loop()
        limit_s = running.job.deadline_s
        due_at = loop.time() + limit_s
        if limit_s not in self._due_at:
            self._due_at[limit_s] = {}
            loop.call_at(due_at, self._look, limit_s)
        self._due_at[limit_s][running] = due_at

    def end(self, running: Running) -> None:
        """The job is not to be told any more."""
        self._due_at.get(running.job.deadline_s, {}).pop(running, None)

    def _look(self, limit_s: float) -> None:
        """Tells those that are due, and comes back for the next."""
        loop = asyncio.get_running_loop()
        now, waiting = loop.time(), self._due_at[limit_s]
        for running, due_at in list(takewhile(lambda item: item[1] <= now, waiting.items())):
            del waiting[running]
            running.due(due_at)
        if waiting:
            loop.call_at(next(iter(waiting.values())), self._look, limit_s)
        else:
            del self._due_at[limit_s]


class Running:
    """One job in flight.

    Args:
        job: What to do.
        send: Where progress goes.
        deadlines: Tell it when it is overdue.
    """

    def __init__(self, job: Probe | Analyze, send: Send, deadlines: Deadlines) -> None:
        self.job = job
        self._send = send
        self._deadlines = deadlines
        self._reason: JobError | None = None
        self._task: asyncio.Task[Message] | None = None
        self._steps: Steps[Message] | None = None
        self._extension: asyncio.TimerHandle | None = None
        self._meter = Meter(job.prices if isinstance(job, Probe) else None)

    def cancel(self) -> None:
        """Ends the job with ``cancelled``, unless its result is already there."""
        self._end(JobError("cancelled", "the job was cancelled"))

    def due(self, due_at: float) -> None:
        """The deadline has passed. A job gets the time back, once, that another one's code took from it."""
        late_s = asyncio.get_running_loop().time() - due_at
        if late_s <= LATE_S or self._steps is None or self._steps.ran_at(due_at):
            self._expire()
            return
        self._extension = asyncio.get_running_loop().call_later(late_s, self._expire)
        self._send(protocol.heartbeat(self.job.job_id, f"the event loop stood still: {late_s:.3f} s more"))

    def _expire(self) -> None:
        limit = f"{self.job.deadline_s:g} s"
        self._end(JobError("timeout", f"the job took longer than its deadline of {limit}"))

    def _end(self, reason: JobError) -> None:
        if self._reason is None:
            self._reason = reason
            # An analysis runs in a thread, which cannot be cancelled: it looks at the reason between its steps, and the
            # job is over when the thread really is.
            if self._task is not None and isinstance(self.job, Probe):
                self._task.cancel()

    def _ended_early(self) -> Message | None:
        return None if self._reason is None else self._error(self._reason)

    def _error(self, failure: JobError) -> Message:
        return protocol.error(self.job.job_id, self._meter.bill(failure))

    async def run(self) -> Message:
        """Does the job and returns its terminal event. Must be a task of its own: ending the job cancels it."""
        task: asyncio.Task[Message] | None = asyncio.current_task()
        self._task = task
        if early := self._ended_early():
            return early
        self._deadlines.begin(self)
        try:
            return await self._work()
        except asyncio.CancelledError:
            # Without a reason it is not the job that is being stopped but the whole worker.
            if (early := self._ended_early()) is None:
                raise
            return early
        except Stopped:
            if (early := self._ended_early()) is None:
                raise
            return early
        except JobError as failure:
            return self._error(failure)
        except Exception as error:  # noqa: BLE001 # whatever it is, the job ends with an event
            return self._error(unexpected(error))
        finally:
            self._deadlines.end(self)
            if self._extension is not None:
                self._extension.cancel()

    async def _work(self) -> Message:
        job = self.job
        if isinstance(job, Probe):
            self._steps = Steps(probe.run(job, self._progress, self._meter), asyncio.get_running_loop().time)
            return protocol.result(job.job_id, "transcript", await self._steps)
        if job.previous_code == code.of(job.kind):
            return protocol.unchanged(job.job_id)
        return protocol.result(job.job_id, "analysis", await self._analyze(job))

    def _progress(self, done: int, total: int, message: str) -> None:
        self._send(protocol.progress(self.job.job_id, done, total, message))

    async def _analyze(self, job: Analyze) -> Message:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Message] = loop.create_future()

        def step(done: int, total: int, message: str) -> None:
            if self._reason is not None:
                raise Stopped
            loop.call_soon_threadsafe(self._progress, done, total, message)

        def work() -> None:
            try:
                # numpy and scipy take most of a second to import: only an analysis pays for them. One thread: a result
                # then does not depend on the number of cores, and the buffers that are kept for each of them stay
                # within the memory that a worker may use.
                for library in _THREADED:
                    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
                from . import analysis

                value = analysis.run(job, step)
            except BaseException as error:  # noqa: BLE001 # handed to the task that waits
                _settle(loop, outcome.set_exception, error)
            else:
                _settle(loop, outcome.set_result, value)

        # A daemon, so that a worker whose node is gone need not wait for it.
        threading.Thread(target=work, name=f"analysis {job.job_id}", daemon=True).start()
        return await outcome


def _settle(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], value: object) -> None:
    try:
        loop.call_soon_threadsafe(settle, value)
    except RuntimeError:
        # The loop is closed: the worker is ending and nobody waits for the value any more.
        traceback.print_exc()


def unexpected(error: BaseException) -> JobError:
    """An error that nobody classified: its name for the client, all of it for stderr.

    Its text stays out of the event, since a library may have put a secret into it.
    """
    traceback.print_exception(type(error), error, error.__traceback__)
    return JobError("unknown", f"{type(error).__name__} in the worker; the end of its stderr says where")


def encode_terminal(job: Head | str, event: Message) -> bytes:
    """The line of a terminal event; one that cannot be written (NaN, for example) becomes an ``unknown`` error."""
    try:
        return protocol.encode(event)
    except (ValueError, TypeError, RecursionError) as error:
        job_id = job if isinstance(job, str) else job.job_id
        return protocol.encode(protocol.error(job_id, unexpected(error)))
