"""The scenarios as points, one axis for each model: principal components and outlying scenarios."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from ..job import Analyze
from ..protocol import Message
from .records import Floats, Table
from .stats import finite

METHODS = {
    "pca": "singular value decomposition of the centred scores, complete scenarios × models, not scaled; the largest "
    "absolute loading of a component is positive",
    "outliers": "squared Mahalanobis distance of complete scenarios; cutoff (n − 1)²/n · Beta(p/2, (n − p − 1)/2) at "
    "1 − alpha/n, so that a false alarm anywhere has at most the chance alpha if scores are normal",
    "isolation": "isolation forest of 200 trees with the seed, over complete scenarios; the anomaly score is 2 to the "
    "power of −(mean depth)/(expected depth), flagged above 0.5; a ranking, not a test",
}
"""How the numbers come about."""

_COMPONENTS_SHOWN = 3
_SCENARIOS_SHOWN = 5_000
_OUTLIERS_SHOWN = 100
_TREES = 200
_FEW_FOR_A_FOREST = 10


def _complete(table: Table) -> tuple[Floats, list[str]]:
    """The scores of scenarios that every model scored, and their keys."""
    keys = [key for key, complete in zip(table.scenarios, table.complete, strict=True) if complete]
    return table.matrix[table.complete], keys


def pca(table: Table, _job: Analyze, warnings: list[str]) -> Message | None:
    """The directions in which scenarios differ most, and where the scenarios lie on the first three."""
    scores, keys = _complete(table)
    n, p = scores.shape
    if n < 3 or p < 2 or not np.ptp(scores, axis=0).any():
        warnings.append(
            f"No principal components: they need two models, three scenarios that every model scored (there are {p} "
            f"and {n}) and scores that differ."
        )
        return None
    fit = PCA(svd_solver="full").fit(scores)
    loadings = fit.components_
    # Rounded, so that loadings which are equal but for the last bits are told apart the same way everywhere.
    largest = np.abs(loadings).round(9).argmax(axis=1)
    loadings = loadings * np.sign(loadings[np.arange(len(loadings)), largest])[:, None]
    shown = min(_COMPONENTS_SHOWN, len(loadings))
    if n > _SCENARIOS_SHOWN:
        warnings.append(f"Only the first {_SCENARIOS_SHOWN} of {n} scenarios are placed on the components.")
    projected = ((scores - fit.mean_) @ loadings[:shown].T)[:_SCENARIOS_SHOWN].round(6)
    return {
        "n": n,
        "models": table.models,
        "components": [
            {
                "variance": finite(fit.explained_variance_[i]),
                "explained": finite(fit.explained_variance_ratio_[i]),
                "loadings": [float(value) for value in loadings[i]],
            }
            for i in range(len(loadings))
        ],
        "scenarios": [{"key": key, "at": at} for key, at in zip(keys, projected.tolist(), strict=False)],
    }


def outliers(table: Table, job: Analyze, warnings: list[str]) -> Message | None:
    """Scenarios farther from the mean than normal scores would be."""
    scores, keys = _complete(table)
    n, p = scores.shape
    if p < 1 or n < p + 2:
        warnings.append(f"No outliers: {p} models need {p + 2} scenarios that all of them scored; there are {n}.")
        return None
    centred = scores - scores.mean(axis=0)
    if np.linalg.matrix_rank(centred) < p:
        warnings.append("No outliers: the models' scores depend linearly on each other, or one is constant.")
        return None
    # The library divides the covariance by n; the cutoff is of the covariance with n − 1.
    squared = EmpiricalCovariance(assume_centered=True).fit(centred).mahalanobis(centred) * ((n - 1) / n)
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


def isolation(table: Table, job: Analyze, warnings: list[str]) -> Message | None:
    """Scenarios that random cuts set apart early."""
    scores, keys = _complete(table)
    n, p = scores.shape
    if p < 1 or n < _FEW_FOR_A_FOREST or not np.ptp(scores, axis=0).any():
        warnings.append(
            f"No isolation forest: it needs {_FEW_FOR_A_FOREST} scenarios that every model scored (there are {n}), and "
            "scores that differ."
        )
        return None
    forest = IsolationForest(n_estimators=_TREES, random_state=job.seed % 2**32).fit(scores)
    anomaly = -forest.score_samples(scores)
    order = np.argsort(-anomaly.round(12), kind="stable")
    flagged = [i for i in order if anomaly[i] > -forest.offset_]
    if len(flagged) > _OUTLIERS_SHOWN:
        warnings.append(f"Only the {_OUTLIERS_SHOWN} most isolated of {len(flagged)} flagged scenarios are listed.")
    return {
        "n": n,
        "models": p,
        "trees": _TREES,
        "threshold": float(-forest.offset_),
        "count": len(flagged),
        "scenarios": [{"key": keys[i], "anomaly": float(anomaly[i])} for i in flagged[:_OUTLIERS_SHOWN]],
    }
