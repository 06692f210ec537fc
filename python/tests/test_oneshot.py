from __future__ import annotations

import json
import signal
import subprocess

import pytest

from runlane_worker.errors import RETRYABLE
from support import command, error_of, loads, one_shot, one_shot_raw, probe


def test_a_probe_returns_its_transcript() -> None:
    followups = ["Why?", "So: 3", "Never asked"]
    pricing = {"inputPerMillion": "1.5", "outputPerMillion": "10"}
    event = one_shot(probe(scenario={"followups": followups}, params={"maxTurns": 3}, pricing=pricing))
    transcript = event["transcript"]
    assert [turn["prompt"] for turn in transcript["turns"]] == ["Rate 4/5", "Why?", "So: 3"]
    assert [turn["response"] for turn in transcript["turns"]] == ["Rate 4/5", "Why?", "So: 3"]
    assert [turn["label"] for turn in transcript["turns"]] == ["prompt", "followup-1", "followup-2"]
    assert [turn["n"] for turn in transcript["turns"]] == [1, 2, 3]
    for part in ("input", "output"):
        assert transcript["usage"][part] == sum(turn["usage"][part] for turn in transcript["turns"]) > 0
    # Three tokens of preamble; each turn sends everything before it again.
    assert [turn["usage"]["input"] for turn in transcript["turns"]] == [5, 8, 11]
    assert [turn["usage"]["output"] for turn in transcript["turns"]] == [2, 1, 2]
    assert transcript["costUsd"] == "0.000086"
    assert transcript["score"] == 3
    assert transcript["modelVersion"] == "mock-1"
    assert transcript["startedAt"] <= transcript["completedAt"]


def test_without_a_price_or_a_scale_there_is_no_cost_and_no_score() -> None:
    transcript = one_shot(probe(scoring=None))["transcript"]
    assert transcript["costUsd"] is None
    assert transcript["score"] is None


def test_left_out_fields_have_defaults() -> None:
    job = probe()
    job["scenario"] = {"key": "k", "prompt": "4"}
    for name in ("params", "scoring", "pricing"):
        del job[name]
    assert one_shot(job)["transcript"]["turns"][0]["response"] == "4"


@pytest.mark.parametrize("code", sorted(set(RETRYABLE) - {"cancelled"}))
def test_every_error_code_is_reported(code: str) -> None:
    event = one_shot(probe(model=f"mock/echo?fail={code}&retryAfterMs=1500"))
    error = error_of(event)
    assert error["code"] == code
    assert error["retryable"] is RETRYABLE[code]
    assert error["retryAfterMs"] == 1500
    assert event["usage"] is None


@pytest.mark.parametrize("model", ["mock/unheard", "mock/?fail=auth", "nobody/echo"])
def test_an_unknown_behaviour_or_provider_is_not_found(model: str) -> None:
    assert error_of(one_shot(probe(model=model)))["code"] == "not_found"


@pytest.mark.parametrize(
    "key", ["delayMs=soon", "delayMs=-1", "fail=nope", "fail=cancelled", "crash=maybe", "stdout=x"]
)
def test_a_mock_key_that_cannot_be_is_a_validation_error(key: str) -> None:
    error = error_of(one_shot(probe(model=f"mock/echo?{key}")))
    assert error["code"] == "validation"
    assert key.split("=")[0] in error["message"]


