"""From a client library's exception to one of the protocol's error codes.

What decides is the HTTP status and what the provider's error says in fields made for programs (its code, its type,
Google's details), never the words of a message: those change, and a model's prompt may be repeated in them.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
)

from ..errors import JobError

_STUMBLES = (ValidationError, AssertionError, AttributeError, KeyError, TypeError, ValueError)
KNOWN = (ModelAPIError, UnexpectedModelBehavior, *_STUMBLES)
"""What the client library raises. Over an answer of a wrong shape it stumbles in one way or another."""

_MESSAGE_MAX_CHARS = 500
_SECRET_MIN_CHARS = 8

_CODES = {
    "insufficient_quota": "quota_exhausted",
    "billing_hard_limit_reached": "quota_exhausted",
    "credit_balance_exhausted": "quota_exhausted",
    "billing_error": "quota_exhausted",
    "exceeded_current_quota_error": "quota_exhausted",
    "context_length_exceeded": "context_length",
    "3051": "context_length",
    "request_too_large": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "model_not_found": "not_found",
    "invalid_api_key": "auth",
    "overloaded_error": "server_error",
}
"""A provider's code or type that says more than the status; 3051 is Mistral's for a conversation that is too long."""

_STATUSES = {
    401: "auth",
    402: "quota_exhausted",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server_error",
    413: "context_length",
    429: "rate_limit",
}


def translated(error: Exception, provider: str) -> JobError:
    """The failure that one of `KNOWN` stands for.

    Args:
        error: What the client library raised.
        provider: Its name, for people.
    """
    if isinstance(error, ModelHTTPError):
        return _answered(error, provider)
    if isinstance(error, ModelTimeoutError) and error.phase not in ("connect", "pool"):
        return JobError("timeout", f"{provider} did not answer in time")
    if isinstance(error, ModelConnectionError):
        return JobError("network", f"the connection to {provider} failed: {_shown(error.message)}")
    if isinstance(error, ContentFilterError):
        return JobError("content_filter", f"{provider} filtered the answer")
    # What cannot be read is described by its kind alone: the text would repeat the body.
    kind = type(error).__name__
    if isinstance(error, _STUMBLES):
        traceback.print_tb(error.__traceback__)
    return JobError("invalid_response", f"{provider} answered what cannot be read ({kind})")


def _answered(error: ModelHTTPError, provider: str) -> JobError:
    """An answer with a status that is an error."""
    status, code = error.status_code, error.provider_error_code
    said = ", ".join(word for word in (code, error.provider_error_type) if word) or "without a code"
    wait_s = error.retry_after
    return JobError(
        _code(error),
        f"{provider} answered {status} ({_shown(said)}): {_shown(_words(error.body))}",
        retry_after_ms=None if wait_s is None else round(wait_s * 1000),
        http_status=status if 100 <= status <= 599 else None,
        detail={
            "provider": provider,
            "code": _shown(code) if code else None,
            "type": _shown(error.provider_error_type) if error.provider_error_type else None,
            "requestId": _request_id(error),
        },
    )


def _code(error: ModelHTTPError) -> str:
    for word in (error.provider_error_code, error.provider_error_type):
        if known := _CODES.get(word or ""):
            return known
    details = list(_google_details(error.body))
    if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        return "auth"
    if error.status_code == 429 and any("PerDay" in quota for detail in details for quota in _quotas(detail)):
        return "quota_exhausted"
    if known := _STATUSES.get(error.status_code):
        return known
    return "server_error" if error.status_code >= 500 else "validation"


def _google_details(body: object) -> Iterator[dict[str, Any]]:
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _quotas(detail: dict[str, Any]) -> Iterator[str]:
    """The ids of the quotas that a ``google.rpc.QuotaFailure`` names; waiting does not help against a day's."""
    violations = detail.get("violations")
    if isinstance(violations, list):
        yield from (str(violation.get("quotaId")) for violation in violations if isinstance(violation, dict))


def _request_id(error: ModelHTTPError) -> str | None:
    headers = error.headers or {}
    return headers.get("x-request-id") or headers.get("request-id")


def _words(body: object) -> str:
    """What an error's body says to people."""
    if isinstance(body, str):
        with suppress(ValueError):
            body = json.loads(body)
    if isinstance(body, dict):
        inner = body.get("error")
        for source in (inner, body):
            if isinstance(source, dict) and isinstance(source.get("message"), str):
                return str(source["message"])
        return "without a message"
    return body if isinstance(body, str) and body.strip() else "without a message"


def _shown(text: str) -> str:
    """Bounded, and without any key of this process: providers repeat what they were sent."""
    for name, value in os.environ.items():
        if name.endswith("_API_KEY") and len(value) >= _SECRET_MIN_CHARS:
            text = text.replace(value, "[redacted]")
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_MAX_CHARS else text[:_MESSAGE_MAX_CHARS] + "…"
