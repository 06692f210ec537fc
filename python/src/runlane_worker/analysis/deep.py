"""``analyze:deep``: agreement of models, effects of dimensions, structure and outliers."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy import linalg, stats

from ..job import Analyze
from ..protocol import Message
from .records import Bools, Floats, Table
from .stats import benjamini_hochberg, finite, holm, kruskal, spearman

METHODS = {
    "correlations": "Spearman's ρ of two models over the scenarios that both scored, from four pairs on; p by "
    "Student's t, at least 2/n!; pAdjusted by Holm over all pairs",
    "dimensions": "Kruskal–Wallis of the scenario's score (the mean over its models) by the level of each dimension; "
    "ε² = H/(n − 1); pAdjusted by Benjamini–Hochberg over the dimensions",
    "pca": "singular value decomposition of the centred scores, complete scenarios × models, not scaled; the largest "
    "absolute loading of a component is positive",
    "outliers": "squared Mahalanobis distance of complete scenarios; cutoff (n − 1)²/n · Beta(p/2, (n − p − 1)/2) at "
    "1 − alpha/n, so that a false alarm anywhere has at most the chance alpha if scores are normal",
}
"""How the numbers come about."""

_FEW_PAIRS = 10
_FEW_PER_LEVEL = 5
_COMPONENTS_SHOWN = 3
_SCENARIOS_SHOWN = 5_000
_OUTLIERS_SHOWN = 100


def _correlations(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    if len(table.models) < 2:
        warnings.append("There are fewer than two models: no correlations.")
    pairs: list[Message] = []
    for a, b in combinations(range(len(table.models)), 2):
        both = ~np.isnan(table.matrix[:, a]) & ~np.isnan(table.matrix[:, b])
        n = int(both.sum())
        outcome = spearman(table.matrix[both, a], table.matrix[both, b])
        name = f"{table.models[a]} and {table.models[b]}"
        if outcome is None:
            warnings.append(
                f"{name} share {n} scored scenarios, " + ("too few" if n < 4 else "one constant") + ": no correlation."
            )
        elif n < _FEW_PAIRS:
            warnings.append(f"{name} share only {n} scored scenarios: the p-value of ρ is an approximation.")
        rho, p = outcome or (None, None)
        pairs.append({"modelA": table.models[a], "modelB": table.models[b], "n": n, "rho": rho, "p": p})
    for pair, adjusted in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["pAdjusted"] = adjusted
        pair["significant"] = None if adjusted is None else adjusted < job.alpha
    return pairs


def _dimensions(table: Table, job: Analyze, warnings: list[str]) -> list[Message]:
    levels: dict[str, dict[str, str]] = {}
    for record in table.records:
        for name, level in record.dimensions.items():
            levels.setdefault(name, {})[record.scenario] = level
    if not levels:
        warnings.append("The scenarios have no dimensions: no effects.")
        return []
    unscored = np.asarray(np.isnan(table.matrix).all(axis=1), dtype=np.bool_)
    scored = ~unscored
    if (scored & ~table.complete).any():
        warnings.append(
            f"{int((scored & ~table.complete).sum())} scenarios lack the score of some model: their mean is over "
            "the others, which can pass for an effect of a dimension."
        )
    found = [_dimension(table, name, levels[name], scored, warnings) for name in sorted(levels)]
    for effect, adjusted in zip(found, benjamini_hochberg([effect["p"] for effect in found]), strict=True):
        effect["pAdjusted"] = adjusted
        effect["significant"] = None if adjusted is None else adjusted < job.alpha
    return found


def _dimension(table: Table, name: str, level_of: dict[str, str], scored: Bools, warnings: list[str]) -> Message:
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
        warnings.append(
            f"The effect of {name} cannot be tested: it needs two levels, one of them with two scored scenarios, and "
            "scores that differ."
        )
    elif min(group.size for group in groups) < _FEW_PER_LEVEL:
        warnings.append(f"{name} has levels with fewer than {_FEW_PER_LEVEL} scenarios: its p is an approximation.")
    h, p, epsilon = outcome or (None, None, None)
    return {"dimension": name, "n": sum(g.size for g in groups), "h": h, "p": p, "epsilonSquared": epsilon} | {
        "levels": levels
    }


def _complete(table: Table) -> tuple[Floats, list[str]]:
    """The scores of scenarios that every model scored, and their keys."""
    keys = [key for key, complete in zip(table.scenarios, table.complete, strict=True) if complete]
    return table.matrix[table.complete], keys


def _pca(table: Table, _job: Analyze, warnings: list[str]) -> Message | None:
    scores, keys = _complete(table)
    n, p = scores.shape
    if n < 3 or p < 2 or not np.ptp(scores, axis=0).any():
        warnings.append(
            f"No principal components: they need two models, three scenarios that every model scored (there are {p} "
            f"and {n}) and scores that differ."
        )
        return None
    mean = scores.mean(axis=0)
    _, singular, loadings = linalg.svd(scores - mean, full_matrices=False)
    # Rounded, so that loadings which are equal but for the last bits are told apart the same way everywhere.
    largest = np.abs(loadings).round(9).argmax(axis=1)
    loadings = loadings * np.sign(loadings[np.arange(len(loadings)), largest])[:, None]
    variance = singular**2 / (n - 1)
    shown = min(_COMPONENTS_SHOWN, len(variance))
    if n > _SCENARIOS_SHOWN:
        warnings.append(f"Only the first {_SCENARIOS_SHOWN} of {n} scenarios are placed on the components.")
    projected = ((scores - mean) @ loadings[:shown].T)[:_SCENARIOS_SHOWN].round(6)
    return {
        "n": n,
        "models": table.models,
        "components": [
            {
                "variance": float(variance[i]),
                "explained": float(variance[i] / variance.sum()),
                "loadings": [float(value) for value in loadings[i]],
            }
            for i in range(len(variance))
        ],
        "scenarios": [{"key": key, "at": at} for key, at in zip(keys, projected.tolist(), strict=False)],
    }


def _outliers(table: Table, job: Analyze, warnings: list[str]) -> Message | None:
    scores, keys = _complete(table)
    n, p = scores.shape
    if p < 1 or n < p + 2:
        warnings.append(f"No outliers: {p} models need {p + 2} scenarios that all of them scored; there are {n}.")
        return None
    centred = scores - scores.mean(axis=0)
    if np.linalg.matrix_rank(centred) < p:
        warnings.append("No outliers: the models' scores depend linearly on each other, or one is constant.")
        return None
    # With C = QR, C's rows times the inverse of their covariance are (n − 1) times the rows of Q.
    squared = (n - 1) * (linalg.qr(centred, mode="economic")[0] ** 2).sum(axis=1)
    law = stats.beta(p / 2, (n - p - 1) / 2)
    scale = (n - 1) ** 2 / n
    cutoff = scale * float(law.ppf(1 - job.alpha / n))
    order = np.argsort(-squared, kind="stable")
    beyond = [i for i in order if squared[i] > cutoff]
    if len(beyond) > _OUTLIERS_SHOWN:
        warnings.append(f"Only the {_OUTLIERS_SHOWN} most extreme of {len(beyond)} outlying scenarios are listed.")
    return {
        "n": n,
        "models": p,
        "cutoff": finite(cutoff),
        "count": len(beyond),
        "scenarios": [
            {
                "key": keys[i],
                "distanceSquared": float(squared[i]),
                "p": float(law.sf(squared[i] / scale)),
                "scores": dict(zip(table.models, scores[i].tolist(), strict=True)),
            }
            for i in beyond[:_OUTLIERS_SHOWN]
        ],
    }


PARTS = {"correlations": _correlations, "dimensions": _dimensions, "pca": _pca, "outliers": _outliers}
"""The parts of the analysis, in order."""
