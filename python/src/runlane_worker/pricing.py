"""What tokens cost."""

from __future__ import annotations

from decimal import Decimal

Usage = dict[str, int]
"""Tokens in disjoint parts, by the protocol's names."""

PARTS = ("input", "output", "reasoning", "cacheRead", "cacheWrite")
"""The parts of a usage."""

Prices = dict[str, Decimal | None]
"""US dollars per million tokens of each part."""

_MILLION = Decimal(1_000_000)


def add(a: Usage, b: Usage) -> Usage:
    """The sum of two usages."""
    return {part: a.get(part, 0) + b.get(part, 0) for part in PARTS}


def cost(usage: Usage, prices: Prices | None) -> str | None:
    """US dollars as a decimal string, exact; None where a part that was used has no price."""
    if prices is None:
        return None
    total = Decimal(0)
    for part in PARTS:
        if tokens := usage.get(part, 0):
            price = prices[part]
            if price is None:
                return None
            total += price * tokens / _MILLION
    return plain(total)


def plain(amount: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
