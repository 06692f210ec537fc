"""A provider whose models are called through Pydantic AI's model classes, without its agents and its retries."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from ..errors import JobError
from ..pricing import Usage
from . import ChatMessage, Completion, Request
from .failures import KNOWN, translated

_MODELS_MAX = 256


class Chat:
    """Calls the models of one provider, all over one client.

    Args:
        name: The provider, for people.
        model: Makes a model of that name; it is kept.
    """

    def __init__(self, name: str, model: Callable[[str], Model]) -> None:
        self._name = name
        self._model = lru_cache(maxsize=_MODELS_MAX)(model)

    async def complete(self, request: Request) -> Completion:
        """Sends the conversation once."""
        model = self._model(request.model_name)
        try:
            response = await model.request(_conversation(request.messages), _settings(request), _PLAIN)
        except KNOWN as error:
            # The cause would carry the request with its key into whatever prints it.
            raise translated(error, self._name) from None
        return self._read(response)

    def _read(self, response: ModelResponse) -> Completion:
        usage = _usage(response.usage)
        raw = (response.provider_details or {}).get("finish_reason")
        finish = response.finish_reason or (str(raw) if raw else "unknown")
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        if finish == "content_filter":
            raise JobError("content_filter", f"{self._name} filtered the answer ({raw or finish})", usage=usage)
        if finish == "error":
            raise JobError("invalid_response", f"{self._name} broke its answer off ({raw or finish})", usage=usage)
        return Completion(text, finish, usage, response.model_name, response.provider_response_id)


_PLAIN = ModelRequestParameters()


def _conversation(messages: list[ChatMessage]) -> list[ModelMessage]:
    conversation: list[ModelMessage] = []
    system: list[SystemPromptPart] = []
    for message in messages:
        if message.role == "system":
            system.append(SystemPromptPart(message.content))
        elif message.role == "assistant":
            conversation.append(ModelResponse([TextPart(message.content)]))
        else:
            conversation.append(ModelRequest([*system, UserPromptPart(message.content)]))
            system = []
    return conversation


def _settings(request: Request) -> ModelSettings:
    settings = ModelSettings()
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    if request.max_tokens is not None:
        settings["max_tokens"] = request.max_tokens
    if request.seed is not None:
        settings["seed"] = request.seed
    return settings


def _usage(usage: RequestUsage) -> Usage | None:
    """In disjoint parts; the library's ``input_tokens`` hold the cached ones, ``output_tokens`` the reasoning.

    None when the provider did not say.
    """
    if usage.unmeasured_requests:
        return None
    read, write, reasoning = usage.cache_read_tokens, usage.cache_write_tokens, usage.output_reasoning_tokens
    return {
        "input": max(0, usage.input_tokens - read - write),
        "output": max(0, usage.output_tokens - reasoning),
        "reasoning": reasoning,
        "cacheRead": read,
        "cacheWrite": write,
    }
