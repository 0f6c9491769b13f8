"""Processes that are stopped, killed and restarted under load: what was answered counts once."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, Load, consume, quota
from tests.e2e.processes import Server, Site, site, tallygate
from tests.servers import COMMAND_TIMEOUT_S, connection, eventually

SETTLE_S = 30.0
STATEMENT_MS = 1_500
QUICK_CLAIM = {
    "postgres_statement_timeout_ms": STATEMENT_MS,
    "ingest_claim_idle_ms": STATEMENT_MS + 1,
}
"""What a dead ingester held is taken over soon, and not only after a minute."""

SEED = 20_150_517
GROUP = "ledger"


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis) -> AsyncIterator[Site]:
    """An installation whose Redis may be stopped, serving the open catalog from a file."""
    file = catalogs.write(tmp_path, catalogs.OPEN)
    async with site(
        tmp_path, redis_url=own_redis.url, catalog=file, counter_rebuild="none"
    ) as place:
        yield place


async def ready(server: Server) -> None:
    """Wait until a sidecar has its catalog."""

    async def answers() -> bool:
        return (await server.page("/readyz"))[0] == 200

    await eventually(answers, SETTLE_S, what="a ready sidecar")


async def unacknowledged(url: str) -> int:
    """Return how many entries were read from the streams and not acknowledged."""
    client = Redis.from_url(url, socket_timeout=COMMAND_TIMEOUT_S)
    try:
        streams = [
            key async for key in client.scan_iter(_type="stream") if await client.xinfo_groups(key)
        ]
        return sum([(await client.xpending(key, GROUP))["pending"] for key in streams])
    finally:
        await client.aclose()


async def settle(ledger: Ledger, load: Load) -> None:
    """Wait for the ledger to hold what was answered, and hold it to each operation once."""

    async def complete() -> bool:
        return await ledger.count() >= len(load.answered)

    await eventually(complete, SETTLE_S, what="all answered calls in the ledger")
    assert sorted(await ledger.operations()) == sorted(load.answered)
    assert await ledger.rolled_up() == len(load.answered)
    assert await ledger.dead_letters() == {}


async def test_sigterm_answers_calls_in_flight(place: Site, own_redis: EmbeddedRedis) -> None:
    """A sidecar that is told to stop says so, answers the calls that it has, and exits with 0."""
    serve = await place.start("serve", redis_timeout_ms=int(CALL_TIMEOUT_S * 1000))
    await ready(serve)
    calls = 20
    async with quota(serve.address) as stub:
        await stub.CheckAndConsume(consume("first"), timeout=CALL_TIMEOUT_S)
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            waiting = [
                asyncio.ensure_future(
                    stub.CheckAndConsume(consume(f"held-{n}"), timeout=CALL_TIMEOUT_S)
                )
                for n in range(calls)
            ]

            async def in_flight() -> bool:
                return await serve.metric("tallygate_rpc_in_flight") == calls

            await eventually(in_flight, what="calls in flight")
            serve.process.send(signal.SIGTERM)

            async def draining() -> bool:
                status, text = await serve.page("/readyz?verbose")
                return status == 503 and "process: draining" in text

            await eventually(draining, what="a draining sidecar")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        replies = await asyncio.gather(*waiting)
    assert all(reply.allowed for reply in replies)
    async with asyncio.timeout(SETTLE_S):
        assert await serve.process.ended() == 0


async def test_sigterm_under_load_loses_nothing(place: Site, postgres_dsn: str) -> None:
    """Sidecar and ingester stop with 0 in the middle of a load; their successors finish it."""
    socket = f"unix:{place.folder}/serve.sock"
    serve = await place.start("serve", grpc_address=socket)
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)
    await ready(serve)
    load, ledger = Load(socket, "term"), Ledger(postgres_dsn)
    sending = asyncio.create_task(load.send(1_500))
    await eventually(lambda: len(load.answered) > 300, SETTLE_S, what="a load under way")
    assert await serve.terminate() == 0
    assert await ingest.terminate() == 0
    assert not sending.done()
    await place.start("serve", grpc_address=socket)
    await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)
    await sending
    await settle(ledger, load)


async def test_sigterm_refuses_late_calls_as_unavailable(place: Site) -> None:
    """A call that comes while a sidecar stops is UNAVAILABLE, which clients send again.

    What grpcio has received but not handed over when it closes is CANCELLED, and was not decided.
    """
    socket = f"unix:{place.folder}/serve.sock"
    serve = await place.start("serve", grpc_address=socket)
    await ready(serve)
    load = Load(socket, "late")
    sending = asyncio.create_task(load.send(1_000))
    await eventually(lambda: len(load.answered) > 200, SETTLE_S, what="a load under way")
    assert await serve.terminate() == 0
    assert not sending.done()
    await place.start("serve", grpc_address=socket)
    await sending
    assert grpc.StatusCode.UNAVAILABLE in load.failures
    assert {*load.failures} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert load.decided_after[grpc.StatusCode.CANCELLED] == 0


async def answered(load: Load, count: int) -> None:
    """Wait until more than so many operations are answered."""
    await eventually(lambda: len(load.answered) > count, SETTLE_S, what="a load under way")


async def test_sigkill_right_after_sigterm_loses_nothing(place: Site, postgres_dsn: str) -> None:
    """With no grace at all, what was answered is kept, and what was not is answered on a retry."""
    socket = f"unix:{place.folder}/serve.sock"
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)
    serve = await place.start("serve", grpc_address=socket)
    await ready(serve)
    load, ledger = Load(socket, "grace"), Ledger(postgres_dsn)
    sending = asyncio.create_task(load.send(900))
    for enough in (200, 400):
        await answered(load, enough)
        serve.process.send(signal.SIGTERM)
        await serve.process.kill()
        # The path is free at once: a dead process holds no lock.
        serve = await place.start("serve", grpc_address=socket)
    await sending
    await settle(ledger, load)
    assert {*load.failures} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert await ingest.terminate() == 0


async def held_table(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Take the ledger's events for ourselves, until the connection is closed."""
    opened = await asyncpg.connect(dsn, timeout=COMMAND_TIMEOUT_S)
    await opened.execute("begin")
    await opened.execute("lock table tallygate.usage_event in access exclusive mode")
    return opened


