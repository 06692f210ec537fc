"""``analyze:basic``: outcomes, scores by model, comparisons of models, latency, tokens and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from itertools import combinations

import numpy as np

from ..job import Analyze
from ..pricing import PARTS as TOKENS
from ..pricing import add, plain
from ..protocol import Message
from .records import Record, Table
from .stats import bootstrap_interval, t_interval, wilson

METHODS = {
    "interval": "Student's t interval of the mean at 1 − alpha; null below two scores or without variance",
    "bootstrapInterval": "percentile bootstrap of the mean with the seed; null when bootstrap is 0",
    "sd": "standard deviation with n − 1",
    "winRates": "for each pair of models, on scenarios that both scored: wins of A over decisive pairs, with Wilson's "
    "interval at 1 − alpha; ties are reported and not counted",
    "latencyMs": "percentiles by linear interpolation, of completed records",
    "costUsd": "exact decimal sum of the costs that are known",
}
"""How the numbers come about."""


def _outcomes(table: Table, _job: Analyze, _warnings: list[str]) -> Message:
    return {
        "byStatus": _counts(record.status for record in table.records),
        "byErrorCode": _counts(record.error_code for record in table.records if record.error_code is not None),
    }


def _models(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    of: dict[str, list[Record]] = {model: [] for model in table.models}
    for record in table.records:
        of[record.model].append(record)
    return [{"modelId": model, **_summary(records, job, model, warnings)} for model, records in of.items()]


def _overall(table: Table, _job: Analyze, _warnings: list[str]) -> Message:
    return _consumption(table.records)


def _summary(records: list[Record], job: Analyze, model: str, warnings: list[str]) -> Message:
    scores = np.array([record.score for record in records if record.score is not None])
    n = scores.size
    if n < 2:
        warnings.append(f"{model} has {n} scores: too few for a standard deviation and an interval.")
    elif np.ptp(scores) == 0:
        warnings.append(f"All {n} scores of {model} are the same: there is no variance, so no interval.")
    return {
        "n": int(n),
        "outcomes": _counts(record.status for record in records),
        "errorCodes": _counts(record.error_code for record in records if record.error_code is not None),
        "mean": float(scores.mean()) if n else None,
        "sd": float(scores.std(ddof=1)) if n > 1 else None,
        "interval": t_interval(scores, job.alpha),
        "bootstrapInterval": bootstrap_interval(scores, job.alpha, job.bootstrap, job.seed),
        "distribution": _distribution(scores.tolist()),
        **_consumption(records),
    }


def _distribution(scores: list[float]) -> list[Message]:
    """How often each rating was given, ascending."""
    return [{"score": score, "count": count} for score, count in sorted(Counter(scores).items())]


def _consumption(records: list[Record]) -> Message:
    latencies = [r.latency_ms for r in records if r.latency_ms is not None and r.status == "completed"]
    tokens = dict.fromkeys(TOKENS, 0)
    for record in records:
        if record.usage is not None:
            tokens = add(tokens, record.usage)
    costs = [record.cost for record in records if record.cost is not None]
    p50, p95 = (float(p) for p in np.percentile(latencies, [50, 95])) if latencies else (None, None)
    return {
        "latencyMs": {"n": len(latencies), "p50": p50, "p95": p95},
        "tokens": tokens,
        "costUsd": plain(sum(costs, Decimal(0))) if costs else None,
        "costKnown": len(costs),
    }


def _win_rates(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    if len(table.models) < 2:
        warnings.append("There are fewer than two models: nothing to compare.")
    pairs = []
    for a, b in combinations(range(len(table.models)), 2):
        left, right = table.matrix[:, a], table.matrix[:, b]
        wins_a, wins_b = int((left > right).sum()), int((left < right).sum())
        ties = int((left == right).sum())
        decisive = wins_a + wins_b
        name = f"{table.models[a]} and {table.models[b]}"
        if decisive == 0:
            warnings.append(f"{name} share {ties} scored scenarios, none of them decisive: no win rate.")
        elif ties > decisive:
            warnings.append(f"{name} tie on {ties} of {ties + decisive} scenarios: the win rate rests on the rest.")
        pairs.append(
            {
                "modelA": table.models[a],
                "modelB": table.models[b],
                "shared": decisive + ties,
                "winsA": wins_a,
                "winsB": wins_b,
                "ties": ties,
                "winRateA": wins_a / decisive if decisive else None,
                "interval": wilson(wins_a, decisive, job.alpha),
            }
        )
    return pairs


def _scores(table: Table, _job: Analyze, _warnings: list[str]) -> list[Message]:
    return _distribution([record.score for record in table.scored if record.score is not None])


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


PARTS = {
    "outcomes": _outcomes,
    "models": _models,
    "distribution": _scores,
    "winRates": _win_rates,
    "consumption": _overall,
}
"""The parts of the analysis, in order."""
