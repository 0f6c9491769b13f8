"""The outbox in Postgres: deliveries are leased, and finished only under the lease they were under.

Guarantees: two relays never hold the same delivery at once; a relay that comes back after its lease
was taken over changes nothing. A lease that ran out but was not taken over still counts, as what it
reports did happen. Time is the database's.
Refuses to know: how messages are sent, and when to give up.
"""

import uuid
from collections.abc import Sequence

import asyncpg

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.ports import Delivery, OutboxDepth


class PostgresOutbox:
    """The `Outbox` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def claim(self, destination: str, count: int, lease_ms: int) -> list[Delivery]:
        """Lease up to `count` deliveries that are due, attempt counted."""
        token = uuid.uuid4()
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("outbox_claim"), destination, count, token, lease_ms
            )
        return [_delivery(row, token) for row in rows]

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Mark as delivered those still ours; return how many were."""
        # Sorted, so that two relays that finish the same rows do not wait for each other.
        ours = sorted(deliveries, key=lambda delivery: (delivery.destination, delivery.message_id))
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("outbox_delivered"),
                [delivery.destination for delivery in ours],
                [uuid.UUID(delivery.message_id) for delivery in ours],
                [uuid.UUID(delivery.lease_token) for delivery in ours],
            )
        return len(rows)

    async def retry(self, delivery: Delivery, delay_ms: int, reason: str) -> bool:
        """Give back for another try after `delay_ms`; say whether it was still ours."""
        async with self._postgres.connection() as connection:
            found = await connection.fetchval(
                query("outbox_retry"), *_key(delivery), delay_ms, reason
            )
        return found is not None

    async def park(self, delivery: Delivery, reason: str) -> bool:
        """Set aside for a person, with the reason; say whether it was still ours."""
        async with self._postgres.connection() as connection:
            found = await connection.fetchval(query("outbox_park"), *_key(delivery), reason)
        return found is not None

    async def depths(self) -> list[OutboxDepth]:
        """Return the depth of every destination that is active or has something left."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("outbox_depths"))
        return [
            OutboxDepth(row["destination"], row["pending"], row["parked"], row["oldest_us"])
            for row in rows
        ]


def _key(delivery: Delivery) -> tuple[str, uuid.UUID, uuid.UUID]:
    return delivery.destination, uuid.UUID(delivery.message_id), uuid.UUID(delivery.lease_token)


def _delivery(row: asyncpg.Record, token: uuid.UUID) -> Delivery:
    return Delivery(
        message_id=str(row["message_id"]),
        destination=row["destination"],
        type=row["type"],
        payload=row["payload"],
        attempt=row["attempt"],
        lease_token=str(token),
        created_at_us=row["created_at_us"],
        trace=row["trace_context"] or b"",
    )
