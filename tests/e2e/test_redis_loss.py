"""Redis emptied under the load of real processes: strict limits hold, and counters come back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, LOST, consume, quota
from tests.e2e.processes import Server, Site, site
from tests.servers import COMMAND_TIMEOUT_S, connection, eventually

LIMIT = 150
TENANTS = [f"tenant-{number}" for number in range(8)]
CALLERS = 12
SETTLE_S = 60.0


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis, postgres_dsn: str) -> AsyncIterator[Site]:
    """An installation with a hard limit, whose Redis may be emptied."""
    file = catalogs.write(tmp_path, catalogs.limited(LIMIT))
    async with site(tmp_path, redis_url=own_redis.url, catalog=file) as place:
        yield place


@dataclass(slots=True)
class Callers:
    """Who ask, each again with the same id until it is answered, until every tenant is refused."""

    addresses: list[str]
    granted: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    # What is refused while others' units may come back is refused for good only once told to end.
    ending: bool = False
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: "count[int]" = field(default_factory=count)

    async def run(self) -> None:
        """Call from all callers at once."""
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self._call_all(self.addresses[number % len(self.addresses)]))

    async def _call_all(self, address: str) -> None:
        async with quota(address) as stub:
            while len(self.refused) < len(TENANTS):
                number = next(self.numbers)
                tenant = TENANTS[number % len(TENANTS)]
                reply = None
                while reply is None:
                    reply = await _tried(stub, f"op-{number}", tenant)
                if reply.allowed:
                    self.granted[f"op-{number}"] = tenant
                elif self.ending:
                    self.refused.add(tenant)
                if len(self.granted) >= LIMIT * len(TENANTS) // 3:
                    self.enough.set()


async def _tried(
    stub: "quota_pb2_grpc.QuotaServiceAsyncStub", name: str, tenant: str
) -> quota_pb2.CheckAndConsumeResponse | None:
    try:
        return await stub.CheckAndConsume(consume(name, 1, tenant), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() not in LOST:
            raise
        return None


async def decides(server: Server) -> None:
    """Wait until a sidecar decides by its counters."""

    async def answers() -> bool:
        async with quota(server.address) as stub:
            request = quota_pb2.CheckRequest(tenant_id=TENANTS[0])
            request.items.add(meter="requests", amount=1)
            try:
                await stub.Check(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                # A limit of which nothing is known refuses in an outage.
                return False
            return True

    await eventually(answers, SETTLE_S, what="a sidecar that decides")


async def used(server: Server) -> dict[str, int]:
    """Return what the counters say was used."""
    found: dict[str, int] = {}
    async with quota(server.address) as stub:
        for tenant in TENANTS:
            request = quota_pb2.GetQuotaRequest(tenant_id=tenant)
            (limit,) = (await stub.GetQuota(request, timeout=CALL_TIMEOUT_S)).limits
            found[tenant] = limit.used
    return found


async def ledger(dsn: str) -> tuple[dict[str, int], Counter[str]]:
    """Return the units of each tenant, and how often each operation is there."""
    async with connection(dsn) as admin:
        rows = await admin.fetch(
            "select tenant_id, operation_id, amount from tallygate.usage_event"
        )
    units: Counter[str] = Counter()
    for row in rows:
        units[row["tenant_id"]] += row["amount"]
    return dict(units), Counter(row["operation_id"] for row in rows)


@pytest.mark.faults_long
async def test_emptied_under_load(place: Site, own_redis: EmbeddedRedis, postgres_dsn: str) -> None:
    """No tenant gets more than its limit, nothing granted is lost, counters equal the ledger."""
    ingest = await place.start("ingest", postgres_dsn=postgres_dsn)
    one, other = await place.start("serve"), await place.start("serve")
    await decides(one)
    await decides(other)
    callers = Callers([one.address, other.address])
    calling = asyncio.create_task(callers.run())
    await callers.enough.wait()

    async def known() -> bool:
        units, _ = await ledger(postgres_dsn)
        return units.keys() >= set(TENANTS)

    await eventually(known, SETTLE_S, what="a ledger that has something of every tenant")
    client = Redis.from_url(own_redis.url, socket_timeout=COMMAND_TIMEOUT_S)
    try:
        await client.flushall()
    finally:
        await client.aclose()
    await decides(other)
    callers.ending = True
    async with asyncio.timeout(SETTLE_S):
        await calling

    async def settled() -> bool:
        units, _ = await ledger(postgres_dsn)
        return units == await used(other)

    await eventually(settled, SETTLE_S, what="counters that equal the ledger")
    units, operations = await ledger(postgres_dsn)
    assert set(operations.values()) == {1}
    assert callers.granted.keys() <= operations.keys()
    assert max(units.values()) <= LIMIT
    assert await ingest.metric("tallygate_quota_accounts_rebuilt_total") >= len(TENANTS)
