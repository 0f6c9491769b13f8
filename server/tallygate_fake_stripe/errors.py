"""Stripe's errors: status, body and headers of each kind that the fake answers with.

Guarantees: a body is `{"error": {"type", "code"?, "message", "param"?}}`, as clients take it apart;
each error says whether a client should try again, where Stripe says so.
Refuses to know: which endpoint found the fault.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

DOC_URL: Final = "https://stripe.com/docs/error-codes/"


class RateLimitReason(StrEnum):
    """What `Stripe-Rate-Limited-Reason` says."""

    GLOBAL_CONCURRENCY = "global-concurrency"
    GLOBAL_RATE = "global-rate"
    ENDPOINT_CONCURRENCY = "endpoint-concurrency"
    ENDPOINT_RATE = "endpoint-rate"
    RESOURCE_SPECIFIC = "resource-specific"


@dataclass(eq=False)
class StripeFault(Exception):
    """A refusal, as it goes over the wire."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # Whether the endpoint had begun, so that the v1 API remembers this answer under its key.
    began: bool = False

    def body(self) -> dict[str, object]:
        """Return what is sent as JSON."""
        error: dict[str, object] = {"type": self.type, "message": self.message}
        if self.code is not None:
            error |= {"code": self.code, "doc_url": DOC_URL + self.code.replace("_", "-")}
        if self.param is not None:
            error["param"] = self.param
        return {"error": error}


def invalid(
    message: str, *, param: str | None = None, code: str | None = None, began: bool = False
) -> StripeFault:
    """Return a 400 for a request that can never succeed as it is."""
    headers = {"stripe-should-retry": "false"}
    return StripeFault(400, "invalid_request_error", message, code, param, headers, began)


def missing(param: str) -> StripeFault:
    """Return a 400 for a parameter that must be there."""
    return invalid(f"Missing required param: {param}.", param=param, code="parameter_missing")


def not_found(kind: str, id_: str, param: str = "id") -> StripeFault:
    """Return a 404 for an object that is not there."""
    return StripeFault(
        404, "invalid_request_error", f"No such {kind}: '{id_}'", "resource_missing", param
    )


def absent(kind: str, id_: str, param: str) -> StripeFault:
    """Return a 400 for a parameter that names an object that is not there."""
    return invalid(f"No such {kind}: '{id_}'", param=param, code="resource_missing")


def unauthenticated(message: str, code: str | None = None) -> StripeFault:
    """Return a 401."""
    return StripeFault(401, "invalid_request_error", message, code)


def forbidden(message: str) -> StripeFault:
    """Return a 403."""
    return StripeFault(403, "invalid_request_error", message)


def rate_limited(reason: RateLimitReason, retry_after_s: int | None = None) -> StripeFault:
    """Return a 429 with its reason, and for how long it asks to be left alone."""
    wish = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    return StripeFault(
        429,
        "invalid_request_error",
        "Request rate limit exceeded.",
        "rate_limit",
        headers={"stripe-rate-limited-reason": reason.value, **wish},
    )


def lock_timeout() -> StripeFault:
    """Return the 429 that is no rate limit: the object was locked; it carries no reason."""
    return StripeFault(
        429,
        "invalid_request_error",
        "The object is locked by another request or process of Stripe; try again.",
        "lock_timeout",
        headers={"stripe-should-retry": "true"},
    )


def too_many_concurrent() -> StripeFault:
    """Return a 409 for two calls at once for one customer and meter."""
    return StripeFault(
        409,
        "invalid_request_error",
        "Too many concurrent requests for this customer and meter.",
        "too_many_concurrent_requests",
        headers={"stripe-should-retry": "true"},
    )


def key_in_use(key: str) -> StripeFault:
    """Return a 409 for a call whose Idempotency-Key is that of a call not yet answered."""
    return StripeFault(
        409,
        "idempotency_error",
        f"There is another request in progress with the idempotency key '{key}'.",
        "idempotency_key_in_use",
        headers={"stripe-should-retry": "true"},
    )


def key_reused(key: str, what: str) -> StripeFault:
    """Return a 400 for an Idempotency-Key that came with another request before."""
    return StripeFault(
        400,
        "idempotency_error",
        f"Keys for idempotent requests can only be used with the same {what} they were first used "
        f"with. Use a key other than '{key}' to make a different request.",
        headers={"stripe-should-retry": "false"},
    )


def internal() -> StripeFault:
    """Return a 500, which says nothing of whether the request was carried out."""
    return StripeFault(
        500, "api_error", "An error occurred on the side of Stripe (fault on demand).", began=True
    )


def unavailable() -> StripeFault:
    """Return a 503 from before any endpoint, so that no key remembers it."""
    return StripeFault(
        503,
        "api_error",
        "The service is away (outage on demand).",
        headers={"stripe-should-retry": "true"},
    )


def full(what: str, most: int) -> StripeFault:
    """Return a 400 that is the fake's own: it keeps no more of something than it was told."""
    return invalid(
        f"This fake keeps at most {most} {what}; raise the cap or reset it.", code="fake_full"
    )
