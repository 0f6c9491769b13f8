"""A sidecar that grants from leases is killed: what it had granted is counted and billed once."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tallygate.gen.v1 import quota_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, Load, quota
from tests.e2e.processes import Server, Site, site
from tests.e2e.test_redis_loss import decides
from tests.servers import eventually

TENANT = "acme"
KILLS = 3
CALLS = 1_500
SETTLE_S = 30.0


@pytest.fixture
async def place(tmp_path: Path, redis_url: str, postgres_dsn: str) -> AsyncIterator[Site]:
    """An installation with a hard limit that no call passes, and an ingester."""
    file = catalogs.write(tmp_path, catalogs.OPEN)
    async with site(tmp_path, redis_url=redis_url, catalog=file) as place:
        await place.start("ingest", postgres_dsn=postgres_dsn)
        yield place


async def used(server: Server) -> int:
    """Return what the counter says."""
    async with quota(server.address) as stub:
        request = quota_pb2.GetQuotaRequest(tenant_id=TENANT)
        return (await stub.GetQuota(request, timeout=CALL_TIMEOUT_S)).limits[0].used


@pytest.mark.faults_long
async def test_killed_while_it_grants(place: Site, postgres_dsn: str, tmp_path: Path) -> None:
    """Each answered call is in the ledger once, and the counter ends at what the ledger has."""
    settings: dict[str, Any] = {
        "data_dir": tmp_path / "sidecar",
        "leases": "on",
    }
    serve = await place.start("serve", **settings)
    settings["grpc_address"] = serve.address
    await decides(serve)
    load = Load(serve.address, "op", TENANT)
    leased = 0.0
    for number in range(KILLS):
        before = len(load.answered)
        sending = asyncio.create_task(load.send(CALLS))
        enough = before + random.Random(number).randrange(CALLS // 2, CALLS - 200)

        def reached(enough: int = enough) -> bool:
            return len(load.answered) >= enough

        await eventually(reached, SETTLE_S, what="calls before the kill")
        leased += await serve.metric("tallygate_lease_grants_total")
        await serve.process.kill()
        serve = await place.start("serve", **settings)
        async with asyncio.timeout(SETTLE_S):
            await sending
    assert leased > 0
    ledger = Ledger(postgres_dsn)

    async def settled() -> bool:
        return await ledger.count() == KILLS * CALLS == await used(serve)

    await eventually(settled, SETTLE_S, what="a counter that equals the ledger")
    assert len(set(await ledger.operations())) == KILLS * CALLS == len(set(load.answered))
