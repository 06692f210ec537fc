"""Statistics that say None where they are not defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from .records import Floats

Interval = dict[str, float] | None
"""``{"low", "high"}``."""


def finite(value: Any) -> float | None:  # whatever numpy returns
    """A float for JSON; None instead of NaN and infinities."""
    number = float(value)
    return number if math.isfinite(number) else None


def wilson(successes: int, n: int, alpha: float) -> Interval:
    """Wilson's interval of a proportion; None for n = 0."""
    if n == 0:
        return None
    interval = stats.binomtest(successes, n).proportion_ci(1 - alpha, "wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def t_interval(values: Floats, alpha: float) -> Interval:
    """Student's interval of the mean; None below two values or without variance."""
    if values.size < 2 or np.ptp(values) == 0:
        return None
    low, high = stats.t.interval(1 - alpha, values.size - 1, loc=values.mean(), scale=stats.sem(values))
    return {"low": float(low), "high": float(high)}


def bootstrap_interval(values: Floats, alpha: float, resamples: int, seed: int) -> Interval:
    """The percentile bootstrap interval of the mean; None below two values, without variance, or for no resamples."""
    if resamples == 0 or values.size < 2 or np.ptp(values) == 0:
        return None
    outcome = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // values.size),
        confidence_level=1 - alpha,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = outcome.confidence_interval
    return {"low": float(interval.low), "high": float(interval.high)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and is not counted."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's adjustment; None stays None and is not counted."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if known:
        values = stats.false_discovery_control([p for p in p_values if p is not None], method="bh")
        for i, value in zip(known, values, strict=True):
            adjusted[i] = float(value)
    return adjusted


def spearman(a: Floats, b: Floats) -> tuple[float, float] | None:
    """Spearman's ρ and its two-sided p; None below four pairs or when one side is constant.

    The p comes from Student's t. It is never below 2/n!, the smallest that a permutation test of n pairs can give:
    the approximation says 0 for any perfect order, even of four pairs.
    """
    if a.size < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    outcome = stats.spearmanr(a, b)
    floor = 2 / math.factorial(a.size) if a.size <= 20 else 0.0
    return float(outcome.statistic), max(float(outcome.pvalue), floor)


def kruskal(groups: Sequence[Floats]) -> tuple[float, float, float] | None:
    """Kruskal and Wallis' H, its p and ε² = H/(n−1).

    None below two groups, when no group has two values, or when all values are the same.
    """
    if len(groups) < 2 or max(group.size for group in groups) < 2:
        return None
    values = np.concatenate(groups)
    if np.ptp(values) == 0:
        return None
    outcome = stats.kruskal(*groups)
    return float(outcome.statistic), float(outcome.pvalue), float(outcome.statistic) / (values.size - 1)
