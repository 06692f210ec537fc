"""Deadlines in a worker whose event loop one job holds up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runlane_worker import providers
from runlane_worker.job import parse
from runlane_worker.pricing import PARTS
from runlane_worker.providers import Completion, Request
from runlane_worker.run import Deadlines, Running
from support import Message, Warm, check, error_of, probe

HELD_UP_S = 0.6
DEADLINE_MS = 500


def answer() -> Completion:
    return Completion("4", "stop", dict.fromkeys(PARTS, 0), "v1")


class Acts:
    """A provider whose models are what the test does."""

    def __init__(self, **acts: Callable[[], Awaitable[None]]) -> None:
        self.acts = acts

    async def complete(self, request: Request) -> Completion:
        await self.acts[request.model_name]()
        return answer()


def run_all(monkeypatch: pytest.MonkeyPatch, *jobs: str, **acts: Callable[[], Awaitable[None]]) -> list[Message]:
    """Runs jobs of these models at once; each has half a second. Returns everything that was sent."""
    monkeypatch.setattr(providers, "get", lambda _: Acts(**acts))
    sent: list[Message] = []

    async def do(name: str) -> None:
        message: dict[str, Any] = probe(name, f"mock/{name}", deadlineMs=DEADLINE_MS)
        sent.append(await Running(parse(message), sent.append, Deadlines()).run())

    async def everything() -> None:
        await asyncio.gather(*(do(name) for name in jobs))

    asyncio.run(everything())
    for message in sent:
        check(message)
    return sent


def end_of(sent: list[Message], job: str) -> Message:
    """The terminal event of a job."""
    (end,) = (m for m in sent if m["jobId"] == job and m["type"] in ("result", "error"))
    return end


async def blocks() -> None:
    """Holds the loop up past everybody's deadline, and then goes on waiting."""
    await asyncio.sleep(DEADLINE_MS / 2000)
    time.sleep(HELD_UP_S)  # noqa: ASYNC251 # that is what it is about
    await asyncio.sleep(60)


async def would_do() -> None:
    """Takes less than the deadline, and less than that and the lag with a part of it after the loop comes back."""
    await asyncio.sleep(DEADLINE_MS / 4000)
    await asyncio.sleep(HELD_UP_S / 2)
    await asyncio.sleep(HELD_UP_S / 4)


async def hangs() -> None:
    await asyncio.sleep(60)


def test_a_neighbour_gets_the_time_back_and_the_one_whose_code_ran_is_timed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = run_all(monkeypatch, "neighbour", "blocker", neighbour=would_do, blocker=blocks)
    assert end_of(sent, "neighbour")["type"] == "result"
    assert error_of(end_of(sent, "blocker"))["code"] == "timeout"
    assert [m["jobId"] for m in sent if m["type"] == "heartbeat"] == ["neighbour"]


def test_it_gets_it_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    sent = run_all(monkeypatch, "neighbour", "blocker", neighbour=hangs, blocker=blocks)
    assert error_of(end_of(sent, "neighbour"))["code"] == "timeout"
    assert time.monotonic() - begun < DEADLINE_MS / 1000 + 2 * HELD_UP_S


def test_a_deadline_on_time_is_not_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = run_all(monkeypatch, "alone", alone=hangs)
    assert [m["type"] for m in sent] == ["error"]
    assert error_of(sent[0])["code"] == "timeout"


def test_the_nodes_clock_does_not_overrule_the_workers() -> None:
    with Warm() as worker:
        worker.send(probe("a", "mock/echo?delayMs=300"), probe("b", "mock/echo?delayMs=60000"))
        worker.send({"v": 1, "type": "cancel", "jobId": "a", "reason": "deadline"})
        assert worker.next()["type"] == "result"
        # Who asks for it itself gets it at once, also after that.
        worker.send({"v": 1, "type": "cancel", "jobId": "b", "reason": "deadline"})
        worker.send({"v": 1, "type": "cancel", "jobId": "b"})
        assert error_of(worker.next())["code"] == "cancelled"
        worker.shutdown()
