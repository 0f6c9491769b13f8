"""Redis emptied under the load of real processes that use up prepaid credits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, LOST, consume, quota
from tests.e2e.processes import Server, site, tallygate
from tests.servers import COMMAND_TIMEOUT_S, connection, eventually

GRANTED = 1_000
CALLERS = 8
OPERATIONS = 300
SETTLE_S = 30.0
CATALOG = """\
version: 1
meters:
  requests: {aggregation: sum, unit: request}
plans:
  prepaid:
    limits:
      - {id: credits, meter: requests, kind: balance, overdraft: OVERDRAFT}
tenants:
  acme: {plan: prepaid}
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """A whole installation."""

    serve: Server
    control: Server
    redis: EmbeddedRedis
    settings: dict[str, Any]

    async def empty(self) -> None:
        """Empty Redis."""
        client = Redis.from_url(self.redis.url, socket_timeout=COMMAND_TIMEOUT_S)
        try:
            await client.flushall()
        finally:
            await client.aclose()

    async def used(self) -> int:
        """Return the units that the counters say are gone; -1 while nobody knows."""
        async with quota(self.serve.address) as stub:
            request = quota_pb2.GetQuotaRequest(tenant_id="acme")
            try:
                (limit,) = (await stub.GetQuota(request, timeout=CALL_TIMEOUT_S)).limits
            except grpc.aio.AioRpcError as error:
                if error.code() not in LOST:
                    raise
                return -1
            return limit.used

    async def books(self) -> dict[str, int]:
        """Return what the books have of each account."""
        async with connection(self.settings["postgres_dsn"]) as admin:
            rows = await admin.fetch("select account, balance from tallygate.credit_account")
        return {row["account"]: int(row["balance"]) for row in rows}

    async def operations(self) -> Counter[str]:
        """Return how often the ledger has each operation."""
        async with connection(self.settings["postgres_dsn"]) as admin:
            rows = await admin.fetch("select operation_id from tallygate.usage_event")
        return Counter(row["operation_id"] for row in rows)


@dataclass(slots=True)
class Spenders:
    """Callers that use a credit a call, each again with the same id until it is granted."""

    address: str
    granted: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)

    async def spend(self, operations: int) -> None:
        """Spend so many credits from several callers at once."""
        names = iter([f"op-{number}" for number in range(operations)])
        async with quota(self.address) as stub, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._all(stub, names))

    async def _all(self, stub: "quota_pb2_grpc.QuotaServiceAsyncStub", names: Any) -> None:
        for name in names:
            while name not in self.granted:
                try:
                    reply = await stub.CheckAndConsume(
                        consume(name, 1, "acme"), timeout=CALL_TIMEOUT_S
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() not in LOST:
                        raise
                    continue
                if reply.allowed:
                    self.granted.add(name)
                else:
                    self.refused[name] += 1


@pytest.fixture(
    params=[
        pytest.param(0, id="prepaid"),
        pytest.param(50, id="overdraft", marks=pytest.mark.faults_long),
    ]
)
async def parts(
    request: pytest.FixtureRequest, tmp_path: Path, own_redis: EmbeddedRedis, postgres_dsn: str
) -> AsyncIterator[Parts]:
    """A sidecar, an ingester and a control; acme has credits that its counters know of."""
    text = CATALOG.replace("OVERDRAFT", str(request.param))
    settings: dict[str, Any] = {"redis_url": own_redis.url, "postgres_dsn": postgres_dsn}
    async with site(tmp_path, redis_url=own_redis.url) as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        await place.start("ingest", postgres_dsn=postgres_dsn)
        serve = await place.start("serve")
        to = ("--control-address", control.address)
        applied = await tallygate("apply", "-f", catalogs.write(tmp_path, text), *to)
        assert applied.code == 0, applied.err + applied.out
        grant = ("credit", "grant", "acme", "credits", GRANTED, "--id", "one", *to)
        assert (await tallygate(*grant)).code == 0
        found = Parts(serve, control, own_redis, settings)
        yield found


async def test_emptied_while_credits_are_spent(parts: Parts) -> None:
    """Each operation is in the ledger once and took one unit of the grant; `verify` agrees."""
    spenders = Spenders(parts.serve.address)
    spending = asyncio.create_task(spenders.spend(OPERATIONS))
    await eventually(
        lambda: spending.done() or len(spenders.granted) > OPERATIONS // 3,
        SETTLE_S,
        what="calls before the loss",
    )
    await parts.empty()
    async with asyncio.timeout(SETTLE_S):
        await spending

    async def stored() -> bool:
        return len(await parts.operations()) == OPERATIONS

    await eventually(stored, SETTLE_S, what="all operations in the ledger")
    assert set((await parts.operations()).values()) == {1}

    async def even() -> bool:
        books = await parts.books()
        return books.get("grant:1") == GRANTED - OPERATIONS and await parts.used() == OPERATIONS

    await eventually(even, SETTLE_S, what="a balance of what was granted less what was used")
    verified = await tallygate("verify", "--json", **parts.settings)
    assert verified.code == 0, verified.out + verified.err
