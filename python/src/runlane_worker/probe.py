"""The kind ``probe:scenario``: one conversation with one model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from time import monotonic, time_ns

from . import providers
from .errors import JobError
from .job import Probe
from .pricing import Meter
from .protocol import Message
from .providers import ChatMessage, Context, Request
from .scoring import score

Progress = Callable[[int, int, str], None]
"""Called with the steps done, the steps in all, and what was done last."""


def _now() -> str:
    seconds, milliseconds = divmod(time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


@lru_cache(maxsize=1)
def _second(timestamp: int) -> str:
    """A time without its fraction and its zone: probes that end within one second share the text."""
    return datetime.fromtimestamp(timestamp, UTC).replace(tzinfo=None).isoformat()


async def run(job: Probe, progress: Progress, meter: Meter) -> Message:
    """Asks the prompt and each follow-up in turn and returns the transcript.

    What each call used is taken down on the meter, also where a later one fails or the job is stopped.

    Raises:
        JobError: The provider is unknown or a call failed.
    """
    provider = providers.get(job.provider)
    messages = [ChatMessage("system", job.preamble)] if job.preamble else []
    turns: list[Message] = []
    model_version: str | None = None
    total = len(job.prompts)
    started_at = _now()
    for n, prompt in enumerate(job.prompts, 1):
        messages.append(ChatMessage("user", prompt))
        context = Context(job.scenario_key, job.dimensions, job.scoring, job.attempt, n)
        request = Request(
            job.model_id, job.model_name, list(messages), job.temperature, job.max_tokens, job.seed, context
        )
        begun = monotonic()
        answer = await provider.complete(request)
        latency_ms = round((monotonic() - begun) * 1000)
        usage = meter.take(answer.usage)
        if not answer.text.strip():
            raise JobError("invalid_response", f"the answer to turn {n} was empty ({answer.finish_reason})")
        messages.append(ChatMessage("assistant", answer.text))
        model_version = answer.model_version
        turns.append(
            {
                "n": n,
                "label": "prompt" if n == 1 else f"followup-{n - 1}",
                "prompt": prompt,
                "response": answer.text,
                "finishReason": answer.finish_reason,
                "usage": usage,
                "latencyMs": latency_ms,
                "requestId": answer.request_id,
                "modelVersion": answer.model_version,
            }
        )
        if total > 1:
            progress(n, total, "turns answered")
    return {
        "turns": turns,
        "usage": meter.used,
        "modelVersion": model_version,
        "score": score(turns[-1]["response"], *job.scoring) if job.scoring else None,
        "costUsd": meter.cost(),
        "startedAt": started_at,
        "completedAt": _now(),
    }
