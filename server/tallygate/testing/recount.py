"""Snapshots of a ledger in memory, for recounting.

Guarantees: passes the same contract tests as the snapshots in Postgres.
Refuses to know: who stores events.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import TenantId
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum, sums_of
from tallygate.ports.recount import CountedUsage
from tallygate.testing.ledger import FakeLedger


class FakeCountedUsage:
    """The `CountedUsage` port over a list of events."""

    def __init__(self, events: Iterable[UsageEvent], resets: Iterable[LastReset] = ()) -> None:
        self._events = list(events)
        self._resets = list(resets)

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        return sorted({each.tenant_id for each in self._events if each.tenant_id > after})[:count]

    async def sums(self, asks: Sequence[Ask], but_epochs: Sequence[str] = ()) -> list[UsageSum]:
        """Return the sums that are not 0, but for events counted in `but_epochs`."""
        return sums_of(self._events, asks, but_epochs)

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
        self.ledger = ledger
        self.resets: list[LastReset] = []

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[CountedUsage]:
        """Hold one snapshot of now."""
        yield FakeCountedUsage(self.ledger.events.values(), self.resets)
