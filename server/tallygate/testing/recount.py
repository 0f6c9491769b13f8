"""Snapshots of a ledger in memory, for recounting.

Guarantees: passes the same contract tests as the snapshots in Postgres.
Refuses to know: who stores events.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import TenantId
from tallygate.ports.recount import Ask, CountedUsage, LastReset, UsageSum
from tallygate.testing.ledger import FakeLedger

_CONTEXT: Final = frozenset(EventContext.__dataclass_fields__)
_Place = tuple[int, int, tuple[str, ...]]


class FakeCountedUsage:
    """The `CountedUsage` port over a list of events."""

    def __init__(self, events: Iterable[UsageEvent], resets: Iterable[LastReset]) -> None:
        self._events = list(events)
        self._resets = list(resets)

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        return sorted({each.tenant_id for each in self._events if each.tenant_id > after})[:count]

    async def sums(self, asks: Sequence[Ask], but_epoch: str = "") -> list[UsageSum]:
        """Return the sums that are not 0, but for events counted in `but_epoch`."""
        found: dict[_Place, int] = {}
        for number, ask in enumerate(asks):
            met = [event for event in self._events if _meets(ask, event, but_epoch)]
            taken: dict[str, list[UsageEvent]] = {}
            for event in met:
                units = event.amount
                if ask.counted:
                    units = 1 if event.amount > 0 else 0
                    if event.refund_of:
                        taken.setdefault(event.refund_of, []).append(event)
                _add(found, _place(number, ask, event, event.received_at_us), units)
            for event in self._events:
                refunds = taken.get(event.event_id, ())
                whole = -sum(refund.amount for refund in refunds) == event.amount
                if whole and (event.tenant_id, event.meter) == (ask.tenant_id, ask.meter):
                    last = max(refund.received_at_us for refund in refunds)
                    _add(found, _place(number, ask, event, last), -1)
        return [UsageSum(*place, units) for place, units in found.items() if units]

    async def resets(self, tenants: Sequence[TenantId]) -> list[LastReset]:
        """Return the last reset of each counter of these tenants that was ever set back."""
        last: dict[tuple[str, str, str], LastReset] = {}
        for each in sorted(self._resets, key=lambda each: each.reset_at_us):
            if each.tenant_id in tenants:
                last[each.tenant_id, each.limit_id, each.scope] = each
        return list(last.values())


class FakeUsageSnapshots:
    """The `UsageSnapshots` port over a fake ledger. `resets` are for a test to add to."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.resets: list[LastReset] = []

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[CountedUsage]:
        """Hold one snapshot of now."""
        yield FakeCountedUsage(self._ledger.events.values(), self.resets)


def _meets(ask: Ask, event: UsageEvent, but_epoch: str) -> bool:
    return (
        (event.tenant_id, event.meter) == (ask.tenant_id, ask.meter)
        and event.event_time_us >= ask.from_us
        and ask.received_from_us <= event.received_at_us < ask.received_until_us
        and (not ask.period_us or event.event_time_us >= event.received_at_us - ask.period_us)
        and (not but_epoch or event.counter_epoch != but_epoch)
    )


def _place(number: int, ask: Ask, event: UsageEvent, received_at_us: int) -> _Place:
    at_us = received_at_us
    if not ask.period_us:
        at_us = min(event.event_time_us, received_at_us)
    values = tuple(_value(event, name) for name in ask.fields)
    return number, at_us // ask.slot_us if ask.slot_us else 0, values


def _value(event: UsageEvent, name: str) -> str:
    context = str(getattr(event.context, name)) if name in _CONTEXT else ""
    return event.dimensions.get(name, context)


def _add(found: dict[_Place, int], place: _Place, units: int) -> None:
    found[place] = found.get(place, 0) + units
