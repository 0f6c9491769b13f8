"""What must be agreed on before a shard may be used: shard count, epochs, the server's version.

Guarantees: the shard count is fixed by the first process that ever starts; each shard's epoch is
random and created once, by whoever comes first.
Refuses to know: what is decided in an epoch.
"""

import secrets
from typing import cast

from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.domain.errors import TallygateError

EPOCH_BYTES = 8


class LayoutDiffers(TallygateError):
    """Redis was set up with another number of shards; tenants would be counted twice."""

    reason = "INTERNAL"


async def agree_on_shards(client: Redis, shards: int) -> None:
    """Fix the number of shards at first start, and check it ever after.

    Raises `LayoutDiffers` when Redis holds another number.
    """
    await client.set(keys.layout(), str(shards), nx=True)
    found = await client.get(keys.layout())
    if found is not None and int(found) != shards:
        raise LayoutDiffers(
            f"Redis was set up with {int(found)} shards, not {shards}", field="shards"
        )


async def agree_on_epochs(client: Redis, shards: list[int]) -> dict[int, str]:
    """Return the epoch of each of the shards, creating those that are missing."""
    async with client.pipeline(transaction=False) as pipeline:
        for shard in shards:
            pipeline.hsetnx(keys.meta(shard), "epoch", secrets.token_hex(EPOCH_BYTES))
            pipeline.hget(keys.meta(shard), "epoch")
        replies = await pipeline.execute()
    return {shard: cast(bytes, replies[2 * n + 1]).decode() for n, shard in enumerate(shards)}


async def server_version(client: Redis) -> str:
    """Return the server's version, as `7.0.15`."""
    server = await client.info("server")
    return str(server["redis_version"])
