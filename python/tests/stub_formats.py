"""The wire formats of the stub: answers and errors as OpenAI, Mistral, Anthropic and Google write them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

Json = dict[str, Any]


class Fault(NamedTuple):
    """An error that a provider may answer with."""

    status: int
    type: str
    """OpenAI's ``error.type``."""
    code: str | None
    """OpenAI's ``error.code``."""
    anthropic: str
    """Anthropic's ``error.type``."""
    google: str
    """Google's ``error.status``."""


FAULTS = {
    "validation": Fault(400, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "context_length": Fault(
        400, "invalid_request_error", "context_length_exceeded", "invalid_request_error", "INVALID_ARGUMENT"
    ),
    "content_filter": Fault(
        400, "invalid_request_error", "content_filter", "invalid_request_error", "INVALID_ARGUMENT"
    ),
    "auth": Fault(401, "invalid_request_error", "invalid_api_key", "authentication_error", "UNAUTHENTICATED"),
    "payment": Fault(402, "billing_error", None, "billing_error", "FAILED_PRECONDITION"),
    "forbidden": Fault(403, "permission_error", None, "permission_error", "PERMISSION_DENIED"),
    "not_found": Fault(404, "invalid_request_error", "model_not_found", "not_found_error", "NOT_FOUND"),
    "slow": Fault(408, "timeout", None, "timeout_error", "DEADLINE_EXCEEDED"),
    "conflict": Fault(409, "conflict_error", None, "conflict_error", "ABORTED"),
    "too_large": Fault(413, "invalid_request_error", None, "request_too_large", "INVALID_ARGUMENT"),
    "unprocessable": Fault(422, "invalid_request_error", None, "invalid_request_error", "INVALID_ARGUMENT"),
    "rate_limit": Fault(429, "requests", "rate_limit_exceeded", "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "quota": Fault(429, "insufficient_quota", "insufficient_quota", "billing_error", "RESOURCE_EXHAUSTED"),
    "server": Fault(500, "server_error", None, "api_error", "INTERNAL"),
    "unavailable": Fault(503, "service_unavailable", None, "api_error", "UNAVAILABLE"),
    "overloaded": Fault(529, "server_error", None, "overloaded_error", "UNAVAILABLE"),
}
"""By the name that a model's id asks for; ``quota`` is Google's daily quota."""


class Call(NamedTuple):
    """What was asked, whatever the format."""

    format: str
    """``openai``, ``mistral``, ``anthropic`` or ``google``."""
    model: str
    prompt: str
    """The last user message."""
    input_tokens: int


class Answer(NamedTuple):
    """What is answered."""

    text: str
    finish: str
    """``stop``, ``length`` or ``content_filter``."""
    reasoning: int
    cached: int


def tokens(text: str) -> int:
    """A quarter of the characters."""
    return (len(text) + 3) // 4


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))


def parse(path: str, body: Json) -> Call | None:
    """The call, None when the path is none of a model's."""
    if path.endswith("/messages"):
        style, messages, model = "anthropic", body["messages"], body["model"]
    elif path.endswith("/chat/completions"):
        style = "mistral" if path.startswith("/mistral/") else "openai"
        messages, model = body["messages"], body["model"]
    elif path.endswith(":generateContent"):
        style, model = "google", path.rsplit("/", 1)[1].removesuffix(":generateContent")
        messages = [{"role": m.get("role"), "content": m["parts"]} for m in body["contents"]]
    else:
        return None
    texts = [(message["role"], _text(message["content"])) for message in messages]
    prompt = next((text for role, text in reversed(texts) if role == "user"), "")
    return Call(style, model, prompt, sum(tokens(text) for _, text in texts))


def answer(call: Call, reply: Answer, number: int) -> Json:
    """The body of a success; an empty text is left out where the provider would."""
    written = tokens(reply.text)
    if call.format == "anthropic":
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": f"{call.model.partition('?')[0]}-1",
            "content": [{"type": "text", "text": reply.text}] if reply.text else [],
            "stop_reason": {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}[reply.finish],
            "stop_sequence": None,
            "usage": {
                "input_tokens": call.input_tokens - reply.cached,
                "output_tokens": written + reply.reasoning,
                "cache_read_input_tokens": reply.cached,
                "cache_creation_input_tokens": 0,
            },
        }
    if call.format == "google":
        finish = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}[reply.finish]
        candidate: Json = {"finishReason": finish, "index": 0}
        if reply.text:
            candidate["content"] = {"role": "model", "parts": [{"text": reply.text}]}
        return {
            "candidates": [candidate],
            "modelVersion": f"{call.model.partition(';')[0]}-1",
            "responseId": f"resp-{number}",
            "usageMetadata": {
                "promptTokenCount": call.input_tokens,
                "candidatesTokenCount": written,
                "thoughtsTokenCount": reply.reasoning,
                "cachedContentTokenCount": reply.cached,
                "totalTokenCount": call.input_tokens + written + reply.reasoning,
            },
        }
    usage: Json = {
        "prompt_tokens": call.input_tokens,
        "completion_tokens": written + reply.reasoning,
        "total_tokens": call.input_tokens + written + reply.reasoning,
    }
    if call.format == "openai":
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cached}
        usage["completion_tokens_details"] = {"reasoning_tokens": reply.reasoning}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{call.model.partition('?')[0]}-1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": reply.finish}
        ],
        "usage": usage,
    }


def error(style: str, name: str, retry_delay_s: int | None, echo: str) -> tuple[int, Json]:
    """Status and body of an error; `echo` is repeated in its message."""
    fault = FAULTS[name]
    message = f"the stub answers with {name}{echo}"
    if style == "anthropic":
        status = 529 if name == "overloaded" else fault.status
        return status, {"type": "error", "error": {"type": fault.anthropic, "message": message}, "request_id": "r"}
    if style == "google":
        details: list[Json] = []
        if fault.google == "RESOURCE_EXHAUSTED":
            per = "Day" if name == "quota" else "Minute"
            violation = {"quotaId": f"GenerateRequestsPer{per}PerProjectPerModel"}
            details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
        if name == "auth":
            details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"})
        if retry_delay_s is not None:
            delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_delay_s}s"}
            details.append(delay)
        status = 400 if name == "auth" else 503 if name == "overloaded" else fault.status
        google = "INVALID_ARGUMENT" if name == "auth" else fault.google
        return status, {"error": {"code": status, "message": message, "status": google, "details": details}}
    status = 503 if name == "overloaded" else fault.status
    body: Json = {"message": message, "type": fault.type, "param": None, "code": fault.code}
    return status, ({"object": "error", **body} if style == "mistral" else {"error": body})


def encode(body: Json) -> bytes:
    """As JSON."""
    return json.dumps(body).encode()
