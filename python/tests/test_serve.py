from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time

import pytest

from support import WAIT_S, Message, Warm, analyze, command, error_of, probe, record


def test_hello_comes_first_and_names_the_process() -> None:
    with Warm() as worker:
        assert worker.hello["pid"] == worker.process.pid
        assert {"mock", "openai", "anthropic", "google", "mistral"} <= set(worker.hello["providers"])
        assert "probe:scenario" in worker.hello["kinds"]
        worker.shutdown()


def test_200_delayed_jobs_in_flight_take_about_one_delay() -> None:
    with Warm() as worker:
        begun = time.monotonic()
        worker.send(*(probe(f"j{i}", f"mock/echo?delayMs=500&i={i}") for i in range(200)))
        events = [worker.next() for _ in range(200)]
        took = time.monotonic() - begun
        assert {event["jobId"] for event in events} == {f"j{i}" for i in range(200)}
        assert {event["type"] for event in events} == {"result"}
        # One after the other they would take 100 s.
        assert 0.5 <= took < 10
        worker.shutdown()


def test_a_quick_job_overtakes_a_slow_one() -> None:
    with Warm() as worker:
        worker.send(probe("slow", "mock/echo?delayMs=60000"), probe("quick"))
        assert worker.next()["jobId"] == "quick"


def test_a_cancelled_job_ends_as_cancelled_and_the_others_go_on() -> None:
    with Warm() as worker:
        worker.send(probe("a", "mock/echo?delayMs=60000"), probe("b", "mock/echo?delayMs=300"))
        worker.send({"v": 1, "type": "cancel", "jobId": "a"})
        event = worker.next()
        assert event["jobId"] == "a"
        assert error_of(event)["code"] == "cancelled"
        assert worker.next()["jobId"] == "b"
        # The id is free again.
        worker.send(probe("a"))
        assert worker.next()["type"] == "result"
        worker.shutdown()


def test_a_cancel_in_the_same_write_as_its_job_gives_one_terminal_event() -> None:
    with Warm() as worker:
        job = json.dumps(probe("a", "mock/echo?delayMs=60000"))
        worker.send_raw(f'{job}\n{{"v":1,"type":"cancel","jobId":"a"}}\n'.encode())
        assert error_of(worker.next())["code"] == "cancelled"
        worker.shutdown()


def test_a_cancel_for_a_job_that_is_not_in_flight_is_ignored() -> None:
    with Warm() as worker:
        worker.send({"v": 1, "type": "cancel", "jobId": "never"}, probe())
        assert worker.next()["type"] == "result"
        worker.shutdown()


def test_shutdown_finishes_what_runs_and_begins_nothing_new() -> None:
    with Warm() as worker:
        worker.send(probe("old", "mock/echo?delayMs=300"), {"v": 1, "type": "shutdown"}, probe("new"))
        refused = worker.next()
        assert refused["jobId"] == "new"
        assert error_of(refused)["retryable"] is True
        # The node may close its end after a shutdown: what runs is still finished.
        assert worker.process.stdin
        worker.process.stdin.close()
        finished = worker.next()
        assert (finished["jobId"], finished["type"]) == ("old", "result")
        worker.end()
        assert worker.status() == 0


def test_the_end_of_stdin_ends_the_worker_at_once() -> None:
    with Warm() as worker:
        worker.send(probe("a", "mock/echo?delayMs=600000"))
        assert worker.process.stdin
        worker.process.stdin.close()
        worker.end()
        assert worker.status() == 0
        assert "node is gone; 1 jobs" in worker.stderr


