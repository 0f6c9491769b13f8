"""Real processes on a Redis Cluster whose slots move, and of which one server loses its data."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e import catalogs
from tests.e2e.processes import Server, Site, site, tallygate
from tests.e2e.test_redis_loss import LIMIT, SETTLE_S, Callers, decides, ledger, used
from tests.faults.redis_cluster_parts import Nodes, cluster_nodes
from tests.servers import RedisBinary, eventually

SHARDS = 16

pytestmark = pytest.mark.faults_long


@pytest.fixture
async def nodes(
    redis_binary: RedisBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nodes]:
    """A cluster for the test alone."""
    async with cluster_nodes(redis_binary, tmp_path_factory.mktemp) as nodes:
        yield nodes


@pytest.fixture
async def place(tmp_path: Path, nodes: Nodes, postgres_dsn: str) -> AsyncIterator[Site]:
    """An installation with a hard limit."""
    file = catalogs.write(tmp_path, catalogs.limited(LIMIT))
    async with site(tmp_path, redis_url=nodes.url) as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        await place.start("ingest", postgres_dsn=postgres_dsn)
        applied = await tallygate("apply", "-f", file, "--control-address", control.address)
        assert applied.code == 0, applied.err + applied.out
        yield place


@asynccontextmanager
async def exact(servers: list[Server], nodes: Nodes, postgres_dsn: str) -> AsyncIterator[Callers]:
    """Call while the block runs, and see that nothing was lost, given twice or given too much."""
    callers = Callers([each.address for each in servers])
    calling = asyncio.create_task(callers.run())
    await callers.enough.wait()
    yield callers
    for each in servers:
        await decides(each)
    callers.ending = True
    async with asyncio.timeout(SETTLE_S):
        await calling

    async def settled() -> bool:
        units, _ = await ledger(postgres_dsn)
        return units == await used(servers[0])

    await eventually(settled, SETTLE_S, what="counters that equal the ledger")
    units, operations = await ledger(postgres_dsn)
    assert set(operations.values()) == {1}
    assert callers.granted.keys() <= operations.keys()
    assert max(units.values()) <= LIMIT
    verified = await tallygate("verify", redis_url=nodes.url, postgres_dsn=postgres_dsn)
    assert verified.code == 0, verified.out + verified.err


async def test_slots_move_under_processes(place: Site, nodes: Nodes, postgres_dsn: str) -> None:
    """Sidecars and an ingester go on while every shard moves; limit and ledger stay exact."""
    servers = [await place.start("serve"), await place.start("serve")]
    for each in servers:
        await decides(each)
    async with exact(servers, nodes, postgres_dsn):
        await nodes.reshard(SHARDS, rounds=2)


async def test_a_server_is_emptied_under_processes(
    place: Site, nodes: Nodes, postgres_dsn: str
) -> None:
    """The shards of a server that lost its data are counted anew from the ledger."""
    servers = [await place.start("serve"), await place.start("serve")]
    for each in servers:
        await decides(each)
    async with exact(servers, nodes, postgres_dsn):
        await nodes.primaries[1].client.flushall()
