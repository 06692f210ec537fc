"""``analyze:deep``: agreement and comparison of models, effects of dimensions, structure and outliers."""

from __future__ import annotations

from . import agreement, comparison, effects, structure

METHODS = agreement.METHODS | comparison.METHODS | effects.METHODS | structure.METHODS
"""How the numbers come about."""

PARTS = {
    "correlations": agreement.correlations,
    "agreement": agreement.agreement,
    "comparisons": comparison.comparisons,
    "dimensions": effects.dimensions,
    "joint": effects.joint,
    "pca": structure.pca,
    "outliers": structure.outliers,
    "isolation": structure.isolation,
}
"""The parts of the analysis, in order."""
