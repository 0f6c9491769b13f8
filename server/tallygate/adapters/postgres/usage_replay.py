"""The ledger's events again, in the order of their acceptance, or a meter's by their own time.

Guarantees: one snapshot for the whole reading, which changes nothing and can run on a replica; one
page in memory. A reading that would lack events, as they are in an archive alone, is refused.
Refuses to know: what is made of them.

A cursor and not pages by key: no index leads by acceptance, which each insert would have to pay
for, so that every page would sort anew what the cursor has sorted once.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import asyncpg

from tallygate.adapters.postgres.archived import refuse_archived
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import LATE_HORIZON_US
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import (
    EventId,
    MeterName,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.domain.window import Window
from tallygate.ports.replay import ReplayQuery

# A page is a few megabytes, and its round trip is lost in the time of deciding it.
PAGE: Final = 2_000
# The first page waits for the sort, of a hundred million events on disk well within this; later
# ones wait for whoever decides the page before, and looks up its tenants.
PATIENCE_S: Final = 3_600
_CONTEXT: Final = tuple(EventContext.__dataclass_fields__)


class PostgresUsageReplay:
    """The `UsageReplay` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def events(self, asked: ReplayQuery) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events in bounded lists, by when each was accepted, then by number."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("ledger_pin"))
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            # What was accepted then may have been used as much earlier as meters take it late.
            from_us = None if asked.from_us is None else asked.from_us - LATE_HORIZON_US
            await refuse_archived(
                connection, asked.tenant_id, None, from_us, asked.to_us, field="--from"
            )
            cursor = await connection.cursor(
                query("replay_events"),
                *(asked.tenant_id, asked.from_us, asked.to_us),
                timeout=PATIENCE_S,
            )
            while rows := await cursor.fetch(PAGE, timeout=PATIENCE_S):
                yield [event_of(row) for row in rows]


class PostgresMeterEvents:
    """The `MeterEvents` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def events(
        self, tenant_id: TenantId, meter: MeterName, window: Window
    ) -> AsyncGenerator[Sequence[UsageEvent], None]:
        """Iterate over the events of a window in bounded lists, by their time and then their id."""
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("ledger_pin"))
            asked = (tenant_id, meter, window.start_us, window.end_us)
            await refuse_archived(connection, *asked, field="from")
            cursor = await connection.cursor(query("usage_events"), *asked)
            while rows := await cursor.fetch(PAGE):
                yield [event_of(row) for row in rows]


def event_of(row: asyncpg.Record) -> UsageEvent:
    """Return the event that a row has."""
    return UsageEvent(
        event_id=EventId(row["event_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        meter=MeterName(row["meter"]),
        amount=row["amount"],
        event_time_us=row["event_time_us"],
        operation_id=OperationId(row["operation_id"]),
        context=EventContext(**{name: row[name] for name in _CONTEXT}),
        dimensions=json.loads(row["dimensions"]),
        received_at_us=row["received_at_us"],
        source_id=SourceId(row["source_id"]),
        source_lane=row["source_lane"],
        source_seq=row["source_seq"],
        refund_of=EventId(row["refund_of"]),
        reservation_id=ReservationId(row["reservation_id"]),
    )
