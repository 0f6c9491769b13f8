"""Which numbers the ledger has, kept in Redis for those who have no way to the ledger.

Guarantees: what is told here the ledger has; of a lane with very many gaps the last ranges are left
out, which errs towards what is not known to be stored.
Refuses to know: what is done with what the ledger has not.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.domain.ids import SourceId, epoch_of
from tallygate.ports.epochs import Ranges, Seen

# Some 4 KB of text; a lane in order has one range, and each entry in flight may part it once more.
RANGES_MAX: Final = 200
# Who has not come back after a day is not waited for by then, whatever it had announced.
ANNOUNCED_MS: Final = 86_400_000
# So many ranges make an entry of some kilobytes.
HANDED_IN_TOGETHER_MAX: Final = 500

_RANGES: Final = re.compile(rb"\d{1,16}-\d{1,16}(,\d{1,16}-\d{1,16})*")


class RedisSeenNumbers:
    """The `SeenNumbers` port."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def tell(self, seen: Sequence[Seen]) -> None:
        """Write what the ledger has, per source and shard. See the port."""
        by_shard: dict[int, dict[str, str]] = defaultdict(dict)
        for each in seen:
            by_shard[each.shard][each.source_id] = _text(each.ranges)
        if not by_shard:
            return
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard, fields in by_shard.items():
                    pipeline.hset(keys.seen(shard), mapping=cast(Any, fields))
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def seen(self, asked: Sequence[tuple[SourceId, int]]) -> Sequence[Seen]:
        """Return what the ledger has of each source and shard, in order. See the port."""
        if not asked:
            return []
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for source_id, shard in asked:
                    pipeline.hget(keys.seen(shard), source_id)
                replies: list[bytes | None] = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return [
            Seen(source_id, shard, _ranges(reply or b""))
            for (source_id, shard), reply in zip(asked, replies, strict=True)
        ]

    async def hand_in(self, numbers: Sequence[Seen]) -> None:
        """Tell the ledger of numbers whose events come under others. See the port."""
        try:
            for each in numbers:
                for start in range(0, len(each.ranges), HANDED_IN_TOGETHER_MAX):
                    some = each.ranges[start : start + HANDED_IN_TOGETHER_MAX]
                    await self._append(each.shard, each.source_id, some)
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def announce(self, shard: int, epoch: str, source_id: SourceId, *, done: bool) -> None:
        """Say that a journal has, or has no more, to hand in to an epoch. See the port."""
        key = keys.announced(shard, epoch)
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, source_id, str(int(done)))
                pipeline.pexpire(key, ANNOUNCED_MS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def announced(self, shard: int, epoch: str) -> Mapping[SourceId, bool]:
        """Return who has announced itself to an epoch, and whether it is done."""
        try:
            found = cast(Any, self._client.hgetall(keys.announced(shard, epoch)))
            fields: dict[bytes, bytes] = await found
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return {SourceId(name.decode()): done == b"1" for name, done in fields.items()}

    async def _append(self, shard: int, source_id: SourceId, ranges: Ranges) -> None:
        fields = {"s": source_id, "e": epoch_of(source_id)}
        fields |= {f"r{first}+{last - first + 1}": "" for first, last in ranges}
        await self._client.xadd(keys.stream(shard), cast(Any, fields))


def _text(ranges: Ranges) -> str:
    return ",".join(f"{first}-{last}" for first, last in ranges[:RANGES_MAX])


def _ranges(text: bytes) -> Ranges:
    """Read ranges back; of what cannot be read nothing is known to be stored."""
    if not _RANGES.fullmatch(text):
        return ()
    pairs = (pair.split(b"-") for pair in text.split(b","))
    return tuple((int(first), int(last)) for first, last in pairs)