def test_fail_first_fails_by_the_number_of_the_attempt() -> None:
    event = one_shot(probe(model="mock/echo?failFirst=2", attempt=2))
    assert error_of(event)["code"] == "network"
    assert one_shot(probe(model="mock/echo?failFirst=2", attempt=3))["type"] == "result"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"nonsense", "not valid JSON"),
        (b"[1]", "not an object"),
        (b'{"v":1,"type":"job"}', "no jobId"),
        (b'{"v":1,"type":"shutdown"}', "no jobId"),
        (b'{"jobId":"j","x":NaN}', "NaN"),
        (b'{"jobId":"\xff"}', "UTF-8"),
        (b'{"jobId":"a"}{"jobId":"b"}', "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
    ],
)
def test_input_without_a_readable_job_is_exit_2_and_says_why(data: bytes, words: str) -> None:
    done = one_shot_raw(data)
    assert done.returncode == 2
    assert done.stdout == b""
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_every_mistake_of_a_job_is_told_at_once() -> None:
    job = probe(attempt=True, deadlineMs=0, scoring={"min": 5, "max": 1}, v=2)
    job["model"] = {"id": "echo"}
    job["params"] = {"temperature": "hot", "maxTurns": 0, "seed": 1.5, "maxTokens": "9"}
    job["scenario"] = {"key": 1, "prompt": "", "followups": [""], "dimensions": []}
    job["pricing"] = {"inputPerMillion": 1.5, "outputPerMillion": "NaN"}
    done = one_shot_raw(json.dumps(job).encode())
    assert done.returncode == 0
    message = error_of(loads(done.stdout))["message"]
    for field in (
        "v is 2", "attempt", "deadlineMs", "scoring.min", "model.id", "params.temperature", "params.maxTurns",
        "params.seed", "params.maxTokens", "scenario.key", "scenario.prompt", "scenario.followups",
        "scenario.dimensions", "pricing.inputPerMillion", "pricing.outputPerMillion",
    ):  # fmt: skip
        assert field in message


@pytest.mark.parametrize("changes", [{"kind": "probe:other"}, {"type": "cancel"}, {"runId": None}])
def test_an_object_that_is_no_job_is_a_validation_error(changes: dict[str, object]) -> None:
    done = one_shot_raw(json.dumps({**probe(), **changes}).encode())
    assert done.returncode == 0
    assert error_of(loads(done.stdout))["code"] == "validation"


def test_text_that_is_no_unicode_becomes_the_replacement_character() -> None:
    event = one_shot(probe(scenario={"prompt": "half \ud800, whole 😀"}))
    assert event["transcript"]["turns"][0]["response"] == "half \ufffd, whole 😀"


def test_the_deadline_is_enforced() -> None:
    assert error_of(one_shot(probe(model="mock/echo?delayMs=60000", deadlineMs=50)))["code"] == "timeout"


@pytest.mark.parametrize(("way", "status"), [("exit", 70), ("segv", -signal.SIGSEGV), ("oom", -signal.SIGKILL)])
def test_a_crash_really_ends_the_process(way: str, status: int) -> None:
    done = one_shot_raw(json.dumps(probe(model=f"mock/echo?crash={way}")).encode())
    assert done.returncode == status
    assert done.stdout == b""


def test_garbage_reaches_the_real_stdout() -> None:
    done = one_shot_raw(json.dumps(probe(model="mock/echo?stdout=garbage")).encode())
    first, second, third = done.stdout.splitlines()
    with pytest.raises(ValueError, match="Expecting"):
        loads(first)
    with pytest.raises(UnicodeDecodeError):
        second.decode()
    assert loads(third)["type"] == "result"


def test_huge_writes_without_an_end_until_it_is_killed() -> None:
    job = json.dumps(probe(model="mock/echo?stdout=huge")).encode()
    with subprocess.Popen(command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(job)
        process.stdin.close()
        data = process.stdout.read(32 << 20)
        assert process.poll() is None
        process.kill()
    assert data == b"x" * (32 << 20)


def test_unknown_arguments_are_refused_and_the_version_is_told() -> None:
    done = subprocess.run(command("--warm"), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"--warm" in done.stderr
    assert subprocess.run(command("--version"), capture_output=True, check=True).stdout.startswith(b"runlane_worker/")


def test_a_probe_imports_no_numpy() -> None:
    code = "import sys, runlane_worker.serve, runlane_worker.oneshot, runlane_worker.providers.mock\n"
    code += "assert not {'numpy', 'scipy'} & set(sys.modules)"
    subprocess.run([command()[0], "-c", code], check=True)
