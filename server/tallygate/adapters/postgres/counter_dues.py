"""What counters are due beside any event, noted for whoever corrects them.

Guarantees: one note of a tenant's meter at a time.
Refuses to know: how counters are corrected.
"""

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import shard_of
from tallygate.domain.reconcile import Pair


class PostgresCounterDues:
    """The `CounterDues` port."""

    def __init__(self, postgres: Postgres, shards: int) -> None:
        self._postgres = postgres
        self._shards = shards

    async def owe(self, pair: Pair, units: int, at_us: int) -> bool:
        """Note that the counters of a tenant's meter are due so many units. See the port."""
        shard = shard_of(pair.tenant_id, self._shards)
        async with self._postgres.connection() as connection:
            noted = await connection.fetchval(
                query("counter_owe"), shard, pair.tenant_id, pair.meter, units, at_us
            )
        return noted is not None
