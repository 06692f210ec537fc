"""Prints what the analyses of a large run take: seconds and peak memory of the real one-shot worker.

Usage: python benches/analysis.py [scenarios [models]], 5,000 and 10 when left out. Exits with 1 beyond the goals for
that size: 30 s and 1 GiB.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time

SECONDS_MAX = 30.0
MEMORY_MAX_MIB = 1024.0


def job(kind: str, scenarios: int, models: int) -> bytes:
    """A run with gaps, two dimensions and some agreement; the resamples are those of a node."""
    draw = random.Random(1)
    records = []
    for i in range(scenarios):
        quality = draw.gauss(3, 1)
        for j in range(models):
            failed = draw.random() < 0.02
            records.append(
                {
                    "scenarioKey": f"tone={i % 7};topic={i % 11};n={i}",
                    "modelId": f"provider/model-{j}",
                    "dimensions": {"tone": str(i % 7), "topic": str(i % 11)},
                    "status": "failed" if failed else "completed",
                    "errorCode": "timeout" if failed else None,
                    "score": None if failed else min(5, max(1, round(quality + draw.gauss(0.05 * j, 0.7)))),
                    "usage": {"input": 100, "output": 20, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0},
                    "costUsd": "0.00123",
                    "latencyMs": draw.randrange(200, 9_000),
                }
            )
    head = {"v": 1, "type": "job", "kind": kind, "jobId": "bench", "runId": "bench", "attempt": 1}
    options = {"seed": 1, "alpha": 0.05, "bootstrap": 10_000}
    rest = {"deadlineMs": 600_000, "inputHash": "bench", "options": options, "records": records}
    return json.dumps(head | rest).encode()


def measure(data: bytes) -> tuple[float, float, float, dict[str, object]]:
    """Seconds, busy seconds and peak MiB of a one-shot worker, process start included, and its terminal event."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as answer:
        given.write(data)
        given.seek(0)
        begun = time.monotonic()
        streams = [(os.POSIX_SPAWN_DUP2, given.fileno(), 0), (os.POSIX_SPAWN_DUP2, answer.fileno(), 1)]
        arguments = [sys.executable, "-m", "runlane_worker"]
        pid = os.posix_spawn(sys.executable, arguments, os.environ, file_actions=streams)
        _, status, used = os.wait4(pid, 0)
        seconds = time.monotonic() - begun
        if status:
            raise SystemExit(f"the worker ended with the status {status}")
        answer.seek(0)
        return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.load(answer)


def main() -> int:
    """Measures both kinds."""
    scenarios, models = (int(text) for text in (*sys.argv[1:3], *("5000", "10")[len(sys.argv[1:3]) :]))
    missed = False
    for kind in ("analyze:basic", "analyze:deep"):
        seconds, busy, mib, event = measure(job(kind, scenarios, models))
        analysis = event.get("analysis")
        if not isinstance(analysis, dict) or analysis["coverage"]["expected"] != scenarios * models:
            raise SystemExit(f"{kind} did not succeed: {event.get('error')}")
        met = seconds <= SECONDS_MAX and mib <= MEMORY_MAX_MIB
        missed |= not met
        print(
            f"{'ok  ' if met else 'MISS'} {kind}, {scenarios:,} scenarios x {models} models: {seconds:.1f} s (goal "
            f"{SECONDS_MAX:.0f}), {busy:.1f} s of it busy, {mib:.0f} MiB (goal {MEMORY_MAX_MIB:.0f})"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
