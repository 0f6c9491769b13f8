"""How many entries each shard's usage stream holds.

Guarantees: one pipeline, whose cost does not depend on the lengths.
Refuses to know: groups and consumers.
"""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate


async def stream_lengths(client: Redis, shards: int) -> list[int]:
    """Return the number of entries by shard. Raises `BackendUnavailable`."""
    try:
        async with client.pipeline(transaction=False) as pipeline:
            for shard in range(shards):
                pipeline.xlen(keys.stream(shard))
            return [int(length) for length in await pipeline.execute()]
    except (RedisError, OSError) as error:
        raise translate(error) from error
