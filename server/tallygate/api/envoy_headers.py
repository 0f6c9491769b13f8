"""The headers that Envoy is told to add to responses.

Guarantees: each value is one that a header may have, whatever limits are called.
Refuses to know: how they travel to Envoy.

The standard ones are those of draft-ietf-httpapi-ratelimit-headers-11, as structured fields
(RFC 9651); the legacy ones are those of envoyproxy/ratelimit.
"""

import base64
from typing import Final

from tallygate.domain.decision import LimitReading
from tallygate.domain.envoy import Headers
from tallygate.domain.envoy_answer import RateAnswer, RateStatus, bounded
from tallygate.domain.ids import scope_of

# More would only be cut off by whatever bounds headers on the way.
LIMITS_SHOWN_MAX: Final = 10
# The largest integer of a structured field.
INTEGER_MAX: Final = 999_999_999_999_999
REASON: Final = "x-tallygate-reason"

_SECOND_US: Final = 1_000_000

Header = tuple[str, str]


def headers_of(answer: RateAnswer) -> list[Header]:
    """Return the headers that a response to the call gets."""
    found: list[Header] = []
    if answer.domain.headers is Headers.OFF:
        return found
    if answer.over:
        if answer.retry_after_us is not None:
            found.append(("retry-after", str(max(1, _seconds(answer.retry_after_us)))))
        if answer.reason:
            found.append((REASON, answer.reason))
    if answer.domain.headers is Headers.LEGACY:
        return found + _legacy(answer)
    return found + _standard(answer)


def _standard(answer: RateAnswer) -> list[Header]:
    # A tenant's limit and its parents' may have one id: the one with the least left counts.
    least: dict[tuple[str, str], tuple[int, LimitReading]] = {}
    for at_us, reading in answer.readings:
        if not bounded(reading):
            continue
        key = (str(reading.limit_id), scope_of(reading.account))
        if key not in least or reading.remaining < least[key][1].remaining:
            least[key] = (at_us, reading)
    shown = sorted(least.values(), key=lambda each: each[1].limit_id != answer.refused_by)
    if not shown:
        return []
    policies, standings = [], []
    for at_us, reading in shown[:LIMITS_SHOWN_MAX]:
        name, scope = _string(reading.limit_id), _scope(reading)
        policies.append(f"{name};q={min(reading.limit, INTEGER_MAX)}{scope}")
        left = min(max(reading.remaining, 0), INTEGER_MAX)
        resets = ""
        if reading.resets_at_us:
            resets = f";t={_seconds(max(reading.resets_at_us - at_us, 0))}"
        standings.append(f"{name};r={left}{resets}{scope}")
    return [("ratelimit-policy", ",".join(policies)), ("ratelimit", ",".join(standings))]


def _legacy(answer: RateAnswer) -> list[Header]:
    """Return the headers of the descriptor that is over its limit, or the nearest to it."""
    shown = [each for each in answer.statuses if each.limit is not None]
    if not shown:
        return []
    one: RateStatus = min(shown, key=lambda each: (not each.over, each.remaining or 0))
    assert one.limit is not None
    return [
        ("ratelimit-limit", str(one.limit.units)),
        ("ratelimit-remaining", str(one.remaining or 0)),
        ("ratelimit-reset", str(_seconds(one.resets_in_us))),
    ]


def _seconds(microseconds: int) -> int:
    return -(-microseconds // _SECOND_US)


def _string(text: str) -> str:
    plain = "".join(each if " " <= each <= "~" else "?" for each in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _scope(reading: LimitReading) -> str:
    scope = scope_of(reading.account)
    return f";pk=:{base64.b64encode(scope.encode()).decode()}:" if scope else ""
