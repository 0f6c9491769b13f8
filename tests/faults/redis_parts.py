"""What the fault tests of Redis share: a store that counts what befell it."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.ids import SourceId
from tallygate.ports.epochs import Stage
from tests.builders import MEMORY_MS, SHARDS

SHARD = 3
TIMEOUT_MS = 2_000


@dataclass(slots=True)
class Tally:
    """Counts what the store tells of itself."""

    reloads: int = 0
    epochs: int = 0
    rollbacks: int = 0

    def script_reloaded(self) -> None:
        """Count it."""
        self.reloads += 1

    def epoch_changed(self, shard: int) -> None:
        """Count it."""
        self.epochs += 1

    def rolled_back(self, shard: int) -> None:
        """Count it."""
        self.rollbacks += 1

    def pipeline_finished(self, operations: int, seconds: float) -> None:
        """Ignore it."""


@dataclass(slots=True)
class Rig:
    """A store, its own connection, and one beside it to look and to disturb with."""

    store: RedisQuotaStore
    beside: Redis
    tally: Tally

    async def epoch(self, shard: int = SHARD) -> str:
        """Return the shard's epoch."""
        found = await cast(Awaitable[bytes], self.beside.hget(keys.meta(shard), "epoch"))
        return found.decode()

    async def stored(self) -> dict[bytes, bytes | None]:
        """Return every key of the shards with its contents as the server dumps them."""
        names = sorted([key async for key in self.beside.scan_iter("{tg:0*")])
        return {name: await self.beside.dump(name) for name in names}

    async def stream_length(self, shard: int = SHARD) -> int:
        """Return how many entries the shard's stream holds."""
        return int(await self.beside.xlen(keys.stream(shard)))


@asynccontextmanager
async def rig(
    url: str, timeout_ms: int = TIMEOUT_MS, source: str = "a", *, opens_new: bool = True
) -> AsyncIterator[Rig]:
    """Open a store on a Redis; unless new epochs are open, the first is opened here."""
    tally = Tally()
    client, beside = connect(url, timeout_ms), connect(url, TIMEOUT_MS)
    options = StoreOptions(SourceId(source), SHARDS, MEMORY_MS, opens_new=opens_new)
    store = RedisQuotaStore(client, options, tally)
    try:
        await store.open()
        if not opens_new:
            await open_all(beside)
        yield Rig(store, beside, tally)
    finally:
        await client.aclose()
        await beside.aclose()


async def open_all(client: Redis) -> None:
    """Say that the counters of every shard are whole."""
    stages = RedisCounterStages(client, SHARDS)
    for shard, epoch in (await stages.epochs()).items():
        await stages.advance(shard, epoch, Stage.OPEN)