@pytest.mark.slow
async def test_kill_between_commit_and_acknowledgement(
    place: Site, own_redis: EmbeddedRedis, postgres_dsn: str
) -> None:
    """What was committed and never acknowledged is given out again, and counted once."""
    serve = await place.start("serve")
    await ready(serve)
    load, ledger = Load(serve.address, "seam"), Ledger(postgres_dsn)
    await load.send(200)
    holder = await held_table(postgres_dsn)
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)

    async def blocked() -> bool:
        async with connection(postgres_dsn) as opened:
            return bool(
                await opened.fetchval("select exists(select from pg_locks where not granted)")
            )

    await eventually(blocked, SETTLE_S, what="an ingester in its transaction")
    # From here on it cannot acknowledge; then it may commit.
    await own_redis.stop()
    await holder.close()

    async def committed() -> bool:
        return await ledger.count() == len(load.answered)

    await eventually(committed, SETTLE_S, what="a commit without its acknowledgement")
    await ingest.process.kill()
    await own_redis.start()
    assert await unacknowledged(own_redis.url) > 0
    successor = await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)

    async def taken_over() -> bool:
        return await unacknowledged(own_redis.url) == 0

    await eventually(taken_over, SETTLE_S, what="entries of the dead ingester")
    await settle(ledger, load)
    assert await successor.terminate() == 0


