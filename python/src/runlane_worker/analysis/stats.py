"""Statistics that say None where they are not defined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from .records import Floats

_BATCH = 2_000_000
"""Counts that are drawn at once: 16 MB."""

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


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """The means of as many bootstrap samples of the values.

    A sample of n out of n values with replacement is a multinomial draw of how often each distinct value comes. There
    are few, so this costs a thousandth of drawing indices; the law is the same.
    """
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BATCH // distinct.size)
    for begin in range(0, resamples, step):
        size = min(step, resamples - begin)
        drawn = rng.multinomial(values.size, counts / values.size, size=size)
        means[begin : begin + size] = drawn @ distinct / values.size
    return means


def percentile_interval(means: Floats, alpha: float) -> Interval:
    """The percentile interval of a bootstrap distribution."""
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return {"low": float(low), "high": float(high)}


def bootstrap_interval(values: Floats, alpha: float, resamples: int, seed: int) -> Interval:
    """The percentile bootstrap interval of the mean; None below two values, without variance, or for no resamples."""
    if resamples == 0 or values.size < 2 or np.ptp(values) == 0:
        return None
    return percentile_interval(resampled_means(values, resamples, seed), alpha)
