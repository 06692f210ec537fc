"""What can go wrong with a job, in the words of the protocol."""

from __future__ import annotations

from typing import Any

RETRYABLE: dict[str, bool] = {
    "network": True,
    "timeout": True,
    "server_error": True,
    "rate_limit": True,
    "quota_exhausted": False,
    "auth": False,
    "validation": False,
    "not_found": False,
    "context_length": False,
    "content_filter": False,
    "invalid_response": True,
    "unknown": True,
    "cancelled": False,
}
"""Every code that a worker may report, and whether another attempt may succeed."""


class JobError(Exception):
    """A job failed for a known reason.

    Args:
        code: A key of `RETRYABLE`.
        message: For people; must not hold a secret.
        retry_after_ms: How long the provider asks to wait.
        http_status: The provider's HTTP status.
        detail: Anything further that helps.
        usage: Tokens that were used nevertheless.
        cost_usd: What they cost, as a decimal string; None when no price is known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        http_status: int | None = None,
        detail: dict[str, Any] | str | None = None,
        usage: dict[str, int] | None = None,
        cost_usd: str | None = None,
    ) -> None:
        if code not in RETRYABLE:
            raise ValueError(f"{code!r} is no error code of the protocol")
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.http_status = http_status
        self.detail = detail
        self.usage = usage
        self.cost_usd = cost_usd


class ProtocolError(Exception):
    """The input is no message of the protocol, and no job can be told."""
