from __future__ import annotations

import json
import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from runlane_worker import analysis
from runlane_worker.analysis.stats import wilson
from runlane_worker.errors import JobError
from runlane_worker.job import Analyze, parse
from runlane_worker.protocol import Message, encode, result
from support import analyze, check, loads, record, validate


def run(kind: str, records: list[Message], **options: Any) -> Message:
    """Analyses in this process; the outcome fits the schema and holds no NaN."""
    job = parse(check(analyze(kind, records, **options)))
    assert isinstance(job, Analyze)
    found = analysis.run(job, lambda _done, _total, _message: None)
    written = check(loads(encode(result("a1", "analysis", found))))
    validate(f"analysis-{kind}", written["analysis"])
    return found


def warned(found: Message, words: str) -> bool:
    return any(words in warning for warning in found["warnings"])


def test_basic_counts_compares_and_sums() -> None:
    records = [
        *(record(f"s{i}", "mock/a", score) for i, score in enumerate([1, 2, 3, 4, 5])),
        *(record(f"s{i}", "mock/b", score, costUsd="0.2") for i, score in enumerate([1, 1, 1, 5, 1])),
        record("s5", "mock/a", None, status="failed", errorCode="timeout", costUsd=None, latencyMs=None, usage=None),
        record("s5", "mock/b", None, latencyMs=1000, costUsd=None),
        record("s6", "mock/b", None, status="cancelled", errorCode="cancelled", costUsd=None, usage=None),
    ]
    found = run("basic", records)
    assert found["coverage"] == {"expected": 13, "used": 10, "failed": 1, "unscored": 1}
    assert found["scenarios"] == {"all": 7, "complete": 5}
    assert found["outcomes"]["byStatus"] == {"cancelled": 1, "completed": 11, "failed": 1}
    assert found["outcomes"]["byErrorCode"] == {"cancelled": 1, "timeout": 1}
    a, b = found["models"]
    assert (a["modelId"], a["n"], a["mean"]) == ("mock/a", 5, 3)
    assert a["sd"] == pytest.approx(math.sqrt(2.5))
    assert a["interval"] == pytest.approx({"low": 1.0368, "high": 4.9632}, abs=1e-4)
    assert a["bootstrapInterval"] is None
    assert b["distribution"] == [{"score": 1, "count": 4}, {"score": 5, "count": 1}]
    (pair,) = found["winRates"]
    assert (pair["shared"], pair["winsA"], pair["winsB"], pair["ties"], pair["winRateA"]) == (5, 3, 1, 1, 0.75)
    assert pair["interval"] == wilson(3, 4, 0.05)
    assert found["consumption"]["costUsd"] == "1.5"
    assert a["costUsd"] == "0.5"
    assert a["latencyMs"] == {"n": 5, "p50": 100, "p95": 100}
    assert b["latencyMs"] == {"n": 6, "p50": 100, "p95": 775}
    assert found["consumption"]["tokens"]["input"] == 110
    assert warned(found, "1 completed records have no score")
    assert warned(found, "1 of 13 records failed")
    assert found["methods"]["versions"]["numpy"] == np.__version__


def test_the_bootstrap_repeats_with_its_seed_and_changes_with_it() -> None:
    records = [record(f"s{i}", "m/a", math.sqrt(i)) for i in range(40)]

    def interval(seed: int) -> Message:
        found: Message = run("basic", records, bootstrap=500, seed=seed)["models"][0]["bootstrapInterval"]
        return found

    assert interval(1) == interval(1) != interval(2)
    assert interval(1)["low"] < np.mean([math.sqrt(i) for i in range(40)]) < interval(1)["high"]


def test_money_is_summed_exactly() -> None:
    records = [record(f"s{i}", "m/a", 1, costUsd="0.1") for i in range(3)]
    records.append(record("s9", "m/a", 1, costUsd="1000000000000.0000000001"))
    assert run("basic", records)["consumption"]["costUsd"] == "1000000000000.3000000001"


def test_deep_finds_an_effect_an_agreement_and_an_outlier() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(0, 1, 120)
    records = []
    for i in range(120):
        dimensions = {"tone": "warm" if i % 2 else "cold", "noise": str(i % 3)}
        for j, model in enumerate(("m/a", "m/b", "m/c")):
            value = base[i] + 2 * (i % 2) + rng.normal(0, 0.3) + (50 if (i, j) == (7, 2) else 0)
            records.append(record(f"s{i:03}", model, float(value), dimensions=dimensions))
    found = run("deep", records)
    ab = found["correlations"][0]
    assert (ab["modelA"], ab["modelB"], ab["n"]) == ("m/a", "m/b", 120)
    assert ab["rho"] > 0.8
    assert ab["significant"] is True
    noise, tone = found["dimensions"]
    assert tone["significant"] is True
    assert noise["significant"] is False
    warm = next(level for level in tone["levels"] if level["level"] == "warm")
    assert warm["n"] == 60
    assert set(warm["byModel"]) == {"m/a", "m/b", "m/c"}
    assert [row["key"] for row in found["outliers"]["scenarios"]] == ["s007"]
    components = found["pca"]["components"]
    assert sum(component["explained"] for component in components) == pytest.approx(1)
    for component in components:
        assert max(component["loadings"], key=abs) > 0
    assert found["coverage"]["used"] == found["coverage"]["expected"] == 360


