"""What operators do to the outbox: see what is held back, try parked messages again, prune, rebase.

Guarantees: nothing that awaits a delivery is deleted; a rebase changes nothing in a cluster whose
own messages these are, and nothing when it is run again.
Refuses to know: relays and destinations.
"""

import uuid
from typing import Final

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.errors import InvalidField

PRUNE_BATCH: Final = 1_000


class PostgresOutboxUpkeep:
    """The outbox, seen from outside of its relays."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def gate_lag_s(self) -> float:
        """Return for how many seconds readers by (xid, seq) have been held back, 0 for not."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("outbox_gate"))) / 1_000_000

    async def unpark(self, destination: str, message_id: str = "") -> int:
        """Have parked messages of a destination, all or one, tried again; return how many.

        Raises `InvalidField` for what is no message id.
        """
        try:
            only = uuid.UUID(message_id) if message_id else None
        except ValueError:
            raise InvalidField("is not a message's id", field="message") from None
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("outbox_unpark"), destination, only))

    async def prune(self, older_than_days: int) -> int:
        """Delete messages that were delivered everywhere and are that old; return how many."""
        if older_than_days < 1:
            raise InvalidField("must be at least 1", field="older_than_days")
        gone = 0
        while True:
            async with self._postgres.connection() as connection:
                batch = int(
                    await connection.fetchval(query("outbox_prune"), older_than_days, PRUNE_BATCH)
                )
            gone += batch
            if batch < PRUNE_BATCH:
                return gone

    async def rebase(self) -> int:
        """Make messages that were restored from another cluster old ones here; return how many.

        Their transaction numbers mean nothing here, and could lie in this cluster's future: who
        tails by (xid, seq) would stall at them, and see later messages before them.
        """
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("outbox_rebase_lock"))
            return int(await connection.fetchval(query("outbox_rebase")))
