"""What a client is answered where the app is not asked: problem details (RFC 9457).

Guarantees that nothing of the tenant, of other tenants and of the inside is told; what is the
operator's to know is logged. Refuses to know how an answer is sent.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from tallygate_client.errors import (
    Closed,
    DeadlineExceeded,
    InvalidRequest,
    QuotaExceeded,
    ResourceExhausted,
    TallygateError,
    Unavailable,
)
from tallygate_client.results import Decision

from .fields import fields_of, retry_after_of
from .rules import TenantMissing, WebRequest, WebRules

LOG = logging.getLogger("tallygate_client.metering")
PROBLEM_JSON = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
OURS = "urn:tallygate:problem:"
ABSENT = (Unavailable, DeadlineExceeded, Closed, ResourceExhausted)
NOT_LET = frozenset({"UNKNOWN_TENANT", "TENANT_SUSPENDED"})


class Refused(Exception):
    """A request that is not to be served; its `__cause__` says why."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, as told to the client.

    Attributes:
        status: the HTTP status.
        type: the problem type.
        title: the same for all of its type.
        detail: what happened here.
        retry_after: whole seconds; None where waiting does not help.
        decision: the refusal, where there is one.
        operation_id: names the logical call; empty where none was made.
    """

    status: int
    type: str
    title: str
    detail: str
    retry_after: int | None = None
    decision: Decision | None = None
    operation_id: str = ""

    @property
    def members(self) -> dict[str, Any]:
        """The members of the body."""
        found: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.decision is not None:
            found["violated-policies"] = [self.decision.refused_by]
        if self.operation_id:
            found["operation_id"] = self.operation_id
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is not the app's."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem_of(error: BaseException, *, challenged: bool = False) -> Problem:
    """Say what an error means to the client, and tell the operator what is theirs to mend."""
    if isinstance(error, TenantMissing):
        status, title = (401 if challenged else 400), "Nobody is named who pays"
        return Problem(status, f"{OURS}tenant-missing", title, "The request names no tenant.")
    if isinstance(error, QuotaExceeded):
        return _exceeded(error.decision)
    operation = error.operation_id if isinstance(error, TallygateError) else ""
    if isinstance(error, ABSENT):
        wait = getattr(error, "retry_after", None)
        return Problem(
            503,
            f"{OURS}metering-unavailable",
            "Usage cannot be metered at the moment",
            "The request was not served. Try again later.",
            retry_after=max(1, math.ceil(wait or 0)),
            operation_id=operation,
        )
    if isinstance(error, InvalidRequest) and error.field == "tenant_id":
        detail = "The name of the tenant is not well formed."
        return Problem(400, f"{OURS}tenant-invalid", "Not the name of a tenant", detail)
    if isinstance(error, TallygateError) and error.reason in NOT_LET:
        detail = "The tenant is not known, or is suspended."
        return Problem(403, f"{OURS}tenant-refused", "The tenant is not served", detail)
    LOG.error("a request could not be metered: %s", told(error))
    detail = "The request was not served."
    title = "Usage could not be metered"
    return Problem(500, f"{OURS}metering-failed", title, detail, operation_id=operation)


def answer_of(error: BaseException, request: WebRequest, rules: WebRules) -> Answer:
    """Return the whole answer to a request that is not let through."""
    problem = problem_of(error, challenged=rules.challenge is not None)
    content, body = PROBLEM_JSON, json.dumps(problem.members).encode()
    if rules.answer is not None:
        content, body = rules.answer(request, problem.status, problem.members)
    headers = [
        ("Content-Type", content),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    if problem.retry_after is not None:
        headers.append(("Retry-After", str(problem.retry_after)))
    if problem.status == 401 and rules.challenge is not None:
        headers.append(("WWW-Authenticate", rules.challenge))
    if problem.decision is not None:
        headers += standing([problem.decision], rules)
    return Answer(problem.status, tuple(headers), b"" if request.method == "HEAD" else body)


def standing(decisions: Sequence[Decision], rules: WebRules) -> list[tuple[str, str]]:
    """Return the fields that say where the tenant stands, unless they are not wanted."""
    if not rules.headers or not decisions:
        return []
    limits = tuple(limit for each in decisions for limit in each.limits)
    return fields_of(replace(decisions[0], limits=limits), datetime.now(timezone.utc), rules)


def told(error: BaseException) -> str:
    """Return what an operator has to know of an error; ids, never content."""
    if not isinstance(error, TallygateError):
        return type(error).__name__
    parts: Mapping[str, str] = {
        "code": str(error.code),
        "reason": error.reason,
        "field": error.field,
        "operation_id": error.operation_id,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items() if value)


def _exceeded(decision: Decision) -> Problem:
    wait = retry_after_of(decision)
    meters = [each.meter for each in decision.limits if each.limit_id == decision.refused_by]
    of = f" of {meters[0]}" if meters else ""
    when = "It cannot pass." if wait is None else f"Try again in {wait} s."
    return Problem(
        429,
        QUOTA_EXCEEDED,
        "Request cannot be satisfied as assigned quota has been exceeded",
        f"The limit {decision.refused_by}{of} is reached. {when}",
        retry_after=wait,
        decision=decision,
        operation_id=decision.operation_id,
    )
