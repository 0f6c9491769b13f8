"""A Redis Cluster of several servers, whose slots move and whose servers are replaced."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterEpochs
from tallygate.adapters.redis.posture import read_posture
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.decision import Decided
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import AccountId, EventId
from tallygate.ports import OperationKey
from tests.builders import SHARDS, check, consume, decided, used, window
from tests.faults.redis_cluster_parts import Nodes, cluster_nodes, migrate, slot_of
from tests.faults.redis_parts import TIMEOUT_MS, Rig, rig
from tests.servers import RedisBinary, eventually

pytestmark = pytest.mark.every_redis

LIMITS = [window(limit=1_000_000)]
# The first try, and what a client is told to do on UNAVAILABLE.
TRIES = 3
WORKERS = 4
CALLS_MIN = 25
READ_MAX = 100
BLOCK_MS = 20
FAILOVER_S = 30.0


@dataclass(slots=True)
class Load:
    """Workers that charge one unit after the other, on every shard, and retry as clients do."""

    store: Rig
    charged: Counter[int] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)
    failed: list[object] = field(default_factory=list)
    retried: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, worker: int) -> None:
        """Call until told to end, and at least `CALLS_MIN` times."""
        number = 0
        while number < CALLS_MIN or not self.ended.is_set():
            name = f"op-{worker}-{number}"
            shards = [(worker + number + each) % SHARDS for each in range(3)]
            await self.call([(shard, f"{name}-{shard}") for shard in dict.fromkeys(shards)])
            number += 1

    async def call(self, wanted: list[tuple[int, str]]) -> None:
        """Charge, and try again what failed, under the same id."""
        for attempt in range(TRIES):
            operations = [consume(LIMITS, 1, name, shard=shard) for shard, name in wanted]
            outcomes = await self.store.store.decide(operations)
            left = []
            for (shard, name), outcome in zip(wanted, outcomes, strict=True):
                if isinstance(outcome, Decided):
                    self.charged[shard] += 1
                    self.ids.add(name)
                else:
                    left.append((shard, name))
                    if attempt == TRIES - 1:
                        self.failed.append(outcome)
            self.retried += len(left)
            wanted = left
            if not wanted:
                return

    async def counted(self) -> Counter[int]:
        """Return what the counters say."""
        outcomes = await self.store.store.decide([check(LIMITS, shard=n) for n in range(SHARDS)])
        return Counter({shard: used(each)[0] for shard, each in enumerate(outcomes)})


@dataclass(slots=True)
class Reader:
    """A consumer as an ingester is one, which notes whose events it read."""

    stream: RedisUsageStream
    read: Counter[str] = field(default_factory=Counter)

    async def run(self, ended: asyncio.Event) -> None:
        """Read until told to end and nothing is left."""
        while await self.step(0) or not ended.is_set():
            pass

    async def step(self, idle_ms: int | None = None) -> int:
        """Read once, also what an interrupted read left behind; return how many entries."""
        try:
            entries = await self.stream.read(READ_MAX, BLOCK_MS)
            if not entries and idle_ms is not None:
                entries = await self.stream.claim(READ_MAX, idle_ms)
            await self.stream.acknowledge(entries)
        except BackendUnavailable:
            return 1
        self.read.update(str(event.operation_id) for entry in entries for event in entry.events)
        return len(entries)


@asynccontextmanager
async def reader(url: str) -> AsyncIterator[Reader]:
    """Open a consumer of all streams."""
    client = connect(url, TIMEOUT_MS)
    try:
        yield Reader(RedisUsageStream(client, StreamOptions(SHARDS, "one")))
    finally:
        await client.aclose()


@asynccontextmanager
async def loaded(it: Rig, consumer: Reader) -> AsyncIterator[Load]:
    """Charge and read while the block runs, then see that all is exact."""
    load, drained = Load(it), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(consumer.run(drained))
        working = [tasks.create_task(load.run(worker)) for worker in range(WORKERS)]
        try:
            yield load
        finally:
            load.ended.set()
        await asyncio.wait(working)
        # One empty read is no proof while slots move.
        await eventually(lambda: load.ids <= {*consumer.read}, what="all to be read")
        drained.set()
        await reading
    assert load.failed == []
    assert await load.counted() == load.charged
    assert set(consumer.read) == load.ids
    depths = await consumer.stream.depths()
    assert [each.entries for each in depths] == [0] * SHARDS


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes folders for servers."""
    return tmp_path_factory.mktemp


