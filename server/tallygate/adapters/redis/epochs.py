"""The epochs of the shards' counters, as Redis holds them.

Guarantees: every shard has an epoch; that of one which was lost is made anew, by whoever is first.
Refuses to know: what was counted in an epoch.
"""

from collections.abc import Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import layout
from tallygate.adapters.redis.client import translate


class RedisCounterEpochs:
    """The `CounterEpochs` port."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def life(self) -> str:
        """Return the server's run id, which is another after each start and each failover."""
        try:
            server = await self._client.info("server")
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return str(server["run_id"])

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch of each shard. Raises `LayoutDiffers` for another number of shards."""
        try:
            await layout.agree_on_shards(self._client, self._shards)
            return await layout.agree_on_epochs(self._client, list(range(self._shards)))
        except (RedisError, OSError) as error:
            raise translate(error) from error
