"""Published values of each statistic; docs/analysis.md names the sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from runlane_worker.analysis.adjust import benjamini_hochberg, holm
from runlane_worker.analysis.agreement import Level, fleiss, kappa, krippendorff_alpha, spearman, table_of
from runlane_worker.analysis.comparison import mcnemar_exact, paired_bootstrap
from runlane_worker.analysis.effects import kruskal
from runlane_worker.analysis.stats import bootstrap_interval, t_interval, wilson


def test_wilson_has_the_published_values() -> None:
    assert wilson(81, 263, 0.05) == pytest.approx({"low": 0.2553, "high": 0.3662}, abs=5e-5)
    assert wilson(0, 20, 0.05) == pytest.approx({"low": 0.0, "high": 0.1611}, abs=5e-5)
    assert wilson(0, 0, 0.05) is None


def test_spearman_has_the_published_value() -> None:
    iq = np.array([106.0, 100, 86, 101, 99, 103, 97, 113, 112, 110])
    tv = np.array([7.0, 27, 2, 50, 28, 29, 20, 12, 6, 17])
    outcome = spearman(iq, tv)
    assert outcome
    assert outcome[0] == pytest.approx(-29 / 165)
    assert outcome[0] == pytest.approx(-0.175758, abs=5e-7)


def test_a_perfect_order_of_few_pairs_has_no_p_of_zero() -> None:
    values = np.arange(5.0)
    assert spearman(values, values) == pytest.approx((1.0, 2 / math.factorial(5)))
    assert spearman(values[:3], values[:3]) is None
    assert spearman(values, np.ones(5)) is None


def test_kruskal_has_the_published_values() -> None:
    groups = [
        np.array([2.9, 3.0, 2.5, 2.6, 3.2]),
        np.array([3.8, 2.7, 4.0, 2.4]),
        np.array([2.8, 3.4, 3.7, 2.2, 2.0]),
    ]
    outcome = kruskal(groups)
    assert outcome
    assert outcome[:2] == pytest.approx((0.771429, 0.679965), abs=5e-7)
    assert outcome[2] == pytest.approx(0.771429 / 13, abs=1e-6)
    assert kruskal(groups[:1]) is None
    assert kruskal([np.array([1.0]), np.array([2.0])]) is None
    assert kruskal([np.ones(3), np.ones(4)]) is None


def test_adjusted_p_values_have_the_published_values() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert benjamini_hochberg([None, 0.5]) == [None, 0.5]
    assert holm([]) == benjamini_hochberg([]) == []


def test_the_t_interval_has_the_textbook_value() -> None:
    # Mean 3, s = 1.5811, t(0.975; 4) = 2.7764.
    assert t_interval(np.array([1.0, 2, 3, 4, 5]), 0.05) == pytest.approx({"low": 1.0368, "high": 4.9632}, abs=1e-4)
    assert t_interval(np.array([1.0]), 0.05) is None
    assert t_interval(np.ones(9), 0.05) is None


def test_cohens_kappa_has_the_published_value() -> None:
    found, interval = kappa(np.array([[20.0, 5], [10, 15]]), 0.05)
    assert found == pytest.approx(0.4)
    assert interval
    assert interval["low"] < 0.4 < interval["high"]


def test_quadratic_kappa_has_the_published_value() -> None:
    a = np.array([1.0, 2, 3, 4, 5, 1, 2, 3, 4, 5])
    b = np.array([1.0, 2, 3, 4, 4, 2, 2, 3, 5, 5])
    values, counts = table_of(a, b)
    assert kappa(counts, 0.05, values)[0] == pytest.approx(0.918919, abs=5e-7)


def test_kappa_weighs_by_value_and_not_by_rank() -> None:
    # One rating of the scale never occurs: 1 and 5 are four apart all the same.
    a, b = np.array([1.0, 2, 5, 1, 2, 5]), np.array([1.0, 2, 5, 2, 2, 1])
    values, counts = table_of(a, b)
    by_chance = np.mean((a[:, None] - b[None, :]) ** 2)
    assert kappa(counts, 0.05, values)[0] == pytest.approx(1 - np.mean((a - b) ** 2) / by_chance)


def test_kappa_of_one_rating_is_undefined() -> None:
    assert kappa(np.array([[7.0]]), 0.05, np.array([3.0])) == (None, None)


def test_fleiss_kappa_has_the_published_value() -> None:
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    ratings = np.array([np.repeat([1.0, 2, 3, 4, 5], row) for row in counts])
    assert fleiss(ratings) == pytest.approx(0.209931, abs=5e-7)
    assert fleiss(np.ones((5, 3))) is None
    assert fleiss(ratings[:, :1]) is None


def test_krippendorffs_alpha_has_the_published_values() -> None:
    gap = np.nan
    units = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
            [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
        ]
    ).T
    published: dict[Level, float] = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}
    for level, expected in published.items():
        assert krippendorff_alpha(units, level) == pytest.approx(expected, abs=5e-4)
    assert krippendorff_alpha(units) == krippendorff_alpha(units, "ordinal")
    assert krippendorff_alpha(np.ones((5, 2))) is None
    assert krippendorff_alpha(np.array([[1, gap], [gap, 2]])) is None


def test_mcnemar_has_the_published_value() -> None:
    assert mcnemar_exact(10, 2) == pytest.approx(0.0385742, abs=5e-8)
    assert mcnemar_exact(2, 10) == mcnemar_exact(10, 2)
    assert mcnemar_exact(0, 0) == 1


def test_the_paired_bootstrap_is_near_the_textbook_interval() -> None:
    # The extra sleep of ten patients (Student, 1908): mean −1.58; the interval lies inside t's −2.46 … −0.70.
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    interval, p = paired_bootstrap(first - second, 0.05, 9_999, 1)
    assert interval
    assert -2.46 < interval["low"] < -2.2
    assert -1.0 < interval["high"] < -0.70
    assert p == 2 / 10_000
    _, even = paired_bootstrap(np.array([-1.0, 1.0, -2.0, 2.0]), 0.05, 999, 1)
    assert even == pytest.approx(1, abs=0.3)
    assert paired_bootstrap(np.ones(5), 0.05, 99, 1) == (None, None)
    assert paired_bootstrap(first, 0.05, 0, 1) == (None, None)


def test_the_bootstrap_has_the_law_of_the_librarys() -> None:
    values = np.random.default_rng(4).integers(1, 6, 200).astype(float)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap_interval(values, 0.05, 20_000, 1)
    assert ours == pytest.approx({"low": theirs.low, "high": theirs.high}, abs=0.01)
