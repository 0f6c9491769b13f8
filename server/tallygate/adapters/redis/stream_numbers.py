"""Which sequence numbers Redis has given out, and which of them lie in its streams.

Guarantees: payloads are not decoded, only the names of fields; reading changes nothing.
Refuses to know: what the ledger has.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.domain.completeness import Lane, Ranges, joined
from tallygate.domain.errors import Overloaded
from tallygate.domain.ids import SourceId

PAGE: Final = 500
# Usage, refused usage, and numbers that were handed in again under others.
_NUMBERS: Final = re.compile(rb"[ujr](\d{1,16})\+(\d{1,16})")


class RedisStreamNumbers:
    """The `StreamNumbers` port."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def given(self) -> Mapping[Lane, int]:
        """Return the last number given out per source and shard, of older epochs too."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in range(self._shards):
                    pipeline.hgetall(keys.meta(shard))
                replies: list[dict[bytes, bytes]] = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return {
            (SourceId(source.decode()), shard): int(last)
            for shard, fields in enumerate(replies)
            for source, last in fields.items()
            if source not in keys.META_FIELDS
        }

    async def waiting(self, shards: Collection[int], entries_max: int) -> Mapping[Lane, Ranges]:
        """Return the numbers that lie in these shards' streams. See the port."""
        found: dict[Lane, list[tuple[int, int]]] = defaultdict(list)
        try:
            for shard in sorted(shards):
                if await self._client.xlen(keys.stream(shard)) > entries_max:
                    raise Overloaded("too much waits in a stream to be compared")
                await self._read(shard, found)
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return {lane: joined(ranges) for lane, ranges in found.items()}

    async def _read(self, shard: int, found: dict[Lane, list[tuple[int, int]]]) -> None:
        start = "-"
        while True:
            page = await self._client.xrange(keys.stream(shard), start, "+", count=PAGE)
            rows = cast(list[tuple[bytes, dict[bytes, bytes]]], cast(Any, page))
            for _, fields in rows:
                lane = (SourceId(fields.get(b"s", b"").decode(errors="replace")), shard)
                for name in fields:
                    numbers = _NUMBERS.fullmatch(name)
                    if numbers is not None:
                        first = int(numbers[1])
                        found[lane].append((first, first + int(numbers[2]) - 1))
            if len(rows) < PAGE:
                return
            start = f"({rows[-1][0].decode()}"
