"""Quota stores as their contract asks them: the fake and Redis, each with a look at what is stored.

Owns how a stream and a state are read back. Refuses to know what is promised.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol, cast

import pytest
from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.entry import Entry
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import SourceId, numbered_in
from tallygate.ports import QuotaStore
from tallygate.ports.epochs import CounterStages
from tallygate.testing.epochs import FakeCounterStages
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import MEMORY_MS, SHARDS, now_us

SHARD = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """One accepted operation as a shard's stream tells of it."""

    source: str
    first_seq: int
    count: int


@dataclass(slots=True)
class Time:
    """The stores' time, which a test moves on; keys expire by the real one, never behind it."""

    now_us: int = field(default_factory=now_us)


class Subject(Protocol):
    """Stores of several sources over the same accounts."""

    time: Time

    def store(self, source: str = "a") -> QuotaStore:
        """Return the store as the sidecar `source` has it."""

    async def accepted(self, shard: int = SHARD) -> list[Seen]:
        """Return what the shard's stream holds, in order."""

    async def crossings(self, shard: int = SHARD) -> list[tuple[str, int, int]]:
        """Return the crossings of the shard's stream: limit, ratio in ppm, units used."""

    async def state(self) -> object:
        """Return all that is stored, to compare with itself."""

    def stages(self) -> CounterStages:
        """Return the stages of the stores' shards."""

    async def forget(self, source: str, last_seq: int) -> None:
        """Have the shard know no later number of a source: its data is older than it was."""

    async def take_back(self, epoch: str) -> None:
        """Have the shard be in an epoch that it had before, rebuilt: a whole copy was loaded."""


@dataclass(slots=True)
class FakeSubject:
    """The fake; its sources share accounts by sharing the store."""

    opens_new: bool = True
    time: Time = field(default_factory=Time)
    stores: dict[str, FakeQuotaStore] = field(default_factory=dict)
    shared: FakeCounterStages = field(init=False)

    def __post_init__(self) -> None:
        self.shared = FakeCounterStages(SHARDS, opens_new=self.opens_new)

    def stages(self) -> CounterStages:
        """Return the stages that all sources share."""
        return self.shared

    async def forget(self, source: str, last_seq: int) -> None:
        """Set the number back."""
        epoch = self.shared.state(SHARD).epoch
        self.shared.given[SHARD][numbered_in(SourceId(source), epoch)] = last_seq

    async def take_back(self, epoch: str) -> None:
        """Set the epoch back."""
        self.shared.load(SHARD, epoch)

    def store(self, source: str = "a") -> QuotaStore:
        """Return the store of a source, over the same accounts as the others."""
        if source not in self.stores:
            made = FakeQuotaStore(
                lambda: self.time.now_us,
                source_id=SourceId(source),
                memory_us=MEMORY_MS * 1000,
                stages=self.shared,
            )
            for other in self.stores.values():
                made.accounts = other.accounts
            self.stores[source] = made
        return self.stores[source]

    async def accepted(self, shard: int = SHARD) -> list[Seen]:
        """Return what the shard's stream holds."""
        return [
            Seen(entry.source_id.partition(".")[0], record.first_seq, record.event_count)
            for entry in self._entries(shard)
            for record in entry.records
        ]

    async def crossings(self, shard: int = SHARD) -> list[tuple[str, int, int]]:
        """Return the crossings of the shard's stream."""
        return [
            (crossed.limit_id, crossed.ratio_ppm, crossed.used)
            for entry in self._entries(shard)
            for crossed in entry.crossings
        ]

    async def state(self) -> object:
        """Return all that is stored."""
        shards = next(iter(self.stores.values())).accounts
        return [repr(shards[shard]) for shard in sorted(shards) if shards[shard].stream]

    def _entries(self, shard: int) -> list[Entry]:
        shards = next(iter(self.stores.values())).accounts
        return shards[shard].stream if shard in shards else []


