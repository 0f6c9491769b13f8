"""From a bucket or a message back to its events.

Guarantees: one snapshot for each answer, which changes nothing and can run on a replica.
Refuses to know: how it is shown.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import EventId, OperationId
from tallygate.domain.trace import trace_id, unpacked
from tallygate.ports.archive import ArchivedMonth
from tallygate.ports.lineage import (
    BucketAsked,
    BucketEvent,
    BucketLineage,
    MessageDelivery,
    MessageEvent,
    MessageLineage,
    Whereabouts,
)

# A day of a busy tenant is some ten million events to add up.
PATIENCE_S: Final = 300


class PostgresLineageReads:
    """The `LineageReads` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def bucket(self, asked: BucketAsked) -> BucketLineage:
        """Return a bucket with a page of its events, by time and id."""
        scope = (asked.tenant_id, asked.meter, asked.grain.value, asked.at_us)
        async with self._snapshot() as connection:
            bucket = await connection.fetchrow(query("lineage_bucket"), *scope, timeout=PATIENCE_S)
            after = asked.after or (None, None)
            rows = await connection.fetch(
                query("lineage_bucket_events"),
                *(*scope, *after, asked.limit + 1),
                timeout=PATIENCE_S,
            )
            archived = await connection.fetchrow(query("archive_of_instant"), asked.at_us)
        assert bucket is not None
        return BucketLineage(
            bucket_us=bucket["bucket_us"],
            count=bucket["count"],
            sum=None if bucket["sum"] is None else int(bucket["sum"]),
            events_count=bucket["events_count"],
            events_sum=int(bucket["events_sum"]),
            archived=archived_month(archived) if archived is not None else None,
            events=[_event(row) for row in rows[: asked.limit]],
            more=len(rows) > asked.limit,
        )

    async def message(self, message_id: str, skip: int, limit: int) -> MessageLineage | None:
        """Return a message with its events from a place on. See the port."""
        try:
            asked = uuid.UUID(message_id)
        except ValueError:
            raise InvalidField("is not a message's id", field="message") from None
        async with self._snapshot() as connection:
            found = await connection.fetchrow(query("lineage_message"), asked)
            events = await connection.fetch(query("lineage_message_events"), asked, skip, limit)
            deliveries = await connection.fetch(query("lineage_deliveries"), asked)
        if found is None:
            return None
        return MessageLineage(
            message_id=found["message_id"],
            type=found["type"],
            about=found["about"],
            created_at_us=found["created_at_us"],
            events_count=found["events_count"],
            events=[
                MessageEvent(
                    *(row["tenant_id"], row["event_id"], row["meter"], row["amount"]),
                    Whereabouts(row["whereabouts"]),
                )
                for row in events
            ],
            deliveries=[
                MessageDelivery(
                    *(row["destination"], row["state"], row["attempt"]),
                    *(row["finished_at_us"], row["reason"]),
                )
                for row in deliveries
            ],
            traces=tuple(map(trace_id, unpacked(found["trace_context"] or b""))),
        )

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Lent]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            yield connection


def archived_month(row: asyncpg.Record) -> ArchivedMonth:
    """Return a row's archive."""
    return ArchivedMonth(row["month_us"], row["file"], row["file_sha256"], row["dropped_at_us"])


def _event(row: asyncpg.Record) -> BucketEvent:
    return BucketEvent(
        event_id=EventId(row["event_id"]),
        amount=row["amount"],
        event_time_us=row["event_time_us"],
        received_at_us=row["received_at_us"],
        operation_id=OperationId(row["operation_id"]),
        refund_of=EventId(row["refund_of"]),
    )
