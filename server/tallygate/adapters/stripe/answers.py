"""What the errors of Stripe's client mean: whether a call was taken, may have been, or was not.

Guarantees: what is not known to be harmless counts as perhaps taken; a duplicate is told by its
code, or, as the older interface gives none, by its message.
Refuses to know: what is done about it. No text of an error is passed on that could hold a key.
"""

import re
from typing import Final

import aiohttp
import stripe

from tallygate.domain.stripe_retry import KEY_BURNT
from tallygate.ports.stripe import Answer, Outcome, StripeRefused, StripeSilent

TAKEN: Final = Answer(Outcome.TAKEN)
REASON_LENGTH_MAX: Final = 300
RETRY_AFTER_MAX_MS: Final = 3_600_000

_DUPLICATE: Final = "duplicate_meter_event"
_DUPLICATE_TOLD: Final = re.compile(r"An event already exists with identifier\b")
_CONCURRENT: Final = "too_many_concurrent_requests"
_SESSION_OVER: Final = "temporary_session_expired"
# Keys that Stripe quotes, shortened by itself or not.
_KEY: Final = re.compile(r"\b[rs]k_[A-Za-z0-9_*]+")


def answer_of(error: Exception) -> Answer:
    """Return what an error of a call means."""
    if isinstance(error, stripe.APIConnectionError):
        return _unconnected(error)
    if not isinstance(error, stripe.StripeError):
        # The client leaves what goes wrong while it reads an answer as it is.
        return Answer(Outcome.AMBIGUOUS, reason=f"no answer: {type(error).__name__}")
    status, code = error.http_status or 0, code_of(error)
    reason = reason_of(error)
    if isinstance(error, stripe.TemporarySessionExpiredError) or code == _SESSION_OVER:
        return Answer(Outcome.NOT_SENT, _SESSION_OVER, reason)
    if status == 429:
        return _limited(error, code, reason)
    if status in (401, 403):
        return Answer(Outcome.KEY_REFUSED, code, reason)
    if status == 409:
        busy = code == _CONCURRENT
        return Answer(Outcome.BUSY if busy else Outcome.AMBIGUOUS, code, reason)
    if 400 <= status < 500:
        if code == _DUPLICATE or _DUPLICATE_TOLD.search(str(error.user_message or "")):
            return Answer(Outcome.REPEATED, code)
        return Answer(Outcome.REFUSED, code or _type_of(error), reason)
    if status >= 500 and _header(error, "idempotent-replayed") == "true":
        return Answer(Outcome.AMBIGUOUS, KEY_BURNT, reason)
    return Answer(Outcome.AMBIGUOUS, code, reason)


def failed(error: Exception) -> StripeRefused | StripeSilent:
    """Return what an error means of what was asked of an account: no, or no answer."""
    answer = answer_of(error)
    if isinstance(error, stripe.StripeError) and answer.outcome in (
        Outcome.REFUSED,
        Outcome.KEY_REFUSED,
    ):
        return StripeRefused(reason_of(error))
    return StripeSilent(answer.reason or "Stripe did not answer")


def code_of(error: stripe.StripeError) -> str:
    """Return an error's code; of some kinds the client leaves it in the body alone."""
    if error.code:
        return str(error.code)
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return str(found.get("code") or "") if isinstance(found, dict) else ""


def reason_of(error: stripe.StripeError) -> str:
    """Return an error's message, without any key that it quotes."""
    told = _KEY.sub("(key)", str(error.user_message or type(error).__name__))
    return " ".join(told.split())[:REASON_LENGTH_MAX]


def _unconnected(error: stripe.APIConnectionError) -> Answer:
    cause: BaseException | None = error
    while cause is not None:
        # Where no connection came about, nothing went over it.
        if isinstance(cause, aiohttp.ClientConnectorError):
            return Answer(Outcome.NOT_SENT, reason="cannot connect")
        cause = cause.__cause__
    return Answer(Outcome.AMBIGUOUS, reason="the connection broke")


def _limited(error: stripe.StripeError, code: str, reason: str) -> Answer:
    why = _header(error, "stripe-rate-limited-reason")
    wish_ms = _retry_after_ms(_header(error, "retry-after"))
    if not why or why == "resource-specific":
        # Of one object, which another call holds: no reason to keep all others back.
        return Answer(Outcome.BUSY, code or "lock_timeout", reason, wish_ms)
    return Answer(Outcome.THROTTLED, why, reason, wish_ms)


def _retry_after_ms(header: str) -> int:
    if not header.isascii() or not header.isdigit() or len(header) > 6:
        return 0
    return min(int(header) * 1000, RETRY_AFTER_MAX_MS)


def _header(error: stripe.StripeError, name: str) -> str:
    for key, value in (error.headers or {}).items():
        if key.lower() == name:
            return str(value).lower()
    return ""


def _type_of(error: stripe.StripeError) -> str:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return str(found.get("type") or "") if isinstance(found, dict) else "invalid_request_error"
