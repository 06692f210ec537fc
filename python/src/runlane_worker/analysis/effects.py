"""What moves the scores: each dimension alone (Kruskal–Wallis) and all together (least squares)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.preprocessing import OneHotEncoder
from statsmodels.api import OLS, add_constant

from ..job import Analyze
from ..protocol import Message
from .adjust import benjamini_hochberg, judge
from .records import Bools, Floats, Table
from .stats import finite

METHODS = {
    "dimensions": "Kruskal–Wallis of the scenario's score (the mean over its models) by the level of each dimension; "
    "ε² = H/(n − 1); pAdjusted by Benjamini–Hochberg over the dimensions",
    "joint": "ordinary least squares of the scenario's score on the levels of all dimensions, without interactions; "
    "R², adjusted R² and the F test of all of them",
}
"""How the numbers come about."""

_FEW_PER_LEVEL = 5
_TERMS_MAX = 500


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


def dimensions(table: Table, job: Analyze, notes: list[str]) -> list[Message]:
    """The effect of each dimension on the scenario's score."""
    levels = _levels(table, notes)
    if not levels:
        notes.append("The scenarios have no dimensions: no effects.")
        return []
    scored = _scored(table)
    if (scored & ~table.complete).any():
        notes.append(
            f"{int((scored & ~table.complete).sum())} scenarios lack the score of some model: their mean is over "
            "the others, which can pass for an effect of a dimension."
        )
    found = [_dimension(table, name, levels[name], scored, notes) for name in sorted(levels)]
    judge(found, benjamini_hochberg([effect["p"] for effect in found]), job.alpha)
    return found


def _scored(table: Table) -> Bools:
    """Which scenarios some model has scored."""
    return np.asarray(~np.isnan(table.matrix).all(axis=1), dtype=np.bool_)


def _levels(table: Table, notes: list[str]) -> dict[str, dict[str, str]]:
    """Dimension → scenario → level; the first in alphabetical order where records contradict each other."""
    levels: dict[str, dict[str, str]] = {}
    for record in table.records:
        for name, level in record.dimensions.items():
            known = levels.setdefault(name, {}).setdefault(record.scenario, level)
            if known != level:
                notes.append(f"{record.scenario} has several levels of {name}; the alphabetically first counts.")
                levels[name][record.scenario] = min(known, level)
    return levels


def _dimension(table: Table, name: str, level_of: dict[str, str], scored: Bools, notes: list[str]) -> Message:
    rows: dict[str, list[int]] = {}
    for i, scenario in enumerate(table.scenarios):
        if scored[i] and scenario in level_of:
            rows.setdefault(level_of[scenario], []).append(i)
    levels, groups = [], []
    for level in sorted(rows):
        part = table.matrix[rows[level]]
        values = np.nanmean(part, axis=1)
        groups.append(values)
        means = {}
        for i, model in enumerate(table.models):
            own = part[~np.isnan(part[:, i]), i]
            means[model] = float(own.mean()) if own.size else None
        levels.append(
            {
                "level": level,
                "n": int(values.size),
                "mean": float(values.mean()),
                "sd": float(values.std(ddof=1)) if values.size > 1 else None,
                "byModel": means,
            }
        )
    outcome = kruskal(groups)
    if outcome is None:
        notes.append(
            f"The effect of {name} cannot be tested: it needs two levels, one of them with two scored scenarios, and "
            "scores that differ."
        )
    elif min(group.size for group in groups) < _FEW_PER_LEVEL:
        notes.append(f"{name} has levels with fewer than {_FEW_PER_LEVEL} scenarios: its p is an approximation.")
    h, p, epsilon = outcome or (None, None, None)
    return {"dimension": name, "n": sum(g.size for g in groups), "h": h, "p": p, "epsilonSquared": epsilon} | {
        "levels": levels
    }


def joint(table: Table, _job: Analyze, notes: list[str]) -> Message | None:
    """How much all dimensions explain together, over the scenarios that have a level of each."""
    levels = _levels(table, notes)
    rows = [i for i in np.flatnonzero(_scored(table)) if all(table.scenarios[i] in of for of in levels.values())]
    if not levels or not rows:
        if levels:
            notes.append("No joint effect: no scored scenario has a level of every dimension.")
        return None
    names = [[levels[name][table.scenarios[i]] for name in sorted(levels)] for i in rows]
    terms = sum(len(set(column)) - 1 for column in zip(*names, strict=True))
    scores = np.nanmean(table.matrix[rows], axis=1)
    n = len(rows)
    if terms > _TERMS_MAX or np.ptp(scores) == 0:
        reason = f"{terms} terms, above {_TERMS_MAX}" if terms > _TERMS_MAX else "scores that do not differ"
        notes.append(f"No joint effect: {reason}.")
        return None
    design = OneHotEncoder(drop="first", sparse_output=False).fit_transform(np.array(names, dtype=object))
    with warnings.catch_warnings():
        # Dimensions that determine each other get a warning of their own below.
        warnings.simplefilter("ignore")
        fit = OLS(scores, add_constant(design, has_constant="add")).fit()
    # The rank, not the number of terms: dimensions may determine each other.
    explained, left = int(fit.df_model), int(fit.df_resid)
    if explained < 1 or left < 1:
        notes.append(f"No joint effect: {n} scenarios are too few for {terms} terms, or no dimension varies.")
        return None
    if explained < terms:
        notes.append(f"The dimensions determine each other: {explained} of {terms} terms are independent.")
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "n": n,
            "terms": explained,
            "residualDf": left,
            "rSquared": finite(fit.rsquared),
            "adjustedRSquared": finite(fit.rsquared_adj),
            "f": finite(fit.fvalue),
            "p": finite(fit.f_pvalue),
        }
