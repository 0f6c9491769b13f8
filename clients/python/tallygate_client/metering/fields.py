"""The header fields that tell where a tenant stands: RateLimit and RateLimit-Policy.

Structured fields (RFC 9651) as draft-ietf-httpapi-ratelimit-headers-11 has them. Guarantees that
what is written can be parsed, whatever a limit is called. Refuses to know requests and responses.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from datetime import datetime

from tallygate_client.results import Decision, LimitState, LimitStatus

from .rules import WebRules

INTEGER_MAX = 999_999_999_999_999
"""The largest integer of a structured field."""

LIMITS_MAX = 10
"""More would cost more bytes than they tell."""

RATE_LIMIT = "RateLimit"
POLICY = "RateLimit-Policy"


def retry_after_of(decision: Decision) -> int | None:
    """Return whole seconds until the same could pass; None when it never can."""
    return None if decision.retry_after is None else max(1, math.ceil(decision.retry_after))


def fields_of(
    decision: Decision, now: datetime, rules: WebRules | None = None
) -> list[tuple[str, str]]:
    """Return the fields of a decision; none where it shows no limit."""
    shown = shown_limits(decision)
    if not shown:
        return []
    policies = ",".join(_policy(each, rules) for each in shown)
    standings = ",".join(_standing(each, decision, now) for each in shown)
    return [(POLICY, policies), (RATE_LIMIT, standings)]


def shown_limits(decision: Decision) -> list[LimitStatus]:
    """Return the limits to tell of: bounded ones in force, the refusing first, each name once."""
    tightest: dict[tuple[str, str], LimitStatus] = {}
    for each in decision.limits:
        if each.unlimited or each.state is LimitState.SHADOW_EXCEEDED:
            continue
        name = (each.limit_id, each.scope)
        if name not in tightest or each.remaining < tightest[name].remaining:
            tightest[name] = each
    shown = sorted(tightest.values(), key=lambda each: each.limit_id != decision.refused_by)
    return shown[:LIMITS_MAX]


def _policy(limit: LimitStatus, rules: WebRules | None) -> str:
    parts = [_string(limit.limit_id), f"q={_integer(limit.limit)}"]
    unit = rules.unit_of(limit.meter) if rules else None
    if unit is not None:
        parts.append(f"qu={_string(unit)}")
    window = rules.windows.get(limit.limit_id) if rules else None
    if window is not None:
        parts.append(f"w={_integer(window)}")
    return ";".join([*parts, *_partition(limit)])


def _standing(limit: LimitStatus, decision: Decision, now: datetime) -> str:
    parts = [_string(limit.limit_id), f"r={_integer(limit.remaining)}"]
    wait = retry_after_of(decision) if limit.limit_id == decision.refused_by else None
    if wait is None and limit.resets_at is not None:
        wait = math.ceil((limit.resets_at - now).total_seconds())
    if wait is not None:
        parts.append(f"t={_integer(wait)}")
    return ";".join([*parts, *_partition(limit)])


def _partition(limit: LimitStatus) -> Iterable[str]:
    if limit.scope:
        yield f"pk=:{base64.b64encode(limit.scope.encode()).decode()}:"


def _string(text: str) -> str:
    kept = "".join(each if " " <= each <= "~" else "?" for each in text)
    escaped = kept.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integer(number: int) -> int:
    return min(max(number, 0), INTEGER_MAX)
