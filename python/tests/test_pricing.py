from __future__ import annotations

from decimal import Decimal

from runlane_worker.pricing import PARTS, Prices, Usage, cost

ONE: Prices = {part: Decimal(1) for part in PARTS}


def used(**parts: int) -> Usage:
    return {part: parts.get(part, 0) for part in PARTS}


def test_every_part_is_paid_for_exactly() -> None:
    prices = ONE | {"input": Decimal("0.1"), "cacheRead": Decimal("0.025")}
    assert cost(used(input=3, output=2, reasoning=1, cacheRead=4, cacheWrite=5), prices) == "0.0000084"
    assert cost(used(output=2_000_000), prices) == "2"
    assert cost(used(), prices) == "0"


def test_a_part_that_was_used_and_has_no_price_makes_the_cost_unknown() -> None:
    prices = ONE | {"cacheRead": None}
    assert cost(used(input=1, cacheRead=1), prices) is None
    assert cost(used(input=1), prices) == "0.000001"
    assert cost(used(input=1), None) is None
