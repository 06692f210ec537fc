"""Model providers: what they must offer, and which there are.

A provider is imported when the first job names it, so that a worker starts fast and pays only for what it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..errors import JobError
from ..pricing import Usage
from . import hosted


class ChatMessage(NamedTuple):
    """One message of a conversation."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str


class Context(NamedTuple):
    """Where the request comes from. Only a mock may let its answer depend on it."""

    scenario_key: str
    dimensions: dict[str, Any]
    scoring: tuple[int, int] | None
    attempt: int
    turn: int


class Request(NamedTuple):
    """One call of a model."""

    model_id: str
    """``provider/name``."""
    model_name: str
    """What stands after the first ``/``."""
    messages: list[ChatMessage]
    temperature: float | None
    max_tokens: int | None
    seed: int | None
    context: Context


class Completion(NamedTuple):
    """One answer of a model."""

    text: str
    finish_reason: str
    """``stop``, ``length``, or the provider's own word."""
    usage: Usage | None
    """None when the provider did not say."""
    model_version: str | None
    request_id: str | None = None
    """The provider's name for this answer."""


class Provider(Protocol):
    """Calls models. One instance serves all jobs of the process, many at once."""

    async def complete(self, request: Request) -> Completion:
        """Answers a conversation. It is cancelled when the job is, or when its deadline has passed.

        Raises:
            JobError: With the protocol's code for what went wrong, and the tokens that were used nevertheless. Clients
                must not retry by themselves: retries are counted and spaced by the node.
        """


def _mock() -> Provider:
    from . import mock

    return mock.Mock()


_FACTORIES: dict[str, Callable[[], Provider]] = {"mock": _mock, **hosted.FACTORIES}
_made: dict[str, Provider] = {}


def names() -> list[str]:
    """The providers that this worker has."""
    return list(_FACTORIES)


def get(name: str) -> Provider:
    """The provider of that name, made at its first use.

    Raises:
        JobError: ``not_found`` when there is none, ``auth`` when it lacks its key or its base URL.
    """
    provider = _made.get(name)
    if provider is None:
        if name not in _FACTORIES:
            raise JobError("not_found", f"this worker has no provider {name!r}; it has {', '.join(_FACTORIES)}")
        provider = _made[name] = _FACTORIES[name]()
    return provider
