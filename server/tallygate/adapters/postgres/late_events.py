"""Events that come for a period after it was sealed: noted with where they belong instead.

Guarantees: an event is in the totals that its period was sealed with, or noted here, never both and
never neither: who seals waits for all transactions that hold the ledger, and those after it see
what is sealed. Where nothing is older than what is sealed, that costs no query.
Refuses to know: totals, and when periods are sealed.
"""

from collections.abc import Mapping, Sequence

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import UsageEvent


async def note(
    connection: Lent, fresh: Sequence[UsageEvent], sealed_until_us: int | None
) -> Mapping[str, int]:
    """Note those of the new events that are late; return how many by the rule that placed them."""
    if sealed_until_us is None:
        return {}
    old = [event for event in fresh if event.event_time_us < sealed_until_us]
    if not old:
        return {}
    rows = await connection.fetch(
        query("period_note_late"),
        [event.tenant_id for event in old],
        [event.event_id for event in old],
        [event.meter for event in old],
        [event.amount for event in old],
        [event.event_time_us for event in old],
        [event.refund_of for event in old],
        max(event.received_at_us for event in old),
    )
    return {row["placed"]: row["events"] for row in rows}
