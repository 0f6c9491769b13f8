"""What the ledger has on record of one event.

Guarantees: it reads, and changes nothing; it can run on a replica.
Refuses to know: what the records mean together.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from tallygate.adapters.postgres.lineage_reads import archived_month
from tallygate.adapters.postgres.messages import as_json
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import RejectedEvent, UsageEvent
from tallygate.domain.ids import (
    EventId,
    MeterName,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.ports.story import Archived, Bucket, CorrectionTold, Letter, RefundTold, Stored, Told

# Without a tenant, or through all messages, Postgres may have to read much.
PATIENCE_S: Final = 300


class PostgresEventRecords:
    """The `EventRecords` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def stored(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Stored]:
        """Return the events of this id: one per tenant at most."""
        rows = await self._rows("explain_events", tenant_id, event_id)
        return [Stored(_event(row), row["leaf"], row["seen"]) for row in rows]

    async def archived(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Archived]:
        """Return where the events of this id are whose months were dropped."""
        rows = await self._rows("explain_archived", tenant_id, event_id)
        return [
            Archived(
                TenantId(row["tenant_id"]), event_id, row["event_time_us"], archived_month(row)
            )
            for row in rows
        ]

    async def letters(self, tenant_id: TenantId | None, event_id: EventId) -> Sequence[Letter]:
        """Return the dead letters of this id."""
        rows = await self._rows("explain_letters", tenant_id, event_id)
        return [
            Letter(
                RejectedEvent(
                    tenant_id=row["tenant_id"],
                    event_id=event_id,
                    reason=row["reason"],
                    detail=row["detail"],
                    payload=b"",
                    received_at_us=row["received_at_us"],
                    source_id=SourceId(row["source_id"]),
                    source_lane=row["source_lane"],
                    source_seq=row["source_seq"],
                ),
                row["created_at_us"],
            )
            for row in rows
        ]

    async def buckets(
        self, tenant_id: TenantId, meter: MeterName, event_time_us: int
    ) -> Sequence[Bucket]:
        """Return the rollups that usage of that time is part of."""
        rows = await self._rows("explain_buckets", tenant_id, meter, event_time_us)
        return [
            Bucket(row["kind"], row["bucket_us"], row["count"], int(row["sum"])) for row in rows
        ]

    async def refunds(self, tenant_id: TenantId, event_id: EventId) -> Sequence[RefundTold]:
        """Return the refunds of an event, by time."""
        rows = await self._rows("explain_refunds", tenant_id, event_id)
        return [
            RefundTold(
                EventId(row["event_id"]),
                row["amount"],
                OperationId(row["operation_id"]),
                row["received_at_us"],
            )
            for row in rows
        ]

    async def corrections(self, tenant_id: TenantId, event_id: EventId) -> Sequence[CorrectionTold]:
        """Return the corrections of counters that were due for an event, the oldest first."""
        return [
            CorrectionTold(
                takes_back=row["takes_back"],
                epoch=row["epoch"],
                number=f"{row['source_id']}/{row['source_lane']}/{row['source_seq']}",
                outcome=row["outcome"],
                created_at_us=row["created_at_us"],
                finished_at_us=row["finished_at_us"] or 0,
            )
            for row in await self._rows("explain_corrections", tenant_id, event_id)
        ]

    async def told(self, event: UsageEvent) -> Sequence[Told]:
        """Return the messages that tell of an event, with their deliveries."""
        spelled = f'"event_id":{as_json(event.event_id)}'
        asked = (event.tenant_id, event.event_id, spelled, event.received_at_us)
        return [
            Told(
                message_id=row["message_id"],
                type=row["type"],
                created_at_us=row["created_at_us"],
                destination=row["destination"],
                state=row["state"],
                attempt=row["attempt"],
                reason=row["reason"],
                finished_at_us=row["finished_at_us"] or 0,
            )
            for row in await self._rows("explain_messages", *asked)
        ]

    async def _rows(self, name: str, *asked: object) -> list[asyncpg.Record]:
        async with self._postgres.connection() as connection, connection.transaction(readonly=True):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            return await connection.fetch(query(name), *asked, timeout=PATIENCE_S)


def _event(row: asyncpg.Record) -> UsageEvent:
    return UsageEvent(
        event_id=EventId(row["event_id"]),
        tenant_id=TenantId(row["tenant_id"]),
        meter=MeterName(row["meter"]),
        amount=row["amount"],
        event_time_us=row["event_time_us"],
        operation_id=OperationId(row["operation_id"]),
        received_at_us=row["received_at_us"],
        source_id=SourceId(row["source_id"]),
        source_lane=row["source_lane"],
        source_seq=row["source_seq"],
        counter_epoch=row["counter_epoch"],
        refund_of=EventId(row["refund_of"]),
        reservation_id=ReservationId(row["reservation_id"]),
        trace=row["trace_context"] or b"",
    )
