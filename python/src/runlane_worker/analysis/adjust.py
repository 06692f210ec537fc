"""Adjusting p-values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence

from statsmodels.stats.multitest import multipletests

from ..protocol import Message


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and is not counted."""
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's adjustment; None stays None and is not counted."""
    return _adjusted(p_values, "fdr_bh")


def judge(tests: Sequence[Message], adjusted: Sequence[float | None], alpha: float) -> None:
    """Writes ``pAdjusted`` and ``significant`` into each test; null where there is no p."""
    for test, p in zip(tests, adjusted, strict=True):
        test["pAdjusted"] = p
        test["significant"] = None if p is None else p < alpha


def _adjusted(p_values: Sequence[float | None], method: str) -> list[float | None]:
    known = [p for p in p_values if p is not None]
    if not known:
        return [None] * len(p_values)
    values = iter(multipletests(known, method=method)[1].tolist())
    return [None if p is None else float(next(values)) for p in p_values]
