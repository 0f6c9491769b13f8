"""Billing periods: their states, what holds one open, what late events do, what was frozen.

Guarantees: pure. Each act leads from a state to one other state or is refused; a late event is
allocated to exactly one revision of one period. The stores' SQL is specified here.
Refuses to know: what time it is, and where events lie.

A period is open while it lasts, then has a grace; it is sealed at the instant from which whatever
else comes for it is late, and closed once its hash is computed and told. Its revision counts its
sealings: a correction, or closing it again, makes the next one. Earlier ones stay as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, assert_never

from tallygate.domain.catalog import Aggregation, LatePolicy
from tallygate.domain.completeness import Identity
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import HOUR_US, MINUTE_US, Calendar, Period, Window, window_at

# As long as the slowest of the sources that are known to work: journals of a weekend's outage.
GRACE_US: Final = 48 * HOUR_US
Group = tuple[tuple[str, str], ...]
"""Values of a meter's `group_by` dimensions, by name; empty for the whole meter."""


class PeriodState(StrEnum):
    """How far a period has come."""

    OPEN = "open"
    GRACE = "grace"
    SEALED = "sealed"
    CLOSED = "closed"


class Act(StrEnum):
    """What happens to a period."""

    END = "end"
    SEAL = "seal"
    CLOSE = "close"
    CORRECT = "correct"
    REOPEN = "reopen"


class Held(StrEnum):
    """Why a period whose grace is over is not closed."""

    NOT_COUNTED = "not_counted"
    INGEST_LAG = "ingest_lag"
    AWAITED = "awaited"
    UNACCOUNTED = "unaccounted"
    LOST = "lost"
    DEAD_LETTERS = "dead_letters"
    METER_NOT_FROZEN = "meter_not_frozen"
    TOTALS_DIFFER = "totals_differ"


class Cause(StrEnum):
    """Why a revision was made."""

    GRACE_OVER = "grace_over"
    REOPENED = "reopened"
    LATE_EVENTS = "late_events"


class Placed(StrEnum):
    """By which rule a late event was allocated."""

    NEXT_PERIOD = "next_period"
    CORRECT = "correct"
    REOPENED = "reopened"


class PeriodNotSo(TallygateError):
    """The period is not in a state in which that can be done."""

    reason = "PERIOD_STATE"


_NEXT: Final[Mapping[tuple[PeriodState, Act], PeriodState]] = {
    (PeriodState.OPEN, Act.END): PeriodState.GRACE,
    (PeriodState.GRACE, Act.SEAL): PeriodState.SEALED,
    (PeriodState.SEALED, Act.CLOSE): PeriodState.CLOSED,
    (PeriodState.CLOSED, Act.CORRECT): PeriodState.SEALED,
    (PeriodState.CLOSED, Act.REOPEN): PeriodState.GRACE,
}


