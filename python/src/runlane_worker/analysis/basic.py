"""``analyze:basic``: outcomes, scores by model, comparisons of models, latency, tokens and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from ..job import Analyze
from ..pricing import PARTS as TOKENS
from ..pricing import add, plain
from ..protocol import Message
from .records import Floats, Record, Table
from .stats import bootstrap_interval, t_interval, wilson

METHODS = {
    "mean": "mean over scenarios; one that a model scored several times counts once, with the mean of its scores",
    "interval": "Student's t interval of the mean over scenarios at 1 − alpha; null below two scored scenarios or "
    "without variance",
    "bootstrapInterval": "percentile bootstrap of the mean by scenario with the seed; null when bootstrap is 0",
    "sd": "standard deviation over scenarios with n − 1",
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
    return [
        {"modelId": model, **_summary(of[model], column[~np.isnan(column)], job, model, warnings)}
        for model, column in zip(table.models, table.matrix.T, strict=True)
    ]


def _overall(table: Table, _job: Analyze, _warnings: list[str]) -> Message:
    return _consumption(table.records)


def _summary(records: list[Record], means: Floats, job: Analyze, model: str, warnings: list[str]) -> Message:
    """One model; `means` are its scores by scenario."""
    ratings = [record.score for record in records if record.score is not None]
    n = means.size
    if n < 2:
        warnings.append(f"{model} has {n} scored scenarios: too few for a standard deviation and an interval.")
    elif np.ptp(means) == 0:
        warnings.append(f"All {n} scenarios have the same score of {model}: there is no variance, so no interval.")
    return {
        "n": int(n),
        "scores": len(ratings),
        "outcomes": _counts(record.status for record in records),
        "errorCodes": _counts(record.error_code for record in records if record.error_code is not None),
        "mean": float(means.mean()) if n else None,
        "sd": float(means.std(ddof=1)) if n > 1 else None,
        "interval": t_interval(means, job.alpha),
        "bootstrapInterval": bootstrap_interval(means, job.alpha, job.bootstrap, job.seed),
        "distribution": _distribution(ratings),
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
    found = []
    for pair in table.pairs:
        wins_a, wins_b = int((pair.a > pair.b).sum()), int((pair.a < pair.b).sum())
        decisive = wins_a + wins_b
        ties = pair.n - decisive
        if decisive == 0:
            warnings.append(f"{pair.name} share {ties} scored scenarios, none of them decisive: no win rate.")
        elif ties > decisive:
            warnings.append(f"{pair.name} tie on {ties} of {pair.n} scenarios: the win rate rests on the rest.")
        found.append(
            {
                "modelA": pair.model_a,
                "modelB": pair.model_b,
                "shared": pair.n,
                "winsA": wins_a,
                "winsB": wins_b,
                "ties": ties,
                "winRateA": wins_a / decisive if decisive else None,
                "interval": wilson(wins_a, decisive, job.alpha),
            }
        )
    return found


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
