"""The quota store on a Redis that has a bad day."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.domain.decision import Broken
from tallygate.domain.errors import BackendUnavailable, StorageFault, TallygateError
from tallygate.domain.ids import AccountId, TenantId
from tests.builders import SHARDS, check, consume, decided, rate, used, window
from tests.faults.redis_parts import SHARD, rig
from tests.servers import RedisBinary, eventually

pytestmark = pytest.mark.every_redis

LIMITS = [window(limit=1_000, warn_at_ppm=(500_000,)), rate(limit=500)]


async def test_lost_scripts_heal_inside_a_pipeline(redis_url: str) -> None:
    """A server that forgot the script decides every shard of the same call, once each."""
    async with rig(redis_url) as it:
        for turn in range(1, 4):
            await it.beside.script_flush()
            outcomes = await it.store.decide(
                [consume(LIMITS, shard=n % SHARDS) for n in range(3 * SHARDS)]
            )
            assert [used(each)[0] for each in outcomes[-SHARDS:]] == [3 * turn] * SHARDS
            assert it.tally.reloads == turn
        assert [await it.stream_length(shard) for shard in range(SHARDS)] == [3] * SHARDS


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_restart_loses_nothing_and_charges_once(own_redis: EmbeddedRedis, way: str) -> None:
    """After a restart, clean or not, counters stand and a retry is answered from its record."""
    async with rig(own_redis.url) as it:
        [first] = await it.store.decide([consume(LIMITS, 7, "op")])
        await getattr(own_redis, way)()
        [down] = await it.store.decide([consume(LIMITS, 1, "other")])
        assert isinstance(down, BackendUnavailable)
        await own_redis.start()
        again, other = await it.store.decide(
            [consume(LIMITS, 7, "op"), consume(LIMITS, 1, "other")]
        )
        assert replace(decided(again), replayed=False) == first
        assert decided(again).replayed
        assert used(other)[0] == 8
        assert await it.stream_length() == 2
        assert it.tally.epochs == 0


async def test_a_connection_that_was_cut_is_made_anew(redis_url: str) -> None:
    """An idle connection that the server closed costs the caller nothing."""
    async with rig(redis_url) as it:
        await it.store.decide([consume(LIMITS, 1, "one")])
        await it.beside.client_kill_filter(_type="normal", skipme=True)
        [outcome] = await it.store.decide([consume(LIMITS, 1, "two")])
        assert used(outcome)[0] == 2


async def test_an_emptied_redis_is_another_epoch(redis_url: str) -> None:
    """After FLUSHALL the same call adopts a new epoch per shard, and tells of each loss."""
    async with rig(redis_url) as it:
        before = await it.beside.hget(keys.meta(SHARD), "epoch")
        await it.store.decide([consume(LIMITS, 7, shard=n) for n in range(SHARDS)])
        await it.beside.flushall()
        outcomes = await it.store.decide([consume(LIMITS, 1, shard=n) for n in range(SHARDS)])
        assert [used(each)[0] for each in outcomes] == [1] * SHARDS
        assert [decided(each).first_seq for each in outcomes] == [1] * SHARDS
        assert it.tally.epochs == SHARDS
        assert await it.beside.hget(keys.meta(SHARD), "epoch") not in (None, before)
        assert await it.beside.get(keys.layout()) == str(SHARDS).encode()


async def test_two_stores_agree_on_the_new_epoch(redis_url: str) -> None:
    """Whoever comes first makes the epoch; the other counts on in it."""
    async with rig(redis_url) as one, rig(redis_url, source="b") as two:
        await one.beside.flushall()
        [first] = await one.store.decide([consume(LIMITS, 2)])
        [second] = await two.store.decide([consume(LIMITS, 3)])
        assert (used(first)[0], used(second)[0]) == (2, 5)


async def test_a_redis_of_another_layout_is_a_fault_and_no_exception(redis_url: str) -> None:
    """A Redis that came back with another number of shards decides nothing, and says so."""
    async with rig(redis_url) as it:
        await it.store.decide([consume(LIMITS)])
        await it.beside.flushall()
        await it.beside.set(keys.layout(), SHARDS * 2)
        outcomes = await it.store.decide([consume(LIMITS), consume(LIMITS, shard=SHARD + 1)])
        assert all(isinstance(each, TallygateError) for each in outcomes)
        assert await it.stream_length() == 0


async def test_out_of_memory_is_said_and_leaves_nothing_half_done(redis_url: str) -> None:
    """A full Redis refuses the whole call; what was stored stays byte for byte."""
    async with rig(redis_url) as it:
        await it.store.decide([consume(LIMITS, 2, "op")])
        before = await it.stored()
        await it.beside.config_set("maxmemory", "1")
        try:
            outcomes = await it.store.decide(
                [consume(LIMITS, 1, f"new-{n}", shard=SHARD + n % 2) for n in range(4)]
            )
        finally:
            await it.beside.config_set("maxmemory", "0")
        assert all(isinstance(each, BackendUnavailable) for each in outcomes)
        assert {str(each) for each in outcomes} == {"Redis is out of memory and refuses writes"}
        assert await it.stored() == before
        [later] = await it.store.decide([consume(LIMITS, 1, "new-0")])
        assert used(later)[0] == 3
        assert not decided(later).replayed


async def test_a_replica_refuses_and_says_so(own_redis: EmbeddedRedis) -> None:
    """A server that was demoted answers unavailable, and serves again once it is promoted."""
    async with rig(own_redis.url) as it:
        await it.store.decide([consume(LIMITS, 2, "op")])
        # A port that nobody listens on: the server is a replica that has lost its master.
        await it.beside.replicaof("127.0.0.1", "1")
        [refused] = await it.store.decide([consume(LIMITS, 1, "new")])
        assert isinstance(refused, BackendUnavailable)
        await it.beside.replicaof("NO", "ONE")
        [later] = await it.store.decide([consume(LIMITS, 1, "new")])
        assert used(later)[0] == 3


@pytest.mark.parametrize("what", ["a string", "a list", "a counter that is none"])
async def test_a_broken_account_harms_only_its_tenant(redis_url: str, what: str) -> None:
    """A foreign value at one tenant's key is that tenant's fault alone, in any order."""
    async with rig(redis_url) as it:
        key = keys.account(SHARD, await it.epoch(), AccountId("bad"))
        match what:
            case "a string":
                await it.beside.set(key, "x")
            case "a list":
                await it.beside.rpush(key, "x")
            case _:
                await it.beside.hset(key, "monthly/month", "1:2")
        bad = consume(LIMITS, 1, "op", tenant_id=TenantId("bad"))
        for neighbours in range(1, 3):
            outcomes = await it.store.decide([consume(LIMITS), bad, consume(LIMITS), bad])
            assert [type(outcomes[n]) for n in (1, 3)] == [Broken, Broken]
            assert [used(outcomes[n])[0] for n in (0, 2)] == [2 * neighbours - 1, 2 * neighbours]
        assert await it.stream_length() == 2


async def test_a_broken_record_harms_only_its_operation(redis_url: str) -> None:
    """A foreign value at one operation's key leaves the tenant's other calls alone."""
    async with rig(redis_url) as it:
        for name, value in (("text", "x"), ("half", "f;G;")):
            operation = consume(LIMITS, 1, name)
            assert operation.operation_id is not None
            names = (operation.tenant_id, operation.operation_id)
            key = keys.operation(SHARD, await it.epoch(), *names)
            await it.beside.set(key, value)
            bad, good = await it.store.decide([operation, consume(LIMITS)])
            assert isinstance(bad, Broken)
            assert decided(good).allowed


async def test_a_broken_stream_changes_nothing(redis_url: str) -> None:
    """When the entry cannot be written, no counter is; other shards are served."""
    async with rig(redis_url) as it:
        await it.store.decide([consume(LIMITS, 2)])
        await it.beside.delete(keys.stream(SHARD))
        await it.beside.set(keys.stream(SHARD), "x")
        before = await it.stored()
        bad, good = await it.store.decide(
            [consume(LIMITS, 1, "op"), consume(LIMITS, 1, shard=SHARD + 1)]
        )
        assert isinstance(bad, StorageFault)
        assert decided(good).allowed
        after = await it.stored()
        assert {key: after[key] for key in before if key.startswith(b"{tg:03}")} == {
            key: value for key, value in before.items() if key.startswith(b"{tg:03}")
        }


async def test_a_stalled_server_is_given_up_in_time(own_redis: EmbeddedRedis) -> None:
    """A server that is there but silent costs one timeout; the retry is charged at most once."""
    async with rig(own_redis.url, timeout_ms=300) as it:
        await it.store.decide([consume(LIMITS, 2)])
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            [silent] = await it.store.decide([consume(LIMITS, 1, "op")])
            elapsed_s = time.monotonic() - started
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert isinstance(silent, BackendUnavailable)
        assert elapsed_s < 1.0
        first, second = [(await it.store.decide([consume(LIMITS, 1, "op")]))[0] for _ in range(2)]
        assert replace(decided(first), replayed=True) == second
        [stands] = await it.store.decide([check(LIMITS)])
        assert used(stands)[0] == 3
        assert await it.stream_length() == 2


async def command(client: Redis, *words: object) -> object:
    """Send a command that redis-py has no typed method for."""
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def cluster(server: EmbeddedRedis) -> AsyncIterator[str]:
    """Start a server, give it every slot, and wait until it serves them."""
    async with server:
        client = connect(server.url, 2_000)
        try:
            await command(client, "CLUSTER", "ADDSLOTS", *range(16_384))

            async def serves() -> bool:
                state = await command(client, "CLUSTER", "INFO")
                return "cluster_state:ok" in str(state)

            await eventually(serves, what="the cluster's state")
            with pytest.raises(RedisError, match=r"CROSSSLOT|same slot"):
                await command(client, "DEL", "one", "two")
            yield server.url
        finally:
            await client.aclose()


async def test_cluster_mode_runs_the_script(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every key of a call lies in one slot: no CROSSSLOT over many shards and tenants."""
    server = EmbeddedRedis(
        tmp_path_factory.mktemp("cluster"),
        binary=redis_binary.path,
        tcp_port=0,
        options=("--cluster-enabled", "yes"),
    )
    async with cluster(server) as url, rig(url) as it:
        names = [TenantId(name) for name in ("acme", "{x}", "}{", "ümläut", "{tg:05}")]
        operations = [
            consume(LIMITS, 1, f"op-{n}", shard=n % SHARDS, tenant_id=names[n % len(names)])
            for n in range(10 * SHARDS)
        ]
        outcomes = await it.store.decide(operations)
        assert all(decided(each).allowed for each in outcomes)
        again = await it.store.decide(operations)
        assert all(decided(each).replayed for each in again)
