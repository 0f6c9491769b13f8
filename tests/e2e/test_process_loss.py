"""Processes of a group are killed, hung, drained and taken away: what was accepted counts once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import event_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, Load
from tests.e2e.groups import CONNECTIONS, each, labelled, ready, serving, usages, workers
from tests.e2e.processes import Server, Site, site
from tests.e2e.test_outage import TENANT, record
from tests.e2e.test_redis_loss import ledger
from tests.servers import eventually

# Each starts several processes, more than once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROCESSES = 3
LOADS = 4
ROUND = 20
SETTLE_S = 60.0


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis) -> AsyncIterator[Site]:
    """An installation that refuses nothing, whose Redis may be emptied."""
    file = catalogs.write(tmp_path, catalogs.OPEN)
    settings = {"redis_url": own_redis.url, "catalog": file, "redis_timeout_ms": 10_000}
    async with site(tmp_path, **settings) as place:
        yield place


async def start(place: Site, count: int = PROCESSES, **settings: object) -> Server:
    """Start a group on the installation's own folder; return it once it is ready."""
    given = {"data_dir": place.folder / "sidecar", **settings}
    server = await place.start("serve", "--processes", count, **given)
    await ready(server)
    return server


async def recorded(server: Server, first: int, count: int) -> None:
    """Record so many units over many connections, so that each process's journal has some."""
    async with usages(server.address) as stubs:

        async def call(number: int) -> int:
            stub = stubs[number % len(stubs)]
            reply = await stub.RecordUsage(record(first + number), timeout=CALL_TIMEOUT_S)
            return reply.durability

        assert await each(count, call) == {event_pb2.DURABILITY_JOURNAL: count}
        assert len(serving(server)) == len(workers(server))


async def whole(dsn: str, units: int) -> None:
    """Wait until the ledger has so many units, each event once."""

    async def has() -> bool:
        found, times = await ledger(dsn)
        assert set(times.values()) <= {1}
        return found == {TENANT: units}

    await eventually(has, SETTLE_S, what=f"the ledger has {units} units")


@pytest.mark.faults_long
@pytest.mark.parametrize(("leases", "kills"), [("off", 1), ("on", 1)])
async def test_killed_under_load(place: Site, postgres_dsn: str, leases: str, kills: int) -> None:
    """A process that is killed is replaced, and each answered call is in the ledger once."""
    await place.start("ingest", postgres_dsn=postgres_dsn)
    server = await start(place, leases=leases, lease_hot_per_s=1)
    loads = [Load(server.address, f"op-{number}", f"tenant-{number}") for number in range(LOADS)]
    killed = asyncio.Event()

    async def go_on(load: Load) -> None:
        while not killed.is_set():
            await load.send(ROUND)

    async with asyncio.TaskGroup() as sending:
        for load in loads:
            sending.create_task(go_on(load))
        for number in range(1, kills + 1):
            await _met(server, loads)
            serving(server)[-1].kill()

            async def replaced(number: int = number) -> bool:
                restarts = await labelled(server, "tallygate_process_restarts_total")
                return sum(restarts.values()) == number and len(workers(server)) == PROCESSES

            await eventually(replaced, SETTLE_S, what="another process in its place")
            await ready(server)
        killed.set()
    calls = sum(load.sent for load in loads)
    rows = Ledger(postgres_dsn)

    async def settled() -> bool:
        return await rows.count() >= calls

    await eventually(settled, SETTLE_S, what="the ledger has all calls")
    operations = await rows.operations()
    assert len(operations) == len(set(operations)) == calls
    assert set(operations) == {each for load in loads for each in load.answered}
    assert await server.terminate() == 0


async def _met(server: Server, loads: list[Load]) -> None:
    """Wait until every load has had answers, and a process is at work for them."""
    before = [len(load.answered) for load in loads]

    def met() -> bool:
        answered = all(len(load.answered) > one for load, one in zip(loads, before, strict=True))
        return answered and bool(serving(server))

    await eventually(met, SETTLE_S, what="calls are answered")


@pytest.mark.faults_long
async def test_a_hung_process_is_replaced(place: Site) -> None:
    """A process that does not say anything any more is ended, and another takes its place."""
    server = await start(place, 2, counter_rebuild="none", loop_stall_ms=5_000)
    hung = workers(server)[0]
    hung.suspend()

    async def replaced() -> bool:
        found = await labelled(server, "tallygate_process_restarts_total")
        return any("stalled" in labels for labels in found) and hung not in workers(server)

    await eventually(replaced, SETTLE_S, what="another process in its place")
    await ready(server)
    assert (await server.page("/livez"))[0] == 200


async def test_a_stop_drains_every_process(place: Site) -> None:
    """On SIGTERM calls in flight are answered, and all processes are gone with exit code 0."""
    server = await start(place, counter_rebuild="none")
    members = workers(server)
    async with usages(server.address) as stubs:
        calls = [
            asyncio.ensure_future(
                stubs[number % CONNECTIONS].RecordUsage(record(number), timeout=CALL_TIMEOUT_S)
            )
            for number in range(CONNECTIONS * 4)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert await server.terminate() == 0
        ends = await asyncio.gather(*calls, return_exceptions=True)
    accepted = [each for each in ends if not isinstance(each, BaseException)]
    assert accepted
    assert not [each for each in members if each.is_running()]
    assert server.process.err.count("process_killed") == 0


@pytest.mark.faults_long
async def test_processes_do_not_outlive_the_one_that_watches(place: Site) -> None:
    """Where it is killed, the others drain and end, and the port is free for the next group."""
    server = await start(place, counter_rebuild="none")
    members = workers(server)
    os.kill(server.process.child.pid, signal.SIGKILL)
    gone, alive = await asyncio.to_thread(psutil.wait_procs, members, SETTLE_S)
    assert len(gone) == PROCESSES
    assert not alive
    again = await start(place, counter_rebuild="none", grpc_address=server.address)
    assert again.address == server.address


@pytest.mark.faults_long
async def test_a_smaller_group_hands_in_what_a_larger_one_left(
    place: Site, own_redis: EmbeddedRedis, postgres_dsn: str
) -> None:
    """What only the journals of processes that are no more have gets into the ledger, once."""
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn)
    server = await start(place)
    await recorded(server, 0, CONNECTIONS)
    await whole(postgres_dsn, CONNECTIONS)
    # From now on nothing is ingested, and then Redis loses it.
    await ingest.process.kill()
    await recorded(server, CONNECTIONS, 4 * CONNECTIONS)
    assert await server.terminate() == 0
    async with Redis.from_url(own_redis.url) as client:
        await client.flushall()
    smaller = await start(place, 1)

    def all_there() -> bool:
        return len(workers(smaller)) == PROCESSES

    # A group is ready before those that hand in have started.
    await eventually(all_there, SETTLE_S, what="those that hand in")
    await place.start("ingest", postgres_dsn=postgres_dsn)
    await whole(postgres_dsn, 5 * CONNECTIONS)

    async def alone() -> bool:
        handing_in = await smaller.metric("tallygate_processes_handing_in")
        return not handing_in and len(workers(smaller)) == 1

    await eventually(alone, SETTLE_S, what="nothing is left to hand in")
    assert await smaller.terminate() == 0
    # It is not looked at again: one process is enough.
    single = await place.start("serve", data_dir=place.folder / "sidecar")
    assert not workers(single)
