"""Jobs as types, and what makes one valid. All mistakes of a job are told at once."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .errors import JobError
from .pricing import PARTS, Prices
from .protocol import KINDS, Message, version_problem

_PRICE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_BOOTSTRAP_MAX = 100_000


@dataclass
class Head:
    """What every job has."""

    job_id: str
    kind: str
    attempt: int
    deadline_s: float


@dataclass
class Probe(Head):
    """Ask a model one scenario."""

    scenario_key: str
    preamble: str | None
    prompts: list[str]
    """The prompt and the follow-ups, cut to the turns allowed."""
    dimensions: dict[str, Any]
    model_id: str
    provider: str
    model_name: str
    """The model's id after the first ``/``."""
    temperature: float | None
    max_tokens: int | None
    seed: int | None
    scoring: tuple[int, int] | None
    prices: Prices | None


@dataclass
class Analyze(Head):
    """Analyse a run's records."""

    input_hash: str
    previous_code: str | None
    """The code that computed the stored result of the same hash."""
    seed: int
    alpha: float
    bootstrap: int
    records: list[Message] = field(repr=False)


class _Reader:
    """Reads fields and collects the mistakes."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def text(self, source: Message, name: str, path: str, *, empty: bool = False) -> str:
        value = source.get(name)
        if isinstance(value, str) and (value or empty):
            return value
        self.problems.append(f"{path} must be a text{'' if empty else ' that is not empty'}")
        return ""

    def optional_text(self, source: Message, name: str, path: str) -> str | None:
        return None if source.get(name) is None else self.text(source, name, path, empty=True)

    def integer(self, source: Message, name: str, path: str, low: int | None = None, high: int | None = None) -> int:
        value = source.get(name)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (low is None or value >= low)
            and (high is None or value <= high)
        ):
            return value
        span = "" if low is None else f" of at least {low}"
        span += "" if high is None else f" and at most {high}"
        self.problems.append(f"{path} must be an integer{span}")
        return low or 0

    def optional_integer(self, source: Message, name: str, path: str, low: int | None = None) -> int | None:
        return None if source.get(name) is None else self.integer(source, name, path, low)

    def object(self, source: Message, name: str, path: str) -> Message:
        value = source.get(name)
        if isinstance(value, dict):
            return value
        self.problems.append(f"{path} must be an object")
        return {}

    def optional_object(self, source: Message, name: str, path: str) -> Message | None:
        return None if source.get(name) is None else self.object(source, name, path)

    def price(self, source: Message, name: str, *, optional: bool) -> Decimal | None:
        value = source.get(name)
        if value is None and optional:
            return None
        if isinstance(value, str) and _PRICE.fullmatch(value):
            return Decimal(value)
        self.problems.append(f'pricing.{name} must be US dollars per million tokens as a text such as "0.25"')
        return None


def parse(message: Message) -> Probe | Analyze:
    """The job in a message of type ``job``.

    Raises:
        JobError: With the code ``validation`` and every mistake.
    """
    read = _Reader()
    if problem := version_problem(message):
        read.problems.append(problem)
    if message.get("type") != "job":
        read.problems.append(f"type is {message.get('type')!r}, but must be 'job'")
    kind = message.get("kind")
    job: Probe | Analyze | None = None
    if kind == "probe:scenario":
        job = _probe(read, message)
    elif kind in ("analyze:basic", "analyze:deep"):
        job = _analyze(read, message, kind)
    else:
        read.problems.append(f"kind is {kind!r}, but must be one of {', '.join(KINDS)}")
    if read.problems or job is None:
        raise JobError("validation", "the job is not valid: " + "; ".join(read.problems))
    return job


def _head(read: _Reader, message: Message) -> tuple[str, int, float]:
    read.text(message, "runId", "runId")
    return (
        read.text(message, "jobId", "jobId"),
        read.integer(message, "attempt", "attempt", 1),
        read.integer(message, "deadlineMs", "deadlineMs", 1) / 1000,
    )


def _probe(read: _Reader, message: Message) -> Probe:
    job_id, attempt, deadline_s = _head(read, message)
    scenario = read.object(message, "scenario", "scenario")
    params = read.optional_object(message, "params", "params") or {}
    prompts = [read.text(scenario, "prompt", "scenario.prompt"), *_followups(read, scenario)]
    max_turns = read.optional_integer(params, "maxTurns", "params.maxTurns", 1)
    temperature = params.get("temperature")
    if temperature is not None and not _is_number(temperature):
        read.problems.append("params.temperature must be a number")
    model_id = read.text(read.object(message, "model", "model"), "id", "model.id")
    provider, slash, name = model_id.partition("/")
    if model_id and not (provider and slash and name):
        read.problems.append(f"model.id is {model_id!r}, but must be provider/name")
    return Probe(
        job_id=job_id,
        kind="probe:scenario",
        attempt=attempt,
        deadline_s=deadline_s,
        scenario_key=read.text(scenario, "key", "scenario.key", empty=True),
        preamble=read.optional_text(scenario, "preamble", "scenario.preamble"),
        prompts=prompts[:max_turns],
        dimensions=read.optional_object(scenario, "dimensions", "scenario.dimensions") or {},
        model_id=model_id,
        provider=provider,
        model_name=name,
        temperature=temperature,
        max_tokens=read.optional_integer(params, "maxTokens", "params.maxTokens", 1),
        seed=read.optional_integer(params, "seed", "params.seed"),
        scoring=_scoring(read, message),
        prices=_prices(read, message),
    )


def _followups(read: _Reader, scenario: Message) -> list[str]:
    value = scenario.get("followups")
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
        return value
    read.problems.append("scenario.followups must be a list of texts that are not empty")
    return []


def _scoring(read: _Reader, message: Message) -> tuple[int, int] | None:
    scoring = read.optional_object(message, "scoring", "scoring")
    if scoring is None:
        return None
    low, high = read.integer(scoring, "min", "scoring.min"), read.integer(scoring, "max", "scoring.max")
    if low > high:
        read.problems.append(f"scoring.min is {low}, above scoring.max, {high}")
    return low, high


def _prices(read: _Reader, message: Message) -> Prices | None:
    pricing = read.optional_object(message, "pricing", "pricing")
    if pricing is None:
        return None
    prices = {
        part: read.price(pricing, f"{part}PerMillion", optional=part not in ("input", "output")) for part in PARTS
    }
    if prices["reasoning"] is None:
        prices["reasoning"] = prices["output"]
    return prices


def _analyze(read: _Reader, message: Message, kind: str) -> Analyze:
    job_id, attempt, deadline_s = _head(read, message)
    options = read.optional_object(message, "options", "options") or {}
    alpha = 0.05 if options.get("alpha") is None else options["alpha"]
    if not _is_number(alpha) or not 0 < alpha < 1:
        read.problems.append("options.alpha must be a number between 0 and 1, both excluded")
    bootstrap = 0
    if options.get("bootstrap") is not None:
        bootstrap = read.integer(options, "bootstrap", "options.bootstrap", 0, _BOOTSTRAP_MAX)
    records = message.get("records")
    if not isinstance(records, list):
        read.problems.append("records must be a list")
        records = []
    return Analyze(
        job_id=job_id,
        kind=kind,
        attempt=attempt,
        deadline_s=deadline_s,
        input_hash=read.text(message, "inputHash", "inputHash", empty=True),
        previous_code=read.optional_text(message, "previousCode", "previousCode"),
        seed=read.optional_integer(options, "seed", "options.seed", 0) or 0,
        alpha=alpha,
        bootstrap=bootstrap,
        records=records,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
