"""Any limit of a plan, as somebody chooses.

Owns the choosing, and which numbers are worth choosing. Refuses to know who chooses.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from tallygate.domain.catalog import Limit, LimitKind, OnExceed
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName
from tallygate.domain.window import DAY_US, MINUTE_US, SECOND_US, Period

METER = MeterName("requests")
PERIODS = [Period.SECOND, Period.MINUTE, Period.DAY, Period.BILLING_PERIOD]

Choice = TypeVar("Choice")


class Chooser(Protocol):
    """Makes every choice of a run."""

    def one_of(self, options: Sequence[Choice]) -> Choice:
        """Return one of the options."""

    def integer(self, low: int, high: int) -> int:
        """Return a number, both ends included."""


def any_limit(choose: Chooser) -> Limit:
    """Return a limit of any kind, its numbers small, as they meet often around small usage."""
    kind = choose.one_of(list(LimitKind))
    limit = Limit(
        limit_id=LimitId(f"{kind.value}-{choose.integer(1, 2)}"),
        meter=METER,
        kind=kind,
        period=None,
        limit=choose.one_of([*range(21), AMOUNT_MAX]),
        on_exceed=choose.one_of([*[OnExceed.REFUSE] * 2, *OnExceed]),
    )
    match kind:
        case LimitKind.WINDOW:
            warnings = [(), (800_000,), (500_000, 750_000, 1_000_000)]
            return replace(
                limit, period=choose.one_of(PERIODS), warn_at_ppm=choose.one_of(warnings)
            )
        case LimitKind.RATE:
            period = choose.one_of([Period.SECOND, Period.MINUTE, Period.DAY])
            ceiling = choose.one_of([*range(8), AMOUNT_MAX])
            return replace(limit, period=period, limit=ceiling, burst=choose.integer(1, 9))
        case LimitKind.SLIDING:
            durations = [SECOND_US, 10 * SECOND_US, MINUTE_US, 7 * DAY_US, SECOND_US + 7]
            return replace(limit, duration_us=choose.one_of(durations))
        case LimitKind.BALANCE:
            lows = [(), (5,), (10, 3, 0)]
            overdraft = choose.integer(0, 5)
            return replace(limit, limit=0, overdraft=overdraft, low_at=choose.one_of(lows))
        case LimitKind.CONCURRENCY:
            return limit


def changed_limit(choose: Chooser, limit: Limit) -> Limit:
    """Return the limit with another number."""
    if limit.kind is LimitKind.BALANCE:
        return replace(limit, overdraft=choose.integer(0, 5))
    if limit.kind is LimitKind.RATE and choose.one_of([True, False]):
        # The weight stays, so that a debt may pass the brim.
        return replace(limit, burst=choose.integer(1, 9))
    return replace(limit, limit=choose.integer(0, 20))
