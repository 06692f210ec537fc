"""Procrastinate: one asynchronous worker, 50 jobs at once. The protocol is that of ../rust/src/lib.rs."""

import asyncio
import json
import logging
import os
import sys
import time

import procrastinate

PHASE = sys.argv[1]
JOBS = int(os.environ["JOBS"])
WARM_UP = 5
CONCURRENCY = 50

# Its lines about each job would be measured, too.
logging.getLogger("procrastinate").setLevel(logging.ERROR)

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["DATABASE_URL"], min_size=4 if PHASE == "pick-up" else CONCURRENCY, max_size=CONCURRENCY + 2
    )
)


class Ledger:
    """What the handler ran, and when the last of the wanted jobs began."""

    def __init__(self) -> None:
        self._ran: set[int] = set()
        self._wanted = 0
        self._reached: asyncio.Future[float] | None = None

    def begun(self, jobs: int) -> asyncio.Future[float]:
        """Returns what will hold the time, in seconds, at which the last of so many jobs began."""
        self._wanted = jobs
        self._reached = asyncio.get_running_loop().create_future()
        return self._reached

    def ran(self, job: int) -> None:
        """Notes that a handler runs; ends the program if it has run for this job before."""
        now = time.perf_counter()
        if job in self._ran:
            sys.stderr.write(f"job {job} ran twice\n")
            os._exit(1)
        self._ran.add(job)
        if len(self._ran) == self._wanted and self._reached is not None:
            self._reached.set_result(now)


ledger = Ledger()


@app.task(name="bench")
async def bench(job: int) -> None:
    """Does nothing."""
    ledger.ran(job)


def say(value: dict[str, object]) -> None:
    """Sends a line to the bench."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def hear() -> str:
    """Waits for a line from the bench; empty at its end."""
    return await asyncio.to_thread(sys.stdin.readline)


def work() -> asyncio.Task[None]:
    """Starts the worker."""
    return asyncio.create_task(app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))


async def pick_up(jobs: range) -> list[int]:
    """Times from just before the call that sends a job to the first line of its handler, in microseconds."""
    times = []
    for job in jobs:
        await asyncio.sleep(0.015 + job * 7.919 % 15 / 1_000)
        begun = ledger.begun(job + 1)
        sent = time.perf_counter()
        await bench.defer_async(job=job)
        times.append(round((await begun - sent) * 1e6))
    return times


async def serve() -> None:
    """Runs the phase that the bench asks for."""
    async with app.open_async():
        if PHASE == "insert":
            await app.schema_manager.apply_schema_async()
        elif PHASE == "pick-up":
            await app.schema_manager.apply_schema_async()
            worker = work()
            await pick_up(range(WARM_UP))
        say({"ready": True})
        await hear()
        answer: dict[str, object] = {"jobs": JOBS}
        if PHASE == "insert":
            for first in range(0, JOBS, 1_000):
                await bench.batch_defer_async(*[{"job": job} for job in range(first, min(first + 1_000, JOBS))])
        elif PHASE == "process":
            begun = ledger.begun(JOBS)
            worker = work()
            await begun
        else:
            answer["microseconds"] = await pick_up(range(WARM_UP, WARM_UP + JOBS))
        say(answer)
        if line := await hear():
            raise ValueError(f"{line!r} instead of an end")
        if PHASE != "insert" and worker.done():
            worker.result()
        # The worker runs until the program ends.
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve())
