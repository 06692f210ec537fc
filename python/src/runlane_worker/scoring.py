"""Reads a score out of an answer.

The score is the first integer within ``min … max`` in the last answer, else none.

- An integer is a maximal run of digits: ``10`` is ten, never one; ``4/5`` is four, then five; ``4th`` is four.
- ``-`` or ``−`` is its sign unless a letter or a digit stands before it: ``-3`` is minus three, in ``2-3`` and
  ``GPT-3`` it is a hyphen.
- A point between digits, or before the first one, makes a decimal, and a decimal is no integer: ``3.5``, ``.5``,
  ``4.0`` and ``1.2.3`` are passed over whole, together with the scale that they are given on: in ``3.5/5`` and
  ``3.5 out of 5`` the 5 is no answer. A point after the last digit ends a sentence: ``4.`` is four.
- A comma always separates: ``4,5`` is four, then five.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(
    r"(?P<decimal>(?:(?<![\w.])\.\d+|\d+\.\d)[\d.]*(?<!\.)(?:\s*(?:/|out\s+of|of)\s*\d+(?:\.\d+)*)?)"
    r"|(?P<integer>(?:(?<!\w)[-−])?\d+(?!\.?\d))",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_LENGTH_MAX = 20
"""A longer integer is beyond any scale."""


def score(answer: str, low: int, high: int) -> int | None:
    """The first integer within `low` … `high` in `answer`, else None."""
    first = _DIGIT.search(answer)
    if first is None:
        return None
    # A sign or a point stands right before the first digit: what comes earlier need not be tried.
    for match in _NUMBER.finditer(answer, max(0, first.start() - 1)):
        text = match["integer"]
        if text is None or len(text) > _LENGTH_MAX:
            continue
        value = int(text.replace("−", "-"))
        if low <= value <= high:
            return value
    return None
