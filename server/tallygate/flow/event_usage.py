"""usage stream ─▶ [ event_usage ] ─▶ recount: usage that is not in the ledger yet, summed up alike.

If we die here, nothing has happened: it only reads.

Guarantees: events beside a snapshot count as if they were in it.
Refuses to know: where the events were read.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import TenantId
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum, sums_of
from tallygate.ports.recount import CountedUsage


class AddedUsage:
    """The `CountedUsage` port over a snapshot and events that are not in it."""

    def __init__(self, usage: CountedUsage, events: Iterable[UsageEvent]) -> None:
        self._usage = usage
        self._events = list(events)

    async def tenants(self, after: str, count: int) -> list[TenantId]:
        """Return up to `count` tenants that have used anything, by id, those after `after`."""
        found = {
            *await self._usage.tenants(after, count),
            *(each.tenant_id for each in self._events if each.tenant_id > after),
        }
        return sorted(found)[:count]

    async def sums(self, asks: Sequence[Ask], but_epochs: Sequence[str] = ()) -> list[UsageSum]:
        """Return the sums of both that are not 0, but for events counted in `but_epochs`."""
        found: Counter[tuple[int, int, tuple[str, ...]]] = Counter()
        stored = await self._usage.sums(asks, but_epochs)
        for each in (*stored, *sums_of(self._events, asks, but_epochs)):
            found[each.ask, each.slot, each.values] += each.units
        return [UsageSum(*place, units) for place, units in found.items() if units]

    async def resets(self, tenants: Sequence[TenantId]) -> list[LastReset]:
        """Return the last reset of each counter of these tenants that was ever set back."""
        return await self._usage.resets(tenants)