@pytest.mark.faults_long
@pytest.mark.slow
async def test_killed_ingester_beside_another(place: Site, postgres_dsn: str) -> None:
    """Two ingesters share the streams; one is killed again and again, and nothing is missing."""
    serve = await place.start("serve")
    await ready(serve)
    settings: dict[str, Any] = {"postgres_dsn": postgres_dsn, **QUICK_CLAIM}
    survivor = await place.start("ingest", **settings)
    victim = await place.start("ingest", **settings)
    load, ledger = Load(serve.address, "kill"), Ledger(postgres_dsn)
    count, kills = 2_000, 2
    sending = asyncio.create_task(load.send(count))
    chance = random.Random(SEED)
    shared = 0.0
    for turn in range(kills):
        moment = count * turn // (kills + 1) + chance.randrange(count // (kills + 1))

        async def reached(least: int = moment) -> bool:
            return await ledger.count() >= least

        async def works(process: Server = victim) -> bool:
            return sending.done() or await process.metric("tallygate_events_persisted_total") > 0

        await eventually(reached, SETTLE_S, what=f"{moment} events")
        await eventually(works, SETTLE_S, what="a share of the load")
        shared += await victim.metric("tallygate_events_persisted_total")
        await victim.process.kill()
        victim = await place.start("ingest", **settings)
    await sending
    await settle(ledger, load)
    assert shared > 0
    assert await survivor.metric("tallygate_events_persisted_total") > 0


async def test_killed_sidecar_under_load(place: Site, postgres_dsn: str) -> None:
    """A sidecar killed under load has told of nothing that the ledger does not get, once."""
    socket = f"unix:{place.folder}/serve.sock"
    serve = await place.start("serve", grpc_address=socket)
    await place.start("ingest", postgres_dsn=postgres_dsn)
    await ready(serve)
    load, ledger = Load(socket, "crash"), Ledger(postgres_dsn)
    sending = asyncio.create_task(load.send(1_000))
    await eventually(lambda: len(load.answered) > 200, SETTLE_S, what="a load under way")
    await serve.process.kill()
    assert not sending.done()
    await place.start("serve", grpc_address=socket)
    await sending
    assert load.failures
    await settle(ledger, load)


@pytest.mark.faults_long
async def test_redis_restart_under_load(
    place: Site, own_redis: EmbeddedRedis, postgres_dsn: str
) -> None:
    """After a restart of Redis under load, the ledger is what was answered."""
    serve = await place.start("serve")
    await place.start("ingest", postgres_dsn=postgres_dsn, **QUICK_CLAIM)
    await ready(serve)
    load, ledger = Load(serve.address, "redis"), Ledger(postgres_dsn)
    sending = asyncio.create_task(load.send(1_500))
    await eventually(lambda: len(load.answered) > 300, SETTLE_S, what="a load under way")
    await own_redis.restart()
    assert not sending.done()
    await sending
    assert load.failures
    await settle(ledger, load)


@pytest.mark.faults_long
async def test_postgres_restart_under_load(place: Site, own_postgres: EmbeddedPostgres) -> None:
    """While Postgres is away calls are answered; when it is back the ledger gets them all."""
    dsn = own_postgres.dsn
    assert (await tallygate("migrate", postgres_dsn=dsn)).code == 0
    serve = await place.start("serve")
    await place.start("ingest", postgres_dsn=dsn)
    await ready(serve)
    load, ledger = Load(serve.address, "postgres"), Ledger(dsn)

    async def begun() -> bool:
        return await ledger.count() > 0

    await load.send(100)
    await eventually(begun, SETTLE_S, what="a ledger under way")
    sending = asyncio.create_task(load.send(1_000))
    await own_postgres.stop()
    await sending
    assert not load.failures
    await own_postgres.start()
    await settle(ledger, load)


async def test_call_after_drain_is_refused(place: Site) -> None:
    """A sidecar that has stopped leaves its socket to nobody: calls are UNAVAILABLE."""
    socket = f"unix:{place.folder}/serve.sock"
    serve = await place.start("serve", grpc_address=socket)
    await ready(serve)
    assert await serve.terminate() == 0
    async with quota(socket) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CheckAndConsume(consume("late"), timeout=CALL_TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
