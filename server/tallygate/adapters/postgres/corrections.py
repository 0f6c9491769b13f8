"""What counters are due for events that came twice or too late: noted, read and finished.

Guarantees: a correction is noted in the transaction that stores, or knows, its event, once for the
number that the event came under; when nothing is amiss, that costs no query.
Refuses to know: how counters are changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import asyncpg

from tallygate.adapters.postgres import messages
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, SourceId, TenantId
from tallygate.ports.rebuild import Correction


async def note(
    connection: Lent,
    events: Sequence[UsageEvent],
    fresh: Sequence[UsageEvent],
    epochs: Mapping[int, str],
) -> int:
    """Note what counters are due for a batch of which `fresh` were new; return how many."""
    late = [
        event
        for event in (fresh if epochs else ())
        if epochs.get(event.source_lane, event.counter_epoch) != event.counter_epoch
    ]
    again: list[UsageEvent] = []
    if len(fresh) < len(events):
        new = {id(event) for event in fresh}
        again = [event for event in events if id(event) not in new and event.counter_epoch]
        again = await _under_other_numbers(connection, again)
    rows = {
        (event.source_id, event.source_lane, event.source_seq): row
        for event, row in (
            *((event, _row(event, epochs[event.source_lane], False)) for event in late),
            *((event, _row(event, event.counter_epoch, True)) for event in again),
        )
    }
    if not rows:
        return 0
    columns = zip(*(rows[key] for key in sorted(rows)), strict=True)
    return int(await connection.fetchval(query("ledger_insert_corrections"), *map(list, columns)))


class PostgresCorrections:
    """The `Corrections` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def due(self, count: int) -> list[Correction]:
        """Return up to `count` corrections that are not finished, the oldest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("correction_due"), count)
        return [_correction(row) for row in rows]

    async def trying(self, numbers: Sequence[int]) -> None:
        """Note that corrections, by number, are about to be given to counters."""
        async with self._postgres.connection() as connection:
            await connection.execute(query("correction_try"), list(numbers))

    async def finish(self, outcomes: Mapping[int, str]) -> int:
        """Finish corrections by number, each with its outcome; say how many were not yet."""
        async with self._postgres.connection() as connection:
            numbers, reasons = list(outcomes), list(outcomes.values())
            return int(await connection.fetchval(query("correction_finish"), numbers, reasons))

    async def again(self, within_s: float) -> int:
        """Have those that were applied, and first tried so lately, be due again; say how many."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("correction_again"), within_s))

    async def depth(self) -> int:
        """Return how many are not finished."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("correction_depth")))


async def _under_other_numbers(connection: Lent, events: list[UsageEvent]) -> list[UsageEvent]:
    """Return those events that are stored under other numbers than they came under now."""
    if not events:
        return []
    keys = sorted({(event.tenant_id, event.event_id, event.meter) for event in events})
    columns = zip(*keys, strict=True)
    rows = await connection.fetch(query("ledger_known_numbers"), *map(list, columns))
    known = {
        (row["tenant_id"], row["event_id"]): (
            row["source_id"],
            row["source_lane"],
            row["source_seq"],
        )
        for row in rows
    }
    return [
        event
        for event in events
        if known.get((event.tenant_id, event.event_id))
        != (event.source_id, event.source_lane, event.source_seq)
    ]


def _row(event: UsageEvent, epoch: str, takes_back: bool) -> tuple[object, ...]:
    return (
        event.source_lane,
        epoch,
        takes_back,
        event.tenant_id,
        event.event_id,
        event.meter,
        event.amount,
        event.event_time_us,
        event.received_at_us,
        event.source_id,
        event.source_lane,
        event.source_seq,
        messages.as_json(event.dimensions),
        messages.as_json(asdict(event.context)),
        event.refund_of,
    )


def _correction(row: asyncpg.Record) -> Correction:
    event = UsageEvent(
        event_id=EventId(row["event_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        meter=MeterName(row["meter"]),
        amount=row["amount"],
        event_time_us=row["event_time_us"],
        operation_id=OperationId(""),
        context=EventContext(**json.loads(row["context"])),
        dimensions=json.loads(row["dimensions"]),
        received_at_us=row["received_at_us"],
        source_id=SourceId(row["source_id"]),
        source_lane=row["source_lane"],
        source_seq=row["source_seq"],
        refund_of=EventId(row["refund_of"]),
    )
    return Correction(
        row["id"], row["shard"], row["epoch"], row["takes_back"], event, row["tried_s"]
    )
