from __future__ import annotations

import asyncio

from runlane_worker.providers import ChatMessage, Completion, Context, Request
from runlane_worker.providers.mock import Mock
from runlane_worker.scoring import score


def ask(model: str, key: str, seed: int | None = 1, dimensions: dict[str, str] | None = None) -> Completion:
    context = Context(key, dimensions or {}, (1, 9), 1, 1)
    messages = [ChatMessage("user", "How good is it?")]
    return asyncio.run(Mock().complete(Request(f"mock/{model}", model, messages, None, None, seed, context)))


def rating(model: str, key: str, seed: int | None = 1, dimensions: dict[str, str] | None = None) -> int:
    value = score(ask(model, key, seed, dimensions).text, 1, 9)
    assert value is not None
    return value


def test_the_same_question_has_the_same_answer_for_ever() -> None:
    assert ask("rater", "k") == ask("rater", "k")
    # Fixed, so that an accidental change of the simulation is seen; a wanted one changes MODEL_VERSION too.
    assert [rating("rater", f"k{i}") for i in range(12)] == [4, 5, 6, 4, 5, 4, 5, 4, 4, 5, 5, 6]


def test_answers_depend_on_model_key_and_seed() -> None:
    keys = [f"k{i}" for i in range(40)]
    base = [rating("rater", key) for key in keys]
    assert base != [rating("rater?style=b", key) for key in keys]
    assert base != [rating("rater", key, seed=2) for key in keys]
    assert len(set(base)) > 2


def test_a_dimension_moves_ratings_the_same_way_for_all_models() -> None:
    def mean(model: str, level: str) -> float:
        return sum(rating(model, f"k{i}", dimensions={"tone": level}) for i in range(60)) / 60

    levels = ("a", "b", "c", "d", "e")
    first, second = ([mean(model, level) for level in levels] for model in ("rater", "rater?x=1"))
    assert max(first) - min(first) > 1
    assert first.index(max(first)) == second.index(max(second)) or first.index(min(first)) == second.index(min(second))
