"""Whether models agree: in order (Spearman), in ratings (κ), and all of them at once (Fleiss, Krippendorff)."""

from __future__ import annotations

import math
from typing import Literal

import krippendorff
import numpy as np
from scipy import stats
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

from ..job import Analyze
from ..protocol import Message
from .adjust import holm, judge
from .records import Floats, Pair, Table
from .stats import Interval, finite

METHODS = {
    "correlations": "Spearman's ρ of two models over the scenarios that both scored, from four pairs on; p by "
    "Student's t, at least 2/n!; pAdjusted by Holm over all pairs",
    "kappa": "Cohen's κ of two models with quadratic weights by the ratings' values; interval by the asymptotic "
    "standard error of Fleiss, Cohen and Everitt at 1 − alpha, within −1 and 1",
    "fleiss": "Fleiss' κ, nominal, over the scenarios that every model rated once",
    "krippendorff": "Krippendorff's α, ordinal, over all scenarios with two or more scores, gaps allowed",
}
"""How the numbers come about."""

_FEW_PAIRS = 10
_VALUES_MAX = 200
"""Distinct scores up to which they are ratings on a scale. The tables grow with their square."""
_COINCIDENCES_MAX = 10_000_000
"""Scenarios × values² that α may need at once: eight bytes each, some four times over."""

Level = Literal["nominal", "ordinal", "interval", "ratio"]
"""How values may be compared: as equal, by order, by difference, by ratio."""


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


def table_of(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """The ratings that occur, ascending, and how often each meets each: (values, counts of a × b)."""
    values, codes = np.unique(np.concatenate([a, b]), return_inverse=True)
    counts = np.zeros((values.size, values.size))
    np.add.at(counts, (codes[: a.size], codes[a.size :]), 1)
    return values, counts


def kappa(counts: Floats, alpha: float, values: Floats | None = None) -> tuple[float | None, Interval]:
    """Cohen's κ of a square table and its interval at 1 − alpha.

    Args:
        counts: How often the one's rating (row) met the other's (column).
        alpha: 1 − confidence.
        values: The ratings; disagreement then weighs the square of their difference. Left out: unweighted.

    Returns:
        None for both when chance alone gives full agreement: κ is 0/0 then.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        outcome = cohens_kappa(counts, weights=values, wt=None if values is None else "quadratic")
    found = finite(outcome.kappa)
    error = finite(outcome.std_kappa)
    if found is None or error is None:
        return found, None
    half = float(stats.norm.ppf(1 - alpha / 2)) * error
    return found, {"low": max(-1.0, found - half), "high": min(1.0, found + half)}


def fleiss(ratings: Floats) -> float | None:
    """Fleiss' κ of subjects × raters without gaps; None below two of either or when all ratings are the same."""
    if min(ratings.shape) < 2 or np.ptp(ratings) == 0:
        return None
    return finite(fleiss_kappa(aggregate_raters(ratings)[0], method="fleiss"))


def krippendorff_alpha(ratings: Floats, level: Level = "ordinal") -> float | None:
    """Krippendorff's α of units × raters with NaN for gaps; None when there is nothing to pair or no variance."""
    paired = ratings[(~np.isnan(ratings)).sum(axis=1) >= 2]
    if paired.size == 0 or np.nanmin(paired) == np.nanmax(paired):
        return None
    return finite(krippendorff.alpha(reliability_data=paired.T, level_of_measurement=level))


def correlations(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    """Spearman's ρ for every two models."""
    if len(table.models) < 2:
        warnings.append("There are fewer than two models: no correlations.")
    found = [_correlation(pair, warnings) for pair in table.pairs]
    judge(found, holm([test["p"] for test in found]), job.alpha)
    return found


def _correlation(pair: Pair, warnings: list[str]) -> Message:
    outcome = spearman(pair.a, pair.b)
    if outcome is None:
        reason = "too few" if pair.n < 4 else "one constant"
        warnings.append(f"{pair.name} share {pair.n} scored scenarios, {reason}: no correlation.")
    elif pair.n < _FEW_PAIRS:
        warnings.append(f"{pair.name} share only {pair.n} scored scenarios: the p-value of ρ is an approximation.")
    rho, p = outcome or (None, None)
    return {**pair.head(), "rho": rho, "p": p}


def agreement(table: Table, job: Analyze, warnings: list[str]) -> Message:
    """κ for every two models, and Fleiss' κ and Krippendorff's α of all."""
    return {
        "pairs": [{**pair.head(), **_kappa(pair, job, warnings)} for pair in table.pairs],
        "fleiss": _fleiss(table, warnings),
        "krippendorff": _alpha(table, job, warnings),
    }


def _kappa(pair: Pair, job: Analyze, warnings: list[str]) -> Message:
    nothing: Message = {"kappa": None, "interval": None}
    if pair.n < 2:
        warnings.append(f"{pair.name} share {pair.n} scored scenarios, too few: no κ.")
        return nothing
    distinct = np.unique(np.concatenate([pair.a, pair.b])).size
    if distinct > _VALUES_MAX:
        warnings.append(f"{pair.name} gave {distinct} distinct scores: κ is for scales of up to {_VALUES_MAX}.")
        return nothing
    values, counts = table_of(pair.a, pair.b)
    found, interval = kappa(counts, job.alpha, values)
    if found is None:
        warnings.append(f"{pair.name} gave one and the same score throughout: no κ.")
    return {"kappa": found, "interval": interval}


def _fleiss(table: Table, warnings: list[str]) -> Message:
    ratings = table.matrix[table.complete]
    n, models = ratings.shape
    found = None
    if table.repeated:
        warnings.append("Fleiss' κ is of single ratings; some scenarios were scored several times: not computed.")
    elif (distinct := np.unique(ratings).size) > _VALUES_MAX:
        warnings.append(f"The models gave {distinct} distinct scores: Fleiss' κ is for up to {_VALUES_MAX}.")
    elif (found := fleiss(ratings)) is None:
        warnings.append(
            f"No Fleiss' κ: it needs two models, two scenarios that all of them scored (there are {models} and {n}) "
            "and scores that differ."
        )
    return {"n": n, "models": models, "kappa": found}


def _alpha(table: Table, job: Analyze, warnings: list[str]) -> Message:
    ratings = table.matrix[(~np.isnan(table.matrix)).sum(axis=1) >= 2]
    distinct = np.unique(ratings[~np.isnan(ratings)]).size
    found = None
    if distinct > _VALUES_MAX:
        warnings.append(f"The models gave {distinct} distinct scores: Krippendorff's α is for up to {_VALUES_MAX}.")
    else:
        ratings = _affordable(ratings, distinct, job, warnings)
        found = krippendorff_alpha(ratings)
        if found is None:
            warnings.append("No Krippendorff's α: it needs scenarios that two models scored, and scores that differ.")
    return {"n": len(ratings), "models": len(table.models), "level": "ordinal", "alpha": found}


def _affordable(ratings: Floats, distinct: int, job: Analyze, warnings: list[str]) -> Floats:
    """As many scenarios as fit into memory, drawn with the seed."""
    most = _COINCIDENCES_MAX // max(1, distinct) ** 2
    if len(ratings) <= most:
        return ratings
    warnings.append(
        f"There are {distinct} distinct scores: Krippendorff's α is of {most} of {len(ratings)} scenarios, drawn with "
        "the seed."
    )
    drawn = np.random.default_rng(job.seed).choice(len(ratings), most, replace=False)
    return ratings[np.sort(drawn)]
