"""The providers whose models are called over the network.

Each factory reads its key and its base URL from this worker's environment, where the node puts those of this worker's
provider only, and makes one client with one pool of connections for all of the process's calls. Clients do not retry.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import JobError

# Whatever takes long to import is imported where a provider is made: a worker pays for its own provider only.
if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from .chat import Chat

_OPENAI_FORMAT = {
    "cohere": ("COHERE", "https://api.cohere.ai/compatibility/v1"),
    "deepseek": ("DEEPSEEK", "https://api.deepseek.com/v1"),
    "groq": ("GROQ", "https://api.groq.com/openai/v1"),
    "ollama": ("OLLAMA", None),
    "openai": ("OPENAI", "https://api.openai.com/v1"),
    "openai-compatible": ("OPENAI_COMPATIBLE", None),
    "openrouter": ("OPENROUTER", "https://openrouter.ai/api/v1"),
    "xai": ("XAI", "https://api.x.ai/v1"),
}
"""Providers that speak OpenAI's chat completions: the start of their variables, and their usual base URL."""

_KEYLESS = ("ollama", "openai-compatible")


def _key(provider: str, prefix: str) -> str:
    name = f"{prefix}_API_KEY"
    if key := os.environ.get(name):
        return key
    if provider in _KEYLESS:
        return "none"
    raise JobError("auth", f"{provider} needs a key: set {name} in the environment of the server")


def _base_url(provider: str, prefix: str, default: str | None) -> str | None:
    name = f"{prefix}_BASE_URL"
    if url := os.environ.get(name, default):
        return url
    raise JobError("auth", f"{provider} needs to know where it is: set {name} in the environment of the server")


def _limit_ms(variable: str) -> int | None:
    """A time limit that the node sets; without one, the job's deadline is the only limit."""
    text = os.environ.get(variable)
    return int(text) if text else None


def _read_limit_ms() -> int | None:
    return _limit_ms("RUNLANE_PROVIDER_READ_TIMEOUT_MS")


def _http() -> AsyncClient:
    """An HTTP client whose pool is as large as there are calls: the node bounds those."""
    from httpx2 import Limits, Timeout
    from pydantic_ai.models import create_async_httpx2_client

    read, connect = (
        None if limit is None else limit / 1000
        for limit in (_read_limit_ms(), _limit_ms("RUNLANE_PROVIDER_CONNECT_TIMEOUT_MS"))
    )
    return create_async_httpx2_client(
        timeout=Timeout(read, connect=connect), limits=Limits(max_connections=None, max_keepalive_connections=None)
    )


def _openai_format(provider: str) -> Chat:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    from .chat import Chat

    prefix, default = _OPENAI_FORMAT[provider]
    url = _base_url(provider, prefix, default)
    http = _http()
    client = AsyncOpenAI(
        api_key=_key(provider, prefix), base_url=url, max_retries=0, http_client=http, timeout=http.timeout
    )
    # Only OpenAI itself is sure to take the newer name of the limit on output tokens.
    older = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
    profile = None if provider == "openai" else older
    return Chat(
        provider, lambda name: OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client), profile=profile)
    )


def anthropic() -> Chat:
    """Anthropic."""
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    from .chat import Chat

    http = _http()
    client = AsyncAnthropic(
        api_key=_key("anthropic", "ANTHROPIC"),
        base_url=_base_url("anthropic", "ANTHROPIC", "https://api.anthropic.com"),
        max_retries=0,
        http_client=http,
        timeout=http.timeout,
    )
    return Chat("anthropic", lambda name: AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client)))


def google() -> Chat:
    """Google's Gemini API."""
    from google.genai.types import HttpRetryOptions
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    from .chat import Chat

    provider = GoogleProvider(
        api_key=_key("google", "GOOGLE"),
        base_url=_base_url("google", "GOOGLE", "https://generativelanguage.googleapis.com"),
        http_client=_http(),
        retry_options=HttpRetryOptions(attempts=1),
    )
    return Chat("google", lambda name: GoogleModel(name, provider=provider))


def mistral() -> Chat:
    """Mistral."""
    from mistralai.client import Mistral
    from pydantic_ai.models.mistral import MistralModel
    from pydantic_ai.providers.mistral import MistralProvider

    from .chat import Chat

    client = Mistral(
        api_key=_key("mistral", "MISTRAL"),
        server_url=_base_url("mistral", "MISTRAL", "https://api.mistral.ai"),
        async_client=_http(),
        # This client would otherwise wait for ever, whatever the HTTP client says.
        timeout_ms=_read_limit_ms(),
        retry_config=None,
    )
    return Chat("mistral", lambda name: MistralModel(name, provider=MistralProvider(mistral_client=client)))


FACTORIES: dict[str, Callable[[], Chat]] = {
    **{name: partial(_openai_format, name) for name in _OPENAI_FORMAT},
    "anthropic": anthropic,
    "google": google,
    "mistral": mistral,
}
"""What makes each provider. One more in OpenAI's format is one more line in `_OPENAI_FORMAT`."""