async def test_slots_move_under_load(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """While every slot moves from server to server, a retry cures all; nothing counts twice."""
    async with cluster_nodes(redis_binary, folder) as nodes, rig(nodes.url) as it:
        async with reader(nodes.url) as consumer, loaded(it, consumer):
            await nodes.reshard(SHARDS, rounds=2)
        assert it.tally.epochs == 0


@pytest.mark.faults_long
async def test_a_replica_takes_over_under_load(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """A failover that an operator asks for loses nothing, and needs no more than a retry."""
    async with cluster_nodes(redis_binary, folder, replicas=1) as nodes, rig(nodes.url) as it:
        epochs = RedisCounterEpochs(it.beside, SHARDS)
        life = await epochs.life()
        async with reader(nodes.url) as consumer, loaded(it, consumer) as load:
            await eventually(lambda: len(load.ids) > CALLS_MIN, what="calls")
            await nodes.all[-1].ask("CLUSTER", "FAILOVER")

            async def promoted() -> bool:
                return b"master" in (await nodes.all[-1].ask("ROLE"))[0]

            await eventually(promoted, FAILOVER_S, what="the replica's promotion")
        await eventually(lambda: _is_other(epochs, life), what="another life")


@pytest.mark.faults_long
async def test_a_server_is_killed_and_replaced(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """Only the killed server's shards fail; a replica that had everything goes on exactly."""
    async with cluster_nodes(redis_binary, folder, replicas=1) as nodes, rig(nodes.url) as it:
        lost = await _shards_of(nodes, 0)
        kept = sorted(set(range(SHARDS)) - set(lost))
        load = Load(it)
        await load.call([(shard, f"before-{shard}") for shard in range(SHARDS)])
        await eventually(lambda: _is_copied(nodes), what="the replica's data")
        await nodes.primaries[0].server.kill()
        await load.call([(shard, f"meanwhile-{shard}") for shard in kept])
        assert load.failed == []
        assert load.charged == Counter({n: 1 + (n in kept) for n in range(SHARDS)})

        async def served() -> bool:
            outcomes = await it.store.decide([check(LIMITS, shard=n) for n in lost])
            return all(isinstance(each, Decided) for each in outcomes)

        await eventually(served, FAILOVER_S, what="the shards on the replica")
        await load.call([(shard, f"before-{shard}") for shard in lost])
        assert await load.counted() == Counter({n: 1 + (n in kept) for n in range(SHARDS)})
        assert it.tally.epochs == 0


@pytest.mark.faults_long
async def test_a_server_without_replica_fails_its_own_shards(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """Calls to the other servers go on, in one batch with those that fail; a restart cures."""
    async with cluster_nodes(redis_binary, folder) as nodes, rig(nodes.url) as it:
        lost = await _shards_of(nodes, 1)
        operations = [consume(LIMITS, 1, f"op-{n}", shard=n) for n in range(SHARDS)]
        await it.store.decide(operations)
        await nodes.primaries[1].server.stop()
        outcomes = await it.store.decide([consume(LIMITS, 1, shard=n) for n in range(SHARDS)])
        assert [n for n, each in enumerate(outcomes) if not isinstance(each, Decided)] == lost
        assert all(isinstance(outcomes[n], BackendUnavailable) for n in lost)
        async with reader(nodes.url) as consumer:
            await eventually(consumer.step, what="entries of the servers that are there")
        await nodes.primaries[1].server.start()

        async def served() -> bool:
            return all(isinstance(each, Decided) for each in await it.store.decide(operations))

        await eventually(served, FAILOVER_S, what="the restarted server's shards")
        outcomes = await it.store.decide([check(LIMITS, shard=n) for n in range(SHARDS)])
        assert [used(each)[0] for each in outcomes] == [1 + (n not in lost) for n in range(SHARDS)]


async def test_a_slot_that_is_half_moved(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """What is there is found on either side; calls that need both wait for the move, unharmed."""
    async with cluster_nodes(redis_binary, folder) as nodes, rig(nodes.url) as it:
        [first] = await it.store.decide([consume(LIMITS, 1, "first", shard=3)])
        slot = slot_of(keys.meta(3))
        source = await nodes.owner(slot)
        to = next(node for node in nodes.primaries if node is not source)
        await nodes.begin_move(slot, source, to)
        moved = keys.account(3, await it.epoch(3), AccountId("acme"))
        await migrate(source, to, [moved.encode()])
        assert await it.beside.exists(moved)
        assert await it.beside.exists(keys.meta(3))
        with pytest.raises(Exception, match=r"moving|[Mm]ultiple keys"):
            async for _ in it.beside.scan_iter(keys.of_tenants(3, await it.epoch(3))):
                pass
        [refused] = await it.store.decide([consume(LIMITS, 1, "second", shard=3)])
        assert isinstance(refused, BackendUnavailable)
        assert str(refused) == "the Redis cluster is moving this slot"
        operation = consume(LIMITS, 1, "first", shard=3)
        assert operation.operation_id is not None
        event = OperationKey(3, operation.tenant_id, operation.operation_id, EventId("first"))
        with pytest.raises(BackendUnavailable, match="moving this slot"):
            await it.store.recorded(event)
        await nodes.move(slot, to)
        [again] = await it.store.decide([consume(LIMITS, 1, "first", shard=3)])
        assert decided(again).replayed
        [second] = await it.store.decide([consume(LIMITS, 1, "second", shard=3)])
        assert (used(first)[0], used(second)[0]) == (1, 2)
        names = [name async for name in it.beside.scan_iter(f"{keys.tag(3)}:*")]
        assert moved.encode() in names


@pytest.mark.faults_long
async def test_posture_is_that_of_the_worst(
    redis_binary: RedisBinary, folder: Callable[[str], Path]
) -> None:
    """One server that may evict is a cluster that may."""
    async with cluster_nodes(redis_binary, folder) as nodes, rig(nodes.url) as it:
        assert (await read_posture(it.beside))["noeviction"] == 1
        await nodes.primaries[2].client.config_set("maxmemory-policy", "allkeys-lru")
        assert (await read_posture(it.beside))["noeviction"] == 0


async def _shards_of(nodes: Nodes, place: int) -> list[int]:
    found = [await nodes.owner(slot_of(keys.meta(shard))) for shard in range(SHARDS)]
    return [shard for shard, node in enumerate(found) if node is nodes.primaries[place]]


async def _is_copied(nodes: Nodes) -> bool:
    facts: dict[str, object] = await nodes.primaries[0].client.info("replication")
    copied = await nodes.all[-1].client.info("replication")
    return bool(facts["master_repl_offset"] == copied["slave_repl_offset"])


async def _is_other(epochs: RedisCounterEpochs, life: str) -> bool:
    return await epochs.life() != life
