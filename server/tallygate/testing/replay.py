"""A ledger to read again, in memory.

Guarantees: passes the same contract tests as the one in Postgres.
Refuses to know: how events came into it.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from tallygate.domain.event import UsageEvent
from tallygate.ports.replay import ReplayQuery


@dataclass(slots=True)
class FakeUsageReplay:
    """The `UsageReplay` port over a list, `page` events at a time."""

    stored: list[UsageEvent] = field(default_factory=list)
    page: int = 2

    async def events(self, query: ReplayQuery) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events in bounded lists, by when each was accepted, then by number."""
        found = sorted(
            (event for event in self.stored if _asked(event, query)),
            key=lambda each: (
                each.received_at_us,
                each.source_id,
                each.source_lane,
                each.source_seq,
            ),
        )
        for start in range(0, len(found), self.page):
            yield found[start : start + self.page]


def _asked(event: UsageEvent, query: ReplayQuery) -> bool:
    return (
        query.tenant_id in (None, event.tenant_id)
        and (query.from_us is None or event.received_at_us >= query.from_us)
        and (query.to_us is None or event.received_at_us < query.to_us)
    )
