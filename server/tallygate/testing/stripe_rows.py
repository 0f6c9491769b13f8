"""What the store of intents in memory keeps, and how it reads usage.

Guarantees: windows are cut and measured as the store in Postgres does.
Refuses to know: leases and results.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import Intent, IntentId, IntentKind, IntentPlace, SendState
from tallygate.ports.stripe_store import Cut, GapQuery

NOT_DONE: Final = frozenset({SendState.PENDING, SendState.SENDING, SendState.AMBIGUOUS})
TAKEN: Final = frozenset({SendState.DELIVERED, SendState.SETTLED})


@dataclass(slots=True)
class Row:
    """An intent and its send."""

    intent_id: IntentId
    intent: Intent
    state: SendState
    due_us: int
    attempts: int = 0
    doubtful: bool = False
    alone: bool = False
    first_us: int | None = None
    last_us: int | None = None
    token: str = ""
    batch_key: str = ""
    code: str = ""
    reason: str = ""

    @property
    def lane(self) -> tuple[str, str, MeterName]:
        """Whose meter it is of."""
        place = self.intent.place
        return self.intent.destination, place.customer, place.meter


@dataclass(frozen=True, slots=True)
class LateUse:
    """Usage that is billed by a later period than its own; it is among what was used as well."""

    tenant_id: TenantId
    at_us: int
    units: int
    received_us: int
    allocated_us: int
    closed_us: int


@dataclass(slots=True)
class Lane:
    """A customer's meter. A lease is of the store's own time."""

    quiet_us: int = 0
    token: str = ""
    leased_until_us: int = 0


def counted(
    query: GapQuery, cut: Cut, used: Iterable[tuple[TenantId, int, int]], late: Iterable[LateUse]
) -> Iterator[tuple[int, int, int | None]]:
    """Iterate over usage of a cut: when it counts, how much, and for which sealed period."""
    since_us = query.late_since_us
    mine = [
        each
        for each in late
        if each.tenant_id == cut.tenant_id and since_us is not None and each.at_us >= since_us
    ]
    gone = [(each.at_us, each.units) for each in mine]
    for tenant, at_us, units in used:
        if tenant != cut.tenant_id or not cut.from_us <= at_us < cut.to_us:
            continue
        if (at_us, units) in gone:
            gone.remove((at_us, units))
        else:
            yield at_us, units, None
    for each in mine:
        at_us = max(each.allocated_us, min(each.received_us, cut.period_end_us - 1))
        allocated = cut.period_start_us <= each.allocated_us < cut.period_end_us
        if allocated and cut.from_us <= at_us < cut.to_us:
            yield at_us, each.units, None if query.latest else each.closed_us


def window(query: GapQuery, cut: Cut, at_us: int) -> IntentPlace:
    """Return the window of a cut that holds an instant."""
    begun_us = at_us - at_us % query.window_us
    return IntentPlace(
        cut.tenant_id,
        cut.customer,
        query.meter,
        "{}",
        max(begun_us, cut.period_start_us),
        min(begun_us + query.window_us, cut.period_end_us),
        cut.period_start_us,
        cut.period_end_us,
    )


def window_of(place: IntentPlace) -> tuple[object, ...]:
    """Return what tells a window apart."""
    return place.meter, place.tenant_id, place.start_us, place.end_us, place.dimensions


def place_of(intent: Intent) -> tuple[object, ...]:
    """Return what tells the window of an intent apart."""
    return (intent.destination, *window_of(intent.place), intent.closed_start_us)


def measured(measure: Aggregation, units: Sequence[int]) -> int:
    """Return what a window's units are worth."""
    match measure:
        case Aggregation.COUNT:
            return sum(each > 0 for each in units)
        case Aggregation.SUM:
            return sum(units)
        case Aggregation.MAX:
            return max((each for each in units if each > 0), default=0)
        case Aggregation.MIN:
            return min((each for each in units if each > 0), default=0)
        case _:
            raise AssertionError(f"the catalog sends no {measure} to Stripe")


def outdone(row: Row, rows: Sequence[Row]) -> bool:
    """Say whether a later total of the window, or a later quantity, stands."""
    place, kind = row.intent.place, row.intent.kind
    if kind not in (IntentKind.TOTAL, IntentKind.QUANTITY):
        return False
    mine = (place.start_us, place.end_us, row.intent.seq)
    for each in rows:
        other = each.intent.place
        alike = (other.tenant_id, other.meter) == (place.tenant_id, place.meter)
        if not alike or each.intent.kind is not kind:
            continue
        if kind is IntentKind.TOTAL and other.start_us != place.start_us:
            continue
        if (other.start_us, other.end_us, each.intent.seq) > mine:
            return True
    return False