def after(state: PeriodState, act: Act) -> PeriodState:
    """Return the state that an act leads to. Raises `PeriodNotSo`."""
    found = _NEXT.get((state, act))
    if found is None:
        raise PeriodNotSo(f"a period that is {state} cannot {act}", field="start")
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where a late event belongs: in which revision of the period that starts then."""

    start_us: int
    revision: int
    placed: Placed


@dataclass(frozen=True, slots=True)
class Sealable:
    """What allocation needs of a period: its start, state and newest revision."""

    start_us: int
    state: PeriodState
    revision: int


def place(of: Sealable | None, following: Sealable, policy: LatePolicy) -> Place | None:
    """Return where an event belongs that comes for the period `of`, None for that period itself.

    `of` is None for a time before the tenant's first period; `following` is the tenant's first
    period that was never sealed.
    """
    if of is not None and of.revision == 0:
        return None
    if of is not None and of.state is PeriodState.GRACE:
        return Place(of.start_us, of.revision + 1, Placed.REOPENED)
    if of is not None and policy is LatePolicy.CORRECT:
        return Place(of.start_us, of.revision + 1, Placed.CORRECT)
    return Place(following.start_us, 1, Placed.NEXT_PERIOD)


@dataclass(frozen=True, slots=True)
class Figures:
    """What events of a meter add up to; refunds take from the sum, and are no use of their own."""

    count: int = 0
    sum: int = 0
    max: int = 0
    min: int = 0

    def merged(self, other: "Figures") -> "Figures":
        """Return what the events of both add up to."""
        if not self.count or not other.count:
            one = self if self.count else other
            return Figures(one.count, self.sum + other.sum, one.max, one.min)
        return Figures(
            self.count + other.count,
            self.sum + other.sum,
            max(self.max, other.max),
            min(self.min, other.min),
        )

    def quantity(self, aggregation: Aggregation) -> int:
        """Return the one number that a meter of that aggregation is billed by.

        Raises `ValueError` for one that figures do not tell: those are folded.
        """
        match aggregation:
            case Aggregation.COUNT:
                return self.count
            case Aggregation.MAX:
                return self.max
            case Aggregation.MIN:
                return self.min
            case Aggregation.SUM:
                return self.sum
            case (
                Aggregation.LATEST
                | Aggregation.UNIQUE
                | Aggregation.PERCENTILE
                | Aggregation.TIME_WEIGHTED
            ):
                raise ValueError(f"count, sum, max and min do not tell what is {aggregation}")
            case _:
                assert_never(aggregation)


def adjustment(
    frozen: Figures, late: Figures, billed: int | Decimal, aggregation: Aggregation
) -> int | Decimal:
    """Return what is to be billed of a closed period: its number by now, less what has been.

    `frozen` is what its newest revision has, `late` all that came and was billed elsewhere, now or
    before; `billed` is how much of that was. A revision may have in its own totals what has been
    adjusted before: then this takes it back.
    """
    return frozen.merged(late).quantity(aggregation) - frozen.quantity(aggregation) - billed


@dataclass(frozen=True, slots=True)
class Arrived:
    """What is known of what has arrived: all numbers compared, and what lags.

    `oldest_us` is when the oldest entry was written that the ledger does not have, 0 for none;
    `counted` is None where too much was on its way to compare. `accepted_lost` is how many lost
    events an operator has closed periods without.
    """

    counted: Identity | None
    oldest_us: int = 0
    accepted_lost: int = 0


def held_because(arrived: Arrived, due_us: int, letters: int) -> Held | None:
    """Return what speaks against closing a period that was due then, None for nothing.

    `letters` are the tenant's events of that time that could not be stored.
    """
    if arrived.oldest_us and arrived.oldest_us < due_us:
        return Held.INGEST_LAG
    counted = arrived.counted
    if counted is None:
        return Held.NOT_COUNTED
    if counted.unaccounted:
        return Held.UNACCOUNTED
    if counted.awaited:
        return Held.AWAITED
    if counted.lost > arrived.accepted_lost:
        return Held.LOST
    return Held.DEAD_LETTERS if letters else None


def period_at(calendar: Calendar, instant_us: int) -> Window:
    """Return the billing period that holds an instant; it begins and ends with a whole minute."""
    # An anchor of old may have seconds: the minute that a period begins in is the period's.
    last_us = _minute(instant_us) + MINUTE_US - 1
    found = window_at(Period.BILLING_PERIOD, calendar, last_us)
    return Window(_minute(found.start_us), _minute(found.end_us))


def following(calendar: Calendar, start_us: int) -> Window:
    """Return the period that begins where another has ended, whatever the calendar is by now.

    Where the calendar has changed, it is the rest of the period that this falls into.
    """
    return Window(start_us, period_at(calendar, start_us).end_us)


def _minute(instant_us: int) -> int:
    return instant_us - instant_us % MINUTE_US


@dataclass(frozen=True, slots=True)
class PeriodKey:
    """Which period: whose, and when it starts."""

    tenant_id: TenantId
    start_us: int


@dataclass(frozen=True, slots=True)
class MeterTotal:
    """What a meter added up to when a revision was sealed, by the aggregation it had then.

    `folded` is its number where figures do not tell it: a whole one, but of levels units times
    seconds. `carried` is then the level that the period began with.
    """

    meter: MeterName
    aggregation: Aggregation
    figures: Figures
    group: Group = ()
    folded: int | Decimal | None = None
    carried: int | None = None

    @property
    def quantity(self) -> int | Decimal:
        """The number that the meter is billed by."""
        if self.folded is not None:
            return self.folded
        return self.figures.quantity(self.aggregation)
