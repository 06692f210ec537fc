"""The records of a run, checked and laid out as tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import JobError
from ..pricing import PARTS, Usage
from ..protocol import Message

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PROBLEMS_MAX = 10

_SCORE_MIN = 1e-100
"""A score nearer to 0 is taken for 0: the variance of such scores may be less than any number of double precision."""


@dataclass(frozen=True)
class Record:
    """The outcome of one probe job."""

    scenario: str
    model: str
    dimensions: dict[str, str]
    """Levels as texts."""
    status: str
    error_code: str | None
    score: float | None
    """Only completed jobs have one."""
    usage: Usage | None
    cost: Decimal | None
    latency_ms: float | None


@dataclass(frozen=True)
class Pair:
    """Two models on the scenarios that both scored."""

    model_a: str
    model_b: str
    a: Floats
    """Scores of the one, by scenario."""
    b: Floats
    """Scores of the other, of the same scenarios."""

    @property
    def n(self) -> int:
        """How many scenarios both scored."""
        return int(self.a.size)

    @property
    def name(self) -> str:
        """Both models, for people."""
        return f"{self.model_a} and {self.model_b}"

    def head(self) -> Message:
        """Who is compared on how many scenarios."""
        return {"modelA": self.model_a, "modelB": self.model_b, "n": self.n}


class Table:
    """All records of a run. Whatever their order was, the same records make the same table."""

    def __init__(self, records: list[Record]) -> None:
        self.records = sorted(records, key=_place)
        self.models = sorted({record.model for record in records})
        self.scenarios = sorted({record.scenario for record in records})

    @classmethod
    def read(cls, records: list[Message]) -> Table:
        """Checks the records.

        Raises:
            JobError: ``validation``, with the first mistakes.
        """
        problems: list[str] = []
        read: list[Record] = []
        for index, record in enumerate(records):
            try:
                read.append(_record(record))
            except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation) as error:
                problems.append(f"records[{index}]: {error}")
                if len(problems) == _PROBLEMS_MAX:
                    break
        if problems:
            raise JobError("validation", "records cannot be read: " + "; ".join(problems))
        return cls(read)

    @cached_property
    def scored(self) -> list[Record]:
        """The completed records that have a score."""
        return [record for record in self.records if record.score is not None]

    @cached_property
    def matrix(self) -> Floats:
        """Scores, scenarios × models; NaN where there is none, the mean where there are several."""
        row = {scenario: i for i, scenario in enumerate(self.scenarios)}
        column = {model: i for i, model in enumerate(self.models)}
        total = np.zeros((len(row), len(column)))
        count = np.zeros_like(total)
        for record in self.scored:
            at = row[record.scenario], column[record.model]
            total[at] += record.score or 0.0
            count[at] += 1
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    @cached_property
    def complete(self) -> Bools:
        """Which scenarios every model has scored."""
        missing = np.asarray(np.isnan(self.matrix).any(axis=1), dtype=np.bool_)
        return ~missing

    @cached_property
    def repeated(self) -> bool:
        """Whether some model scored some scenario several times."""
        return len({(record.scenario, record.model) for record in self.scored}) < len(self.scored)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every two models."""
        return list(self._pairs())

    def _pairs(self) -> Iterator[Pair]:
        for a, b in combinations(range(len(self.models)), 2):
            both = ~np.isnan(self.matrix[:, [a, b]]).any(axis=1)
            yield Pair(self.models[a], self.models[b], self.matrix[both, a], self.matrix[both, b])

    def coverage(self) -> Message:
        """How much of the run has a score."""
        status = Counter(record.status for record in self.records)
        return {
            "expected": len(self.records),
            "used": len(self.scored),
            "failed": status["failed"],
            "unscored": status["completed"] - len(self.scored),
        }

    def extent(self) -> Message:
        """How many scenarios there are, and how many of them every model scored."""
        return {"all": len(self.scenarios), "complete": int(self.complete.sum()) if self.models else 0}

    def warnings(self) -> list[str]:
        """What is to be said about the records themselves."""
        found: list[str] = []
        if not self.scored:
            found.append("No record has a score: nothing about scores can be computed.")
        unscored = self.coverage()["unscored"]
        if unscored:
            found.append(f"{unscored} completed records have no score and are left out of everything about scores.")
        if self.coverage()["failed"]:
            found.append(
                f"{self.coverage()['failed']} of {len(self.records)} records failed; if failures depend on the "
                "scenario or the model, scores are biased."
            )
        if self.repeated:
            found.append("Some models scored a scenario several times: inference uses the mean of each scenario.")
        return found


def _place(record: Record) -> tuple[str, str, str, float, float]:
    """Where a record belongs: sums of floats depend on their order, so the order must not depend on the sender's."""
    score = -math.inf if record.score is None else record.score
    latency = -math.inf if record.latency_ms is None else record.latency_ms
    return record.scenario, record.model, record.status, score, latency


def _record(record: Any) -> Record:  # unchecked input
    if not isinstance(record, dict):
        raise TypeError("must be an object")
    for name in ("scenarioKey", "modelId", "status"):
        if not isinstance(record.get(name), str):
            raise TypeError(f"{name} must be a text")
    status = record["status"].lower()
    dimensions = record.get("dimensions") or {}
    if not isinstance(dimensions, dict):
        raise TypeError("dimensions must be an object")
    usage = record.get("usage")
    if usage is not None:
        usage = {part: int(usage.get(part) or 0) for part in PARTS}
    score = _number(record, "score")
    if score is not None and abs(score) < _SCORE_MIN:
        score = 0.0
    error_code = record.get("errorCode")
    return Record(
        scenario=record["scenarioKey"],
        model=record["modelId"],
        dimensions={str(name): _level(value) for name, value in dimensions.items() if value is not None},
        status=status,
        error_code=None if error_code is None else str(error_code),
        score=score if status == "completed" else None,
        usage=usage,
        cost=_cost(record),
        latency_ms=_number(record, "latencyMs"),
    )


def _level(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _number(record: Message, name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{name} must be a number or null")
    return float(value)


def _cost(record: Message) -> Decimal | None:
    value = record.get("costUsd")
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError("costUsd must be a decimal as a text, or null")
    cost = Decimal(value)
    if not cost.is_finite():
        raise ValueError("costUsd must be finite")
    return cost