def test_pca_agrees_with_the_covariances_eigenvalues_and_outliers_with_their_definition() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3))
    scores[4] += 30
    records = [record(f"s{i:02}", f"m/{j}", float(scores[i, j])) for i in range(30) for j in range(3)]
    found = run("deep", records)
    covariance = np.cov(scores, rowvar=False)
    variances = [component["variance"] for component in found["pca"]["components"]]
    assert variances == pytest.approx(sorted(np.linalg.eigvalsh(covariance), reverse=True))
    centred = scores[4] - scores.mean(axis=0)
    row = found["outliers"]["scenarios"][0]
    assert row["key"] == "s04"
    assert row["distanceSquared"] == pytest.approx(centred @ np.linalg.inv(covariance) @ centred)
    assert found["outliers"]["cutoff"] == pytest.approx(29**2 / 30 * scipy_stats.beta(1.5, 13).ppf(1 - 0.05 / 30))


@pytest.mark.parametrize("kind", ["basic", "deep"])
@pytest.mark.parametrize("scenarios", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.parametrize("shape", ["constant", "missing", "distinct", "disjoint"])
def test_too_little_is_a_warning_never_a_crash(kind: str, scenarios: int, models: int, shape: str) -> None:
    records = []
    for i in range(scenarios):
        for j in range(models):
            score: float | None = {"constant": 3.0, "missing": None, "distinct": float(i + j), "disjoint": float(i)}[
                shape
            ]
            key = f"s{i}-{j}" if shape == "disjoint" else f"s{i}"
            records.append(record(key, f"m/{j}", score, dimensions={"d": i}))
    found = run(kind, records, bootstrap=10)
    enough = shape == "distinct" and scenarios > 1 and models > 1 and kind == "basic"
    assert bool(found["warnings"]) is not enough
    assert all(isinstance(warning, str) for warning in found["warnings"])


@pytest.mark.parametrize("kind", ["basic", "deep"])
def test_scores_whose_variance_no_number_can_hold_are_equal(kind: str) -> None:
    scores = (0.0, 8.2e-296)
    records = [
        record(f"s{i}", f"m/{j}", score, dimensions={"d": i}) for i, score in enumerate(scores) for j in range(2)
    ]
    found = run(kind, records)
    assert found["coverage"]["used"] == 4
    if kind == "basic":
        assert found["models"][0]["interval"] is None


_scores = st.one_of(st.none(), st.integers(-5, 5), st.floats(-1e6, 1e6))
_records = st.lists(
    st.builds(
        lambda scenario, model, score, status, level: record(
            f"s{scenario}", f"m/{model}", score, status=status, dimensions={"d": level, "e": scenario % 2}
        ),
        st.integers(0, 6),
        st.integers(0, 3),
        _scores,
        st.sampled_from(["completed", "completed", "failed", "cancelled"]),
        st.sampled_from(["x", "y", None, 3]),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(records=_records, kind=st.sampled_from(["basic", "deep"]))
def test_any_records_give_a_valid_analysis(records: list[Message], kind: str) -> None:
    found = run(kind, records)
    assert found["coverage"]["expected"] == len(records)


@settings(max_examples=20, deadline=None)
@given(records=_records, kind=st.sampled_from(["basic", "deep"]))
def test_an_analysis_repeats_exactly(records: list[Message], kind: str) -> None:
    assert json.dumps(run(kind, records)) == json.dumps(run(kind, records))


@pytest.mark.parametrize(
    "changes",
    [{"score": "4"}, {"score": True}, {"costUsd": 1.5}, {"costUsd": "NaN"}, {"costUsd": "x"}, {"modelId": None},
     {"dimensions": [1]}, {"latencyMs": "x"}, {"usage": 5}, {"status": None}],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_a_validation_error(changes: Message) -> None:
    job = parse(analyze("basic", [record("s", "m/a", 1), {**record("s", "m/b", 1), **changes}]))
    assert isinstance(job, Analyze)
    with pytest.raises(JobError, match=r"records\[1\]") as caught:
        analysis.run(job, lambda _done, _total, _message: None)
    assert caught.value.code == "validation"


@pytest.mark.parametrize(
    "options", [{"alpha": 0}, {"alpha": "x"}, {"bootstrap": -1}, {"bootstrap": 10**9}, {"seed": -1}]
)
def test_an_option_that_cannot_be_is_a_validation_error(options: Message) -> None:
    with pytest.raises(JobError, match=f"options.{next(iter(options))}"):
        parse(analyze("basic", [], **options))


@settings(max_examples=40, deadline=None)
@given(records=_records, kind=st.sampled_from(["basic", "deep"]), random=st.randoms(use_true_random=False))
def test_the_order_of_records_changes_nothing(records: list[Message], kind: str, random: Random) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)
    assert json.dumps(run(kind, records, bootstrap=50)) == json.dumps(run(kind, shuffled, bootstrap=50))
