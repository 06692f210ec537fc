from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane_worker.scoring import score


@pytest.mark.parametrize(
    ("answer", "low", "high", "expected"),
    [
        ("4", 1, 5, 4),
        ("4/5", 1, 5, 4),
        ("I say 4.", 1, 5, 4),
        ("10", 1, 5, None),
        ("10, no: 3", 1, 5, 3),
        ("10/10, so 5", 1, 5, 5),
        ("-3", -5, 5, -3),
        ("−3", -5, 5, -3),
        ("-3", 1, 5, None),
        ("2-3", 1, 5, 2),
        ("2-3", 3, 5, 3),
        ("GPT-4 says so", 1, 5, 4),
        ("(-2)", -2, 2, -2),
        ("3.5", 1, 5, None),
        ("3.5/5", 1, 5, None),
        ("3.5 out of 5", 1, 5, None),
        ("4.5 / 5, so 4", 1, 5, 4),
        (".5", 1, 5, None),
        ("-.5", -5, 5, None),
        ("4.0", 1, 5, None),
        ("1.2.3 then 2", 1, 5, 2),
        ("Well...5", 1, 5, 5),
        ("3.5. 2", 1, 5, 2),
        ("4,5", 1, 5, 4),
        ("4th", 1, 5, 4),
        ("007", 1, 7, 7),
        ("Rating:0", 0, 5, 0),
        ("no number", 1, 5, None),
        ("", 1, 5, None),
        ("9" * 5000 + " 2", 1, 5, 2),
        ("12345 4", 1, 5, 4),
        ("٤", 1, 5, 4),
    ],
)
def test_the_scoring_rule(answer: str, low: int, high: int, expected: int | None) -> None:
    assert score(answer, low, high) == expected


@given(st.text(alphabet="0123456789.,-−/ of5a"), st.integers(-9, 0), st.integers(0, 20))
def test_a_score_is_within_the_range_or_none(answer: str, low: int, high: int) -> None:
    value = score(answer, low, high)
    assert value is None or low <= value <= high


@given(st.integers(-(10**17), 10**17))
def test_an_integer_alone_is_its_score(value: int) -> None:
    assert score(str(value), value, value) == value