def test_a_worker_whose_stdout_breaks_ends_at_once() -> None:
    process = subprocess.Popen(
        command("--serve"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    with process.stdin, process.stderr:
        os.read(process.stdout.fileno(), 100)
        process.stdout.close()
        assert process.wait(WAIT_S) == 1
        assert b"stdout was closed" in process.stderr.read()


def test_the_deadline_of_each_job_is_its_own() -> None:
    with Warm() as worker:
        slow = "mock/echo?delayMs=60000"
        worker.send(probe("a", slow, deadlineMs=400), probe("b", slow, deadlineMs=100), probe("c", slow))
        events = [worker.next(), worker.next()]
        assert [event["jobId"] for event in events] == ["b", "a"]
        assert {error_of(event)["code"] for event in events} == {"timeout"}


def test_turns_report_progress() -> None:
    with Warm() as worker:
        worker.send(probe(scenario={"followups": ["b", "c"]}))
        events = [worker.next() for _ in range(4)]
        assert [event["type"] for event in events] == ["progress"] * 3 + ["result"]
        assert [(event["done"], event["total"]) for event in events[:3]] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"v":1,"type":"job"}\n', b'{"v":1}\n', b"\xff\n"])
def test_malformed_input_without_a_job_is_exit_2(line: bytes) -> None:
    with Warm() as worker:
        worker.send_raw(line)
        worker.end()
        assert worker.status() == 2
        assert worker.stderr.startswith("runlane_worker: ")


@pytest.mark.parametrize(
    "changes", [{"attempt": 0}, {"type": "poke"}, {"v": 2}, {"kind": "x"}, {"scenario": {"key": 5}}]
)
def test_a_malformed_message_with_a_job_is_a_validation_error(changes: dict[str, object]) -> None:
    with Warm() as worker:
        worker.send_raw(json.dumps({**probe("bad"), **changes}).encode() + b"\n")
        event = worker.next()
        assert event["jobId"] == "bad"
        assert error_of(event)["code"] == "validation"
        worker.send(probe("good"))
        assert worker.next()["type"] == "result"


def test_a_job_id_twice_in_flight_still_has_one_terminal_event() -> None:
    with Warm() as worker:
        worker.send(probe("a", "mock/echo?delayMs=200"), probe("a"))
        assert worker.next()["transcript"]["turns"][0]["latencyMs"] >= 200
        worker.shutdown()
        assert "already in flight" in worker.stderr


PRINTING = """
import os, subprocess, sys
from runlane_worker import __main__, providers
from runlane_worker.providers import mock
class Loud(mock.Mock):
    async def complete(self, request):
        print("a library prints")
        os.write(1, b"C code prints\\n")
        subprocess.run(["echo", "a child prints"], check=True)
        assert sys.stdin.read() == ""
        return await super().complete(request)
mock.Mock = Loud
__main__.main(["--serve"])
"""


def test_what_libraries_print_goes_to_stderr() -> None:
    with Warm(sys.executable, "-c", PRINTING) as worker:
        worker.send(probe())
        assert worker.next()["type"] == "result"
        worker.shutdown()
        for words in ("a library prints", "C code prints", "a child prints"):
            assert words in worker.stderr


FAULTY = """
import asyncio
from runlane_worker import __main__
from runlane_worker.errors import JobError
from runlane_worker.providers import mock
class Faulty(mock.Mock):
    async def complete(self, request):
        answer = await super().complete(request)
        if "raise" in request.model_id:
            raise KeyError("sk-secret")
        if "?second" in request.model_id and request.context.turn == 2:
            raise JobError("rate_limit", "slow down", retry_after_ms=10)
        if "hang-second" in request.model_id and request.context.turn == 2:
            await asyncio.Event().wait()
        if "empty" in request.model_id and request.context.turn == 2:
            return answer._replace(text="", finish_reason="length")
        if "nan" in request.model_id:
            return answer._replace(usage=answer.usage | {"x": float("nan")})
        return answer
mock.Mock = Faulty
__main__.main(["--serve"])
"""


def test_what_a_provider_does_wrong_is_an_error_of_its_job_only() -> None:
    with Warm(sys.executable, "-c", FAULTY) as worker:
        worker.send(probe(model="mock/echo?raise"))
        error = error_of(worker.next())
        assert error["code"] == "unknown"
        assert "KeyError" in error["message"]
        assert "secret" not in error["message"]
        worker.send(probe(model="mock/echo?nan"))
        assert error_of(worker.next())["code"] == "unknown"
        prices = {"inputPerMillion": "1", "outputPerMillion": "2.5"}
        worker.send(probe(model="mock/echo?second", scenario={"followups": ["b"]}, pricing=prices))
        assert worker.next()["type"] == "progress"
        event = worker.next()
        assert error_of(event)["retryAfterMs"] == 10
        assert (event["usage"]["input"], event["usage"]["output"]) == (5, 2)
        assert event["costUsd"] == "0.00001"
        worker.send(probe(model="mock/echo?empty", scenario={"followups": ["b"]}))
        assert worker.next()["type"] == "progress"
        event = worker.next()
        assert error_of(event)["code"] == "invalid_response"
        assert event["usage"]["output"] == 3
        assert event["costUsd"] is None
        worker.send(probe(model="mock/echo?hang-second", scenario={"followups": ["b"]}, pricing=prices))
        assert worker.next()["type"] == "progress"
        worker.send({"v": 1, "type": "cancel", "jobId": "j1"})
        event = worker.next()
        assert error_of(event)["code"] == "cancelled"
        assert event["usage"]["output"] == 2
        assert event["costUsd"] == "0.00001"
        worker.send(probe())
        assert worker.next()["type"] == "result"


def test_a_crash_takes_the_worker_with_it() -> None:
    with Warm() as worker:
        worker.send(probe("a", "mock/echo?delayMs=60000"), probe("b", "mock/echo?crash=exit"))
        worker.end()
        assert worker.status() == 70


def test_a_hang_answers_nothing_until_a_signal_ends_it() -> None:
    with Warm() as worker:
        worker.send(probe("h", "mock/echo?hang=1", deadlineMs=1))
        assert b"hangs" in worker.error_lines.get(timeout=WAIT_S)
        worker.send({"v": 1, "type": "cancel", "jobId": "h"}, probe("late"))
        with pytest.raises(queue.Empty):
            worker.lines.get(timeout=1)
        assert worker.process.poll() is None
        worker.process.terminate()
        assert worker.status() == -15


def test_a_big_job_and_a_node_that_reads_late_lose_nothing() -> None:
    with Warm() as worker:
        prompt = "x" * 200_000
        worker.send(*(probe(f"j{i}", scenario={"prompt": prompt}) for i in range(50)))
        for _ in range(50):
            assert worker.next()["transcript"]["turns"][0]["response"] == prompt
        worker.shutdown()


def test_an_analysis_does_not_hold_up_probes() -> None:
    with Warm() as worker:
        records = [record(f"s{i}", f"m{j}", (i * 7 + j * 3) % 5) for i in range(200) for j in range(3)]
        worker.send(analyze("basic", records, bootstrap=100_000), probe("quick"))
        events: list[Message] = []
        while not events or events[-1]["type"] != "result" or events[-1]["jobId"] != "a1":
            events.append(worker.next())
        order = [event["jobId"] for event in events if event["type"] == "result"]
        assert order == ["quick", "a1"]


def test_an_analysis_stops_at_a_cancel_and_at_its_deadline() -> None:
    with Warm() as worker:
        records = [record(f"s{i}", f"m{j}", (i * 7 + j * 3) % 5) for i in range(200) for j in range(3)]
        job = analyze("basic", records, bootstrap=100_000)
        worker.send(job, {"v": 1, "type": "cancel", "jobId": "a1"})
        assert error_of(worker.next())["code"] == "cancelled"
        worker.send({**job, "deadlineMs": 1})
        events = [worker.next()]
        while events[-1]["type"] == "progress":
            events.append(worker.next())
        assert error_of(events[-1])["code"] == "timeout"
        worker.shutdown()
