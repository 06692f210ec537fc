"""The client library against a provider's wire format, over real HTTP, in real workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stub import KEYS, Stub
from support import Message, Warm, error_of, probe

PROVIDERS = ("openai", "openai-compatible", "ollama", "anthropic", "google", "mistral")
PRICES = {"inputPerMillion": "1", "outputPerMillion": "2.5"}
READ_TIMEOUT_MS = 2_000


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with Stub() as started:
        yield started


@pytest.fixture(scope="module")
def worker(stub: Stub) -> Iterator[Warm]:
    """One that has all the keys, so that none of them may show anywhere."""
    with Warm(env=stub.environment(RUNLANE_PROVIDER_READ_TIMEOUT_MS=str(READ_TIMEOUT_MS))) as warm:
        yield warm
        warm.shutdown()
        for key in KEYS.values():
            assert key not in warm.stderr


def ask(worker: Warm, model: str, **changes: Any) -> Message:
    """The terminal event of one probe; no key is in it."""
    worker.send(probe(model=model, pricing=PRICES, **changes))
    while (event := worker.next())["type"] == "progress":
        pass
    assert not [key for key in KEYS.values() if key in str(event)]
    return event


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_conversation_is_held_and_told_turn_by_turn(worker: Warm, provider: str) -> None:
    followups = {"followups": ["Why that?", "Are you sure?"]}
    event = ask(worker, f"{provider}/rater;cached=2", scenario=followups)
    transcript = event["transcript"]
    assert [turn["label"] for turn in transcript["turns"]] == ["prompt", "followup-1", "followup-2"]
    assert transcript["score"] == 4
    inputs = [sum(turn["usage"][part] for part in ("input", "cacheRead")) for turn in transcript["turns"]]
    assert inputs == sorted(set(inputs)), "each turn sends what was said before"
    for turn in transcript["turns"]:
        assert turn["response"] == "On balance I would rate this 4 out of 5."
        assert (turn["finishReason"], turn["usage"]["output"]) == ("stop", 10)
        assert turn["usage"]["cacheRead"] == (0 if provider == "mistral" else 2), "Mistral does not tell"
        assert turn["requestId"]
        assert turn["modelVersion"] == transcript["modelVersion"]
        assert turn["latencyMs"] >= 0
    assert len({turn["requestId"] for turn in transcript["turns"]}) == 3
    assert transcript["modelVersion"].startswith("rater")
    # A cached token has no price here, so the cost is not known; where none is told, it is.
    assert (transcript["costUsd"] is None) == (provider != "mistral")


@pytest.mark.parametrize(("provider", "told"), [("openai", 5), ("google", 5), ("anthropic", 0)])
def test_reasoning_is_counted_apart_where_the_provider_tells_it(worker: Warm, provider: str, told: int) -> None:
    transcript = ask(worker, f"{provider}/rater;reasoning=5")["transcript"]
    assert (transcript["usage"]["reasoning"], transcript["usage"]["output"]) == (told, 15 - told)
    spent = transcript["usage"]["input"] + 15 * 2.5
    assert float(transcript["costUsd"]) == pytest.approx(spent / 1_000_000)


@pytest.mark.parametrize(("provider", "sent"), [("openai", 5), ("anthropic", 2), ("google", 2)])
def test_cached_input_is_counted_apart(worker: Warm, provider: str, sent: int) -> None:
    # The stub counts a quarter of the characters; only OpenAI's format has the preamble among the messages.
    usage = ask(worker, f"{provider}/rater;cached=2")["transcript"]["usage"]
    assert (usage["input"], usage["cacheRead"]) == (sent - 2, 2)


STATUSES = {
    "validation": (400, "validation"),
    "context_length": (400, "context_length"),
    "content_filter": (400, "content_filter"),
    "auth": (401, "auth"),
    "payment": (402, "quota_exhausted"),
    "forbidden": (403, "auth"),
    "not_found": (404, "not_found"),
    "slow": (408, "timeout"),
    "conflict": (409, "server_error"),
    "too_large": (413, "context_length"),
    "unprocessable": (422, "validation"),
    "rate_limit": (429, "rate_limit"),
    "quota": (429, "quota_exhausted"),
    "server": (500, "server_error"),
    "unavailable": (503, "server_error"),
    "overloaded": (503, "server_error"),
}
OWN_WAY = {
    # Neither names these in a field: the words of the message are no ground to decide on.
    ("anthropic", "context_length"): (400, "validation"),
    ("anthropic", "content_filter"): (400, "validation"),
    ("google", "context_length"): (400, "validation"),
    ("google", "content_filter"): (400, "validation"),
    # Google's answer to a wrong key.
    ("google", "auth"): (400, "auth"),
    ("anthropic", "overloaded"): (529, "server_error"),
}


@pytest.mark.parametrize("provider", [p for p in PROVIDERS if p != "ollama"])
@pytest.mark.parametrize("fault", STATUSES)
def test_an_error_is_told_by_status_and_code(worker: Warm, provider: str, fault: str) -> None:
    status, code = OWN_WAY.get((provider, fault), STATUSES[fault])
    event = ask(worker, f"{provider}/echo;fail={fault};echoKey=1")
    error = error_of(event)
    assert (error["code"], error["httpStatus"], error["retryAfterMs"]) == (code, status, None)
    assert f"answers with {fault} for the key [redacted]" in error["message"]
    assert error["detail"]["provider"] == provider
    assert error["detail"]["requestId"].startswith("req-")
    assert event["usage"] is None
    assert event["costUsd"] is None


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "mistral"])
@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [("retryAfter=7", 7_000, 7_000), ("retryAfterMs=1500", 1_500, 1_500), ("retryAfterDate=90", 60_000, 90_000)],
)
def test_the_wait_that_a_provider_asks_for_is_told(
    worker: Warm, provider: str, asked: str, low: int, high: int
) -> None:
    error = error_of(ask(worker, f"{provider}/echo;fail=rate_limit;{asked}"))
    assert low <= error["retryAfterMs"] <= high


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "mistral"])
@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("cut", "network"),
        ("drop", "network"),
        ("stall", "timeout"),
        ("html", "invalid_response"),
        ("shape", "invalid_response"),
    ],
)
def test_a_connection_or_an_answer_that_breaks_is_an_error(worker: Warm, provider: str, broken: str, code: str) -> None:
    error = error_of(ask(worker, f"{provider}/echo;broken={broken}"))
    assert (error["code"], error["httpStatus"]) == (code, None)


def test_nobody_there_is_a_network_error(stub: Stub) -> None:
    with Stub() as gone:
        environment = stub.environment(OPENAI_BASE_URL=f"{gone.root}/v1")
    with Warm(env=environment) as worker:
        assert error_of(ask(worker, "openai/echo"))["code"] == "network"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "mistral"])
def test_an_empty_or_filtered_answer_is_no_success_and_is_paid_for(worker: Warm, provider: str) -> None:
    for keys, code in (("empty=1", "invalid_response"), ("finish=content_filter", "content_filter")):
        event = ask(worker, f"{provider}/echo;{keys}")
        assert error_of(event)["code"] == code
        assert event["usage"]["input"] > 0
        assert float(event["costUsd"]) > 0


def test_an_answer_that_was_cut_short_says_so(worker: Warm) -> None:
    turn = ask(worker, "openai/echo;finish=length")["transcript"]["turns"][0]
    assert turn["finishReason"] == "length"


def test_a_failing_turn_tells_what_the_turns_before_it_cost(worker: Warm) -> None:
    model = "openai/rater;fail=server;failFrom=Why"
    event = ask(worker, model, scenario={"prompt": "Again?", "followups": []})
    once = event["transcript"]["usage"]
    event = ask(worker, model, scenario={"prompt": "Again?", "followups": ["Why"]})
    assert error_of(event)["code"] == "server_error"
    assert event["usage"] == once
    assert float(event["costUsd"]) == pytest.approx((once["input"] + once["output"] * 2.5) / 1_000_000)


def test_only_the_node_retries(stub: Stub, worker: Warm) -> None:
    for provider in ("openai", "anthropic", "google", "mistral"):
        for fault in ("server", "rate_limit", "slow", "conflict"):
            model = f"echo;fail={fault};once"
            before = stub.get("stats")["models"].get(model, 0)
            ask(worker, f"{provider}/{model}")
            assert stub.get("stats")["models"][model] == before + 1, f"{provider} {fault}"


def test_two_hundred_calls_wait_at_once_over_one_client(stub: Stub, worker: Warm) -> None:
    worker.send(*(probe(f"p{n}", "openai/rater;gate=1") for n in range(200)))
    assert stub.get("stats?inFlight=200")["inFlight"] == 200
    stub.post("open")
    events = [worker.next() for _ in range(200)]
    assert {event["jobId"] for event in events if event["type"] == "result"} == {f"p{n}" for n in range(200)}


def test_a_provider_without_its_key_says_which_variable_to_set() -> None:
    for provider, variable in (("openai", "OPENAI_API_KEY"), ("openai-compatible", "OPENAI_COMPATIBLE_BASE_URL")):
        with Warm(env={variable: ""}) as worker:
            error = error_of(ask(worker, f"{provider}/any"))
            assert error["code"] == "auth"
            assert variable in error["message"]


def test_a_worker_that_only_mocks_imports_no_client() -> None:
    code = (
        "import sys; from runlane_worker import serve, oneshot, probe, providers; providers.get('mock');"
        "print([m for m in ('pydantic', 'pydantic_ai', 'openai', 'httpx2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
