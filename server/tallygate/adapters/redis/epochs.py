"""The epochs of the shards' counters, as Redis holds them.

Guarantees: nothing is created; a shard that nobody has used yet has no epoch.
Refuses to know: what was counted in an epoch.
"""

from collections.abc import Mapping
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate


class RedisCounterEpochs:
    """The `CounterEpochs` port."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch by shard; a shard whose counters nobody has used yet is left out."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in range(self._shards):
                    pipeline.hget(keys.meta(shard), "epoch")
                found = cast(list[bytes | None], await pipeline.execute())
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return {shard: epoch.decode() for shard, epoch in enumerate(found) if epoch is not None}
