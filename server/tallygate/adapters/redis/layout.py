"""What must be agreed on before a shard may be used: shard count, epochs, the server's version.

Guarantees: the shard count is fixed by the first process that ever starts; each shard's epoch is
random and created once, by whoever comes first.
Refuses to know: what is decided in an epoch.
"""

import secrets
from collections.abc import Awaitable, Sequence
from importlib import resources
from typing import Final, cast

from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.domain.errors import TallygateError

# Keys carry it. Among a shard's epochs, of which few are known at a time, no two are alike.
EPOCH_BYTES: Final = 4
_EPOCH: Final = resources.files("tallygate.adapters.redis.lua").joinpath("epoch.lua").read_text()


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


async def agree_on_epochs(
    client: Redis, shards: Sequence[int], *, opens: bool = False
) -> dict[int, str]:
    """Return the epoch of each of the shards, creating those that are missing.

    With `opens`, all are decided by at once, rebuilt or not.
    """
    async with client.pipeline(transaction=False) as pipeline:
        for shard in shards:
            pipeline.eval(_EPOCH, 1, keys.meta(shard), "adopt", _new_epoch(), int(opens))
        replies = cast(list[list[bytes]], await pipeline.execute())
    return {shard: reply[0].decode() for shard, reply in zip(shards, replies, strict=True)}


async def renew_epoch(client: Redis, shard: int, epoch: str) -> str:
    """Give a shard a new epoch if it has the one named still; return which it has then."""
    reply = await _step(client, shard, "renew", epoch, _new_epoch())
    return reply[0].decode()


async def advance_epoch(
    client: Redis, shard: int, epoch: str, stage: str, after: str | None = None
) -> bool:
    """Bring a shard's epoch to a later stage; say whether it is its epoch, and was earlier.

    With `after`, only if that is its stage.
    """
    reply = await _step(client, shard, "advance", epoch, stage, "*" if after is None else after)
    return reply[1] == b"1"


async def _step(client: Redis, shard: int, *words: str) -> list[bytes]:
    reply = client.eval(_EPOCH, 1, keys.meta(shard), *words)
    return cast(list[bytes], await cast(Awaitable[object], reply))


def _new_epoch() -> str:
    return secrets.token_hex(EPOCH_BYTES)


async def server_version(client: Redis) -> str:
    """Return the server's version, as `7.0.15`."""
    server = await client.info("server")
    return str(server["redis_version"])
