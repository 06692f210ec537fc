"""Real workers over real pipes, with every message checked against its schema."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

Message = dict[str, Any]

SCHEMAS = Path(__file__).resolve().parents[2] / "schema" / "worker"
WAIT_S = 30
"""How long a test waits for what must come."""

schemas: dict[str, Message] = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
_registry: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in schemas.items()
)


def check(message: Message) -> Message:
    """The message, if it is what its schema says."""
    name = message["type"]
    if name == "job":
        name = "job-probe" if message["kind"] == "probe:scenario" else "job-analyze"
    validate(name, message)
    return message


def validate(name: str, message: Message) -> None:
    """Compares a message with the schema of that name."""
    schema = {"$ref": f"{name}.json"}
    Draft202012Validator(schema, registry=_registry).validate(message)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def loads(line: bytes | str) -> Message:
    """Strict JSON: no NaN."""
    value = json.loads(line, parse_constant=_refuse)
    assert isinstance(value, dict)
    return value


def probe(job_id: str = "j1", model: str = "mock/echo", **changes: Any) -> Message:
    """A valid probe job; `scenario`, `params` are merged, the rest replaced."""
    job: Message = {
        "v": 1,
        "type": "job",
        "kind": "probe:scenario",
        "jobId": job_id,
        "runId": "r1",
        "attempt": 1,
        "deadlineMs": WAIT_S * 1000,
        "scenario": {"key": "a=1", "preamble": "Be brief.", "prompt": "Rate 4/5", "followups": [], "dimensions": {}},
        "model": {"id": model},
        "params": {"temperature": 0.5, "maxTokens": 100, "maxTurns": None, "seed": 7},
        "scoring": {"min": 1, "max": 5},
        "pricing": None,
    }
    for name, value in changes.items():
        job[name] = {**job[name], **value} if name in ("scenario", "params") else value
    return job


def analyze(kind: str, records: list[Message], job_id: str = "a1", **options: Any) -> Message:
    """A valid analysis job."""
    return {
        "v": 1,
        "type": "job",
        "kind": f"analyze:{kind}",
        "jobId": job_id,
        "runId": "r1",
        "attempt": 1,
        "deadlineMs": WAIT_S * 4000,
        "inputHash": "h1",
        "options": {"seed": 1, "alpha": 0.05, "bootstrap": 0, **options},
        "records": records,
    }


def record(scenario: str, model: str, score: float | None, **changes: Any) -> Message:
    """A completed record."""
    return {
        "scenarioKey": scenario,
        "modelId": model,
        "dimensions": {},
        "status": "completed",
        "errorCode": None,
        "score": score,
        "usage": {"input": 10, "output": 5, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0},
        "costUsd": "0.1",
        "latencyMs": 100,
        **changes,
    }


def command(*arguments: str) -> list[str]:
    """How a worker is started."""
    return [sys.executable, "-m", "runlane_worker", *arguments]


def one_shot_raw(data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Runs a one-shot worker on any input."""
    return subprocess.run(command(), input=data, capture_output=True, timeout=WAIT_S * 4, check=False)


def one_shot(job: Message) -> Message:
    """Runs one valid job and returns its terminal event."""
    done = one_shot_raw(json.dumps(check(job)).encode())
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    return check(loads(lines[0]))


def error_of(event: Message) -> Message:
    """The error in an event that must be one."""
    assert event["type"] == "error", event
    error = event["error"]
    assert isinstance(error, dict)
    return error


class Warm:
    """A warm worker whose lines arrive in a queue; ``None`` is the end of its stdout."""

    def __init__(self, *argv: str, env: dict[str, str] | None = None) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            list(argv) or command("--serve"), stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **(env or {})}
        )
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.errors: list[bytes] = []
        self.error_lines: queue.Queue[bytes] = queue.Queue()
        assert self.process.stderr
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()
        self.hello = self.next()
        assert self.hello["type"] == "hello"

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.errors.append(line)
            self.error_lines.put(line)

    @property
    def stderr(self) -> str:
        """All of stderr, once the process has ended."""
        self._threads[1].join(WAIT_S)
        return b"".join(self.errors).decode(errors="replace")

    def send(self, *messages: Message) -> None:
        """Sends valid messages."""
        self.send_raw(b"".join(json.dumps(check(message)).encode() + b"\n" for message in messages))

    def send_raw(self, data: bytes) -> None:
        """Sends anything."""
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self) -> bytes | None:
        """The next line, as it is."""
        return self.lines.get(timeout=WAIT_S)

    def next(self) -> Message:
        """The next message."""
        line = self.line()
        assert line is not None, f"the worker ended: {self.stderr}"
        return check(loads(line))

    def end(self) -> None:
        """Checks that nothing more comes."""
        assert self.line() is None

    def status(self) -> int:
        """The exit status, when it ends by itself."""
        return self.process.wait(WAIT_S)

    def shutdown(self) -> None:
        """Says shutdown and expects a clean end."""
        self.send({"v": 1, "type": "shutdown"})
        self.end()
        assert self.status() == 0, self.stderr

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(WAIT_S)
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
