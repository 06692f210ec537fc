"""Who holds the event loop up: a coroutine that knows when its code ran."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Steps(Generic[T]):
    """Awaits a coroutine, and keeps when its latest step, from one await to the next, began and ended.

    Args:
        work: What to await.
        clock: Says the time in seconds.
    """

    def __init__(self, work: Coroutine[Any, Any, T], clock: Callable[[], float]) -> None:
        self._work = work
        self._clock = clock
        self._began = self._ended = clock()

    def ran_at(self, time: float) -> bool:
        """Whether its code held the loop at that time, to judge by its latest step."""
        return self._began <= time <= self._ended

    def __await__(self) -> Generator[Any, Any, T]:
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            self._began = self._clock()
            try:
                waits_for = step()
            except StopIteration as done:
                value: T = done.value
                return value
            finally:
                self._ended = self._clock()
            try:
                step = partial(self._work.send, (yield waits_for))
            except BaseException as thrown:  # noqa: BLE001 # whatever it is, it is the coroutine's
                step = partial(self._work.throw, thrown)