@dataclass(slots=True)
class RedisSubject:
    """Redis; each source has a connection of its own."""

    url: str
    opens_new: bool = True
    time: Time = field(default_factory=Time)
    clients: dict[str, Redis] = field(default_factory=dict)
    stores: dict[str, RedisQuotaStore] = field(default_factory=dict)

    def store(self, source: str = "a") -> QuotaStore:
        """Return the store of a source."""
        if source not in self.stores:
            self.clients[source] = connect(self.url, 5_000)
            options = StoreOptions(
                SourceId(source),
                SHARDS,
                MEMORY_MS,
                opens_new=self.opens_new,
                now_us=lambda: self.time.now_us,
            )
            self.stores[source] = RedisQuotaStore(self.clients[source], options)
        return self.stores[source]

    async def accepted(self, shard: int = SHARD) -> list[Seen]:
        """Return what the shard's stream holds."""
        return [
            # After the dot stands the epoch, in which the source's numbers begin.
            Seen(
                each.source_id.partition(".")[0], each.first_seq, each.last_seq - each.first_seq + 1
            )
            for entry in await self._entries(shard)
            for each in entry.ranges
        ]

    async def crossings(self, shard: int = SHARD) -> list[tuple[str, int, int]]:
        """Return the crossings of the shard's stream."""
        return [
            (crossed.limit_id, crossed.ratio_ppm, crossed.used)
            for entry in await self._entries(shard)
            for crossed in entry.crossings
        ]

    async def state(self) -> object:
        """Return every key but the layout and the bare epochs, with its value."""
        found: dict[bytes, object] = {}
        client = self._client()
        async for key in client.scan_iter("{tg:0*"):
            match await client.type(key):
                case b"hash":
                    value = await client.hgetall(key)
                    if not set(value) <= keys.META_FIELDS:
                        found[key] = value
                case b"stream":
                    found[key] = await client.xrange(key)
                case b"zset":
                    found[key] = await client.zrange(key, 0, -1, withscores=True)
                case _:
                    found[key] = await client.get(key)
        return found

    def stages(self) -> CounterStages:
        """Return the stages, asked over the first source's connection."""
        self.store()
        return RedisCounterStages(self._client(), SHARDS)

    async def forget(self, source: str, last_seq: int) -> None:
        """Set the number back."""
        epoch = (await self.stages().epochs())[SHARD]
        name = numbered_in(SourceId(source), epoch)
        await self._client().hset(keys.meta(SHARD), name, str(last_seq))

    async def take_back(self, epoch: str) -> None:
        """Set the epoch back."""
        await self._client().hset(keys.meta(SHARD), "epoch", epoch)
        await self._client().hset(keys.meta(SHARD), "open", "1")

    async def _entries(self, shard: int) -> list[StreamEntry]:
        raw = cast(
            list[tuple[bytes, dict[bytes, bytes]]], await self._client().xrange(keys.stream(shard))
        )
        return [decode_entry(shard, id_.decode(), fields) for id_, fields in raw]

    def _client(self) -> Redis:
        return next(iter(self.clients.values()))


def gapless(seen: list[Seen]) -> dict[str, int]:
    """Return the last number of each source, once it is shown that none is missing or twice."""
    last: dict[str, int] = {}
    for each in seen:
        assert each.first_seq == last.get(each.source, 0) + 1
        last[each.source] = each.first_seq + each.count - 1
    return last


class OverFake:
    """Runs a contract over the fake."""

    @pytest.fixture
    def subject(self) -> Subject:
        """The fake."""
        made = FakeSubject()
        made.store()
        return made


class OverRedis:
    """Runs a contract over each Redis."""

    @pytest.fixture
    async def subject(self, redis_url: str) -> AsyncIterator[Subject]:
        """Stores over an empty Redis."""
        made = RedisSubject(redis_url)
        yield made
        for client in made.clients.values():
            await client.aclose()
