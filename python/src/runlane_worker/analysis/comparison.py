"""Which of two models scores higher: the paired bootstrap by scenario, and McNemar's test of binary scores."""

from __future__ import annotations

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from ..job import Analyze
from ..protocol import Message
from .adjust import holm, judge
from .records import Floats, Pair, Table
from .stats import Interval, percentile_interval, resampled_means

METHODS = {
    "comparisons": "mean of A − B over the scenarios that both scored; percentile interval at 1 − alpha and p of the "
    "paired bootstrap by scenario with the seed, p = 2 (1 + the fewer of resamples at most 0 and at least 0)/"
    "(resamples + 1), at most 1; pAdjusted by Holm over all pairs",
    "mcnemar": "exact McNemar test where the run has two distinct scores and no repeats; b is where A alone has the "
    "higher one; pAdjusted by Holm over all pairs",
}
"""How the numbers come about."""

_FEW_SCENARIOS = 20


def paired_bootstrap(
    differences: Floats, alpha: float, resamples: int, seed: int
) -> tuple[Interval, float] | tuple[None, None]:
    """The percentile interval of the mean difference and the two-sided p that it is 0.

    None for both below two differences, without variance, or for no resamples. The p is never 0: with so many
    resamples none can be below 2/(resamples + 1).
    """
    if resamples == 0 or differences.size < 2 or np.ptp(differences) == 0:
        return None, None
    means = resampled_means(differences, resamples, seed)
    fewer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return percentile_interval(means, alpha), min(1.0, 2 * (1 + fewer) / (resamples + 1))


def mcnemar_exact(b: int, c: int) -> float:
    """The exact two-sided p that `b` and `c` discordant pairs are equally likely; 1 when there are none."""
    return float(mcnemar([[0, b], [c, 0]], exact=True).pvalue)


def comparisons(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    """The difference of every two models."""
    found = [_comparison(pair, job, warnings) for pair in table.pairs]
    judge(found, holm([test["p"] for test in found]), job.alpha)
    if job.bootstrap == 0 and found:
        warnings.append("There are no resamples (bootstrap is 0): no intervals and no p of differences.")
    elif found and 2 / (job.bootstrap + 1) * len(found) >= job.alpha:
        warnings.append(
            f"With {job.bootstrap} resamples no difference among {len(found)} pairs can be significant: "
            f"it takes more than {int(2 * len(found) / job.alpha)}."
        )
    binary = _binary(table)
    for test, pair in zip(found, table.pairs, strict=True):
        test["mcnemar"] = _mcnemar(pair) if binary and pair.n else None
    tests = [test["mcnemar"] for test in found if test["mcnemar"] is not None]
    judge(tests, holm([test["p"] for test in tests]), job.alpha)
    return found


def _comparison(pair: Pair, job: Analyze, warnings: list[str]) -> Message:
    differences = pair.a - pair.b
    interval, p = paired_bootstrap(differences, job.alpha, job.bootstrap, job.seed)
    if pair.n < 2:
        warnings.append(f"{pair.name} share {pair.n} scored scenarios, too few: no interval of their difference.")
    elif np.ptp(differences) == 0:
        warnings.append(f"{pair.name} differ by the same on all {pair.n} scenarios: no variance, so no interval.")
    elif pair.n < _FEW_SCENARIOS:
        warnings.append(f"{pair.name} share only {pair.n} scored scenarios: the bootstrap interval is too narrow.")
    difference = float(differences.mean()) if pair.n else None
    return {**pair.head(), "difference": difference, "interval": interval, "p": p}


def _binary(table: Table) -> bool:
    """Whether the run's scores are of two kinds, each given once."""
    return not table.repeated and np.unique(table.matrix[~np.isnan(table.matrix)]).size == 2


def _mcnemar(pair: Pair) -> Message:
    b, c = int((pair.a > pair.b).sum()), int((pair.a < pair.b).sum())
    return {"b": b, "c": c, "p": mcnemar_exact(b, c)}
