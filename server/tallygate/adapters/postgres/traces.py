"""Where the calls of events were in traces, kept beside the ledger for as long as traces are.

Guarantees: an event that came with no place in a trace costs nothing here; the first call that
brought an event is the one that is kept. What is older than a month goes as new ones come.
Refuses to know: spans.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import UsageEvent

# Few backends keep traces for longer: an id that leads nowhere is worth no row.
KEPT_DAYS: Final = 30


async def note(connection: Lent, events: Sequence[UsageEvent]) -> None:
    """Keep the places of those that have one; events sorted by key, so that nobody deadlocks."""
    traced = [event for event in events if event.trace]
    if traced:
        await connection.execute(
            query("ledger_insert_traces"),
            [event.tenant_id for event in traced],
            [event.event_id for event in traced],
            [event.received_at_us for event in traced],
            [event.trace for event in traced],
            KEPT_DAYS,
        )
