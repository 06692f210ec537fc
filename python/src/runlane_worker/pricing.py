"""What tokens cost."""

from __future__ import annotations

from decimal import Decimal

from .errors import JobError

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


class Meter:
    """What a job has used so far, whatever becomes of it.

    Args:
        prices: Of the job's model, where they are known.
    """

    def __init__(self, prices: Prices | None) -> None:
        self._prices = prices
        self.used: Usage = dict.fromkeys(PARTS, 0)
        """The sum of what was taken."""
        self._took = False
        self._measured = True

    def take(self, usage: Usage | None) -> Usage:
        """Adds what an answer used and returns it; None, when its provider did not say, leaves the cost unknown."""
        self._took = True
        if usage is None:
            self._measured = False
            return dict.fromkeys(PARTS, 0)
        self.used = add(self.used, usage)
        return usage

    def cost(self) -> str | None:
        """US dollars so far, as `cost` tells them."""
        return cost(self.used, self._prices) if self._measured else None

    def bill(self, failure: JobError) -> JobError:
        """Puts everything that was used onto the failure that ends the job; nothing when nothing is known."""
        if failure.usage is not None:
            self.take(failure.usage)
        if self._took:
            failure.usage, failure.cost_usd = self.used, self.cost()
        return failure


def plain(amount: Decimal) -> str:
    """Without an exponent and without trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
