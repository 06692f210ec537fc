"""What the deep analysis says beyond the statistics of one pair."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from runlane_worker import analysis, code
from runlane_worker.job import Analyze, parse
from runlane_worker.protocol import Message
from support import analyze, check, loads, one_shot, one_shot_raw, record, validate


def deep(records: list[Message], **options: Any) -> Message:
    job = parse(analyze("deep", records, **options))
    assert isinstance(job, Analyze)
    found = loads(json.dumps(analysis.run(job, lambda _done, _total, _message: None)))
    validate("analysis-deep", found)
    return found


def of(*models: list[float | None], **changes: Any) -> list[Message]:
    """Records of models that scored the same scenarios in order."""
    return [
        record(f"s{i:03}", f"m/{j}", score, **changes)
        for j, scores in enumerate(models)
        for i, score in enumerate(scores)
    ]


def test_agreement_uses_complete_cases_for_fleiss_and_gaps_for_alpha() -> None:
    found = deep(of([1, 2, 3, 4, 5, None], [1, 2, 3, 4, 4, 2], [1, 2, 3, 3, None, None]))["agreement"]
    assert (found["fleiss"]["n"], found["fleiss"]["models"]) == (4, 3)
    assert found["krippendorff"]["n"] == 5
    assert found["krippendorff"]["level"] == "ordinal"
    assert [pair["n"] for pair in found["pairs"]] == [5, 4, 4]
    assert all(pair["kappa"] > 0.8 for pair in found["pairs"])


def test_a_pair_that_agrees_fully_has_kappa_one() -> None:
    (pair,) = deep(of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]))["agreement"]["pairs"]
    assert pair["kappa"] == pytest.approx(1)
    assert pair["interval"] == pytest.approx({"low": 1, "high": 1})


def test_repeats_count_as_one_scenario() -> None:
    rng = np.random.default_rng(2)
    scores = rng.integers(1, 6, (30, 2))
    once = deep(of(*scores.T.tolist()), bootstrap=200)
    thrice = deep(of(*scores.T.tolist()) * 3, bootstrap=200)
    for part in ("correlations", "comparisons", "dimensions", "pca", "outliers"):
        assert thrice[part] == once[part], part
    assert thrice["agreement"]["pairs"] == once["agreement"]["pairs"]
    assert thrice["agreement"]["fleiss"]["kappa"] is None
    assert any("several times" in warning for warning in thrice["warnings"])


def test_a_comparison_has_the_difference_its_sign_and_holms_adjustment() -> None:
    rng = np.random.default_rng(8)
    base = rng.integers(2, 5, 60)
    found = deep(of((base + 1).tolist(), base.tolist(), (base + rng.integers(-1, 2, 60)).tolist()), bootstrap=2_000)
    ab, ac, bc = found["comparisons"]
    assert ab["difference"] == 1
    assert ab["interval"] is None  # the same on every scenario
    assert ac["interval"]["low"] < ac["difference"] < ac["interval"]["high"]
    assert ac["p"] == 2 / 2_001
    assert ac["pAdjusted"] == pytest.approx(2 * ac["p"])
    assert ac["significant"] is True
    assert bc["significant"] is False
    assert all(pair["mcnemar"] is None for pair in found["comparisons"])


def test_binary_scores_are_compared_by_mcnemar() -> None:
    a = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 3
    b = [0] * 10 + [1] * 2 + [1] * 5 + [0] * 3
    (pair,) = deep(of(list(a), list(b)))["comparisons"]
    assert (pair["mcnemar"]["b"], pair["mcnemar"]["c"]) == (10, 2)
    assert pair["mcnemar"]["p"] == pytest.approx(0.0385742, abs=5e-8)
    assert pair["mcnemar"]["significant"] is True


def test_too_few_resamples_for_so_many_pairs_are_a_warning() -> None:
    rng = np.random.default_rng(1)
    models = rng.integers(1, 6, (10, 30)).tolist()
    assert any("no difference among 45 pairs" in w for w in deep(of(*models), bootstrap=1_000)["warnings"])
    assert not any("no difference among" in w for w in deep(of(*models), bootstrap=2_000)["warnings"])


def test_the_joint_effect_is_the_share_of_variance_that_dimensions_explain() -> None:
    records = []
    for i in range(24):
        dimensions = {"a": "xy"[i % 2], "b": "uvw"[i % 3], "same": "uvw"[i % 3]}
        records.append(
            record(f"s{i:02}", "m/a", 2 * (i % 2) + i % 3 + (0.5 if i < 12 else -0.5), dimensions=dimensions)
        )
    found = deep(records)
    # The balanced design is orthogonal: variances add up, 1 for a, 2/3 for b, 1/4 for what neither explains.
    share = (1 + 2 / 3) / (1 + 2 / 3 + 1 / 4)
    assert found["joint"]["rSquared"] == pytest.approx(share)
    assert found["joint"]["terms"] == 3
    assert found["joint"]["adjustedRSquared"] == pytest.approx(1 - (1 - share) * 23 / 20)
    assert any("determine each other: 3 of 5" in warning for warning in found["warnings"])


def test_a_dimension_with_a_level_for_each_scenario_has_no_joint_effect() -> None:
    found = deep([record(f"s{i}", "m/a", i, dimensions={"id": str(i)}) for i in range(8)])
    assert found["joint"] is None
    assert any("too few" in warning for warning in found["warnings"])


def test_the_forest_finds_the_odd_scenario_and_repeats_with_its_seed() -> None:
    rng = np.random.default_rng(5)
    scores = rng.normal(3, 0.5, (60, 3))
    scores[17] = [9, -4, 9]
    records = of(*scores.T.tolist())
    found = deep(records, seed=3)["isolation"]
    assert found["scenarios"][0]["key"] == "s017"
    assert found["scenarios"][0]["anomaly"] > found["threshold"]
    assert found == deep(records, seed=3)["isolation"]
    assert found != deep(records, seed=4)["isolation"]


@pytest.mark.parametrize("seed", range(8))
def test_loadings_that_tie_have_the_first_positive(seed: int) -> None:
    # Equal variances: the components are (1, 1)/√2 and (1, −1)/√2, equal but for the last bits.
    a, b = np.random.default_rng(seed).normal(size=(2, 12))
    scores = np.array([np.concatenate([a, b]), np.concatenate([b, a])]) * 1.1
    for component in deep(of(*scores.tolist()))["pca"]["components"]:
        assert component["loadings"][0] == pytest.approx(0.5**0.5)


def test_a_wide_scale_draws_scenarios_for_alpha_and_says_so() -> None:
    rng = np.random.default_rng(6)
    scores = rng.integers(0, 101, (1_500, 2))
    found = deep(of(*scores.T.tolist()))
    assert found["agreement"]["krippendorff"]["n"] == 10_000_000 // 101**2
    assert any("of 980 of 1500 scenarios" in warning for warning in found["warnings"])


def test_methods_name_every_library_and_its_version() -> None:
    versions = deep(of([1, 2], [2, 1]))["methods"]["versions"]
    assert set(versions) == {"python", "numpy", "scipy", "statsmodels", "scikit-learn", "krippendorff"}


@pytest.mark.parametrize("kind", ["basic", "deep"])
def test_a_larger_run_through_a_real_worker_has_every_part(kind: str) -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(1, 6, (800, 6))
    records = [
        record(f"s{i:04}", f"m/{j}", int(scores[i, j]), dimensions={"d": str(i % 7), "e": str(i % 11)})
        for i in range(800)
        for j in range(6)
    ]
    event = check(loads(one_shot_raw(json.dumps(analyze(kind, records, bootstrap=1_000)).encode()).stdout))
    found = event["analysis"]
    validate(f"analysis-{kind}", found)
    assert found["coverage"]["used"] == 4_800
    assert all(found[part] for part in found if part != "warnings")
    assert len(found["comparisons" if kind == "deep" else "winRates"]) == 15


@pytest.mark.parametrize("kind", ["basic", "deep"])
def test_what_the_same_code_computed_before_is_unchanged(kind: str) -> None:
    job = analyze(kind, [record("s1", "m/a", 1)])
    first = one_shot(job)["analysis"]["methods"]["code"]
    assert one_shot({**job, "previousCode": first}) == {"v": 1, "type": "result", "jobId": "a1", "unchanged": True}
    assert one_shot({**job, "previousCode": "f" * 64})["analysis"]["methods"]["code"] == first


def test_another_library_is_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    first = code.of("analyze:basic")
    assert first != code.of("analyze:deep")
    monkeypatch.setattr(code, "versions", lambda _kind: {"numpy": "3"})
    assert code.of("analyze:basic") != first
