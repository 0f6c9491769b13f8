"""Usage summed up: what may be asked of events, and what they answer.

Guarantees: events in memory give the sums that a ledger gives once it has them.
Refuses to know: whose counter a sum goes into, and where events are kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import LimitId, MeterName, TenantId

_CONTEXT: Final = frozenset(EventContext.__dataclass_fields__)
_Place = tuple[int, int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Ask:
    """Which usage is summed up, and how finely: times are microseconds since the epoch.

    Usage counts from `from_us` on, when it was accepted from `received_from_us` to before
    `received_until_us`. It lies in slots of `slot_us`, 0 for one slot, by the earlier of when it
    was and when it was accepted. With `period_us`, as of a rate, it counts when it was accepted at
    most so long after it was, and its slot is that of its acceptance.

    Sums come by the values of `fields`: dimensions, or else fields of the context. With `counted`,
    events are one each until all of them is taken back.
    """

    tenant_id: TenantId
    meter: MeterName
    from_us: int
    received_from_us: int
    received_until_us: int
    slot_us: int = 0
    period_us: int = 0
    fields: tuple[str, ...] = ()
    counted: bool = False


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Units of an ask, named by its place, in one slot and of one set of values of its fields."""

    ask: int
    slot: int
    values: tuple[str, ...]
    units: int


@dataclass(frozen=True, slots=True)
class LastReset:
    """When a counter was last set back. `scope` is `KEY=VALUE` for one value of a dimension."""

    tenant_id: TenantId
    limit_id: LimitId
    scope: str
    reset_at_us: int


def sums_of(
    events: Iterable[UsageEvent], asks: Sequence[Ask], but_epochs: Sequence[str] = ()
) -> list[UsageSum]:
    """Return the sums that are not 0, but for events counted in `but_epochs`.

    Each event is looked at for each ask: this is for some thousands of them.
    """
    known = list(events)
    found: dict[_Place, int] = {}
    for number, ask in enumerate(asks):
        taken: dict[str, list[UsageEvent]] = {}
        for event in known:
            if not _meets(ask, event, but_epochs):
                continue
            units = event.amount
            if ask.counted:
                units = 1 if event.amount > 0 else 0
                if event.refund_of:
                    taken.setdefault(event.refund_of, []).append(event)
            _add(found, _place(number, ask, event, event.received_at_us), units)
        for event in known:
            refunds = taken.get(event.event_id, ())
            whole = -sum(refund.amount for refund in refunds) == event.amount
            if whole and (event.tenant_id, event.meter) == (ask.tenant_id, ask.meter):
                last = max(refund.received_at_us for refund in refunds)
                _add(found, _place(number, ask, event, last), -1)
    return [UsageSum(*place, units) for place, units in found.items() if units]


def _meets(ask: Ask, event: UsageEvent, but_epochs: Sequence[str]) -> bool:
    return (
        (event.tenant_id, event.meter) == (ask.tenant_id, ask.meter)
        and event.event_time_us >= ask.from_us
        and ask.received_from_us <= event.received_at_us < ask.received_until_us
        and (not ask.period_us or event.event_time_us >= event.received_at_us - ask.period_us)
        and event.counter_epoch not in but_epochs
    )


def _place(number: int, ask: Ask, event: UsageEvent, received_at_us: int) -> _Place:
    at_us = received_at_us
    if not ask.period_us:
        at_us = min(event.event_time_us, received_at_us)
    values = tuple(value_of(event, name) for name in ask.fields)
    return number, at_us // ask.slot_us if ask.slot_us else 0, values


def value_of(event: UsageEvent, name: str) -> str:
    """Return an event's value of a dimension, or else of a field of the context, or nothing."""
    context = str(getattr(event.context, name)) if name in _CONTEXT else ""
    return event.dimensions.get(name, context)


def _add(found: dict[_Place, int], place: _Place, units: int) -> None:
    found[place] = found.get(place, 0) + units
