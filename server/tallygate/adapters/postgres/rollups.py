"""Usage by minute, hour and day: what a ledger transaction adds to the rollups.

Guarantees: buckets are written in the order of their keys, each once per transaction, so that two
ingesters wait for each other, not forever. Sums are exact beyond 64 bits.
Refuses to know: which events are new.
"""

from collections.abc import Sequence

from tallygate.adapters.postgres import group_rollups
from tallygate.adapters.postgres.columns import joined
from tallygate.adapters.postgres.group_rollups import KnownShapes
from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import UsageEvent
from tallygate.domain.window import MINUTE_US

# Count, sum, largest and smallest by tenant, meter and minute.
_Minutes = dict[tuple[str, str, int], list[int]]


async def add(connection: Lent, events: Sequence[UsageEvent], known: KnownShapes) -> KnownShapes:
    """Add events to the rollups; return the shapes that are in effect, `known` if none changed.

    The caller's transaction holds the rows from now on.
    """
    minutes = _minutes(events)
    if not minutes:
        return known
    tenants, meters, buckets = zip(*minutes, strict=True)
    figures = zip(*minutes.values(), strict=True)
    texts, mark = joined(
        [tenants, meters, list(map(str, buckets)), *(list(map(str, each)) for each in figures)]
    )
    newest = await connection.fetchval(query("ledger_add_usage"), *texts, mark)
    if newest != known.newest:
        known = await group_rollups.read_shapes(connection, newest)
    if known.of:
        await group_rollups.add(connection, events, set(meters), known)
    return known


def _minutes(events: Sequence[UsageEvent]) -> _Minutes:
    sums: _Minutes = {}
    find = sums.get
    for event in events:
        at_us, amount = event.event_time_us, event.amount
        key = (event.tenant_id, event.meter, at_us - at_us % MINUTE_US)
        found = find(key)
        if found is None:
            # A refund takes from the sum; it is no use of its own, and so no smallest one.
            sums[key] = [0, amount, 0, 0] if event.refund_of else [1, amount, amount, amount]
            continue
        found[1] += amount
        if event.refund_of:
            continue
        if not found[0] or amount > found[2]:
            found[2] = amount
        if not found[0] or amount < found[3]:
            found[3] = amount
        found[0] += 1
    return sums
