"""Live changes over processes: a second after `apply`, everywhere, with nothing lost."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tallygate.domain.ids import TenantId, shard_of
from tallygate.gen.v1 import admin_pb2_grpc, credit_pb2, quota_pb2
from tests.builders import SHARDS
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, Load, consume, quota
from tests.e2e.processes import Server, Site, rows_of, site, tallygate
from tests.servers import eventually

TAKEN_OVER_S = 1.0
SETTLE_S = 15.0
OLD, NEW = "old", "next"
FAMILY = """\
version: 1
meters:
  requests: {aggregation: sum}
plans:
  org:
    limits:
      - {id: monthly, meter: requests, kind: window, period: month, limit: 1_000_000}
  team:
    limits:
      - {id: monthly, meter: requests, kind: window, period: month, limit: LIMIT}
      - {id: credits, meter: requests, kind: balance}
tenants:
  old: {plan: org}
  next: {plan: org}
  acme: {plan: team, parent: PARENT}
"""


def family(parent: str, limit: int) -> str:
    """Return a catalog in which acme has that parent, and so many requests a month."""
    return FAMILY.replace("LIMIT", str(limit)).replace("PARENT", parent)


@dataclass(frozen=True, slots=True)
class Parts:
    """Two sidecars, a control and an ingester."""

    sidecars: tuple[Server, Server]
    control: Server
    folder: Path

    async def apply(self, text: str) -> int:
        """Apply a catalog by the command; return its version."""
        file = catalogs.write(self.folder, text)
        applied = await tallygate(
            "apply", "-f", file, "--json", "--control-address", self.control.address
        )
        assert applied.code == 0, applied.err
        return int(rows_of(applied, "catalog")[0]["version"])

    async def taken_over(self, version: int, timeout_s: float) -> None:
        """Wait until every sidecar decides by a version."""
        for sidecar in self.sidecars:

            async def newer(address: str = sidecar.address) -> bool:
                try:
                    return (await read(address))[0] == version
                except grpc.aio.AioRpcError:
                    return False

            await eventually(newer, timeout_s, what=f"version {version}")


async def read(address: str, tenant: str = "acme") -> tuple[int, dict[str, tuple[int, int]]]:
    """Return the catalog's version, and what is used and left by limit."""
    async with quota(address) as stub:
        found = await stub.GetQuota(
            quota_pb2.GetQuotaRequest(tenant_id=tenant), timeout=CALL_TIMEOUT_S
        )
    limits = {
        f"{each.tenant_id}/{each.limit_id}": (each.used, each.remaining) for each in found.limits
    }
    return found.catalog_version, limits


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Site]:
    """An installation on the suite's Redis."""
    async with site(tmp_path, redis_url=redis_url, counter_rebuild="none") as place:
        yield place


@pytest.fixture
async def parts(place: Site, postgres_dsn: str) -> Parts:
    """All roles in processes of their own, with acme below the old parent."""
    control = await place.start("control", postgres_dsn=postgres_dsn)
    await place.start("ingest", postgres_dsn=postgres_dsn)
    found = Parts((await place.start("serve"), await place.start("serve")), control, place.folder)
    await found.taken_over(await found.apply(family(OLD, 1_000)), SETTLE_S)
    return found


async def grant(parts: Parts, number: int, amount: int) -> None:
    """Grant acme credits."""
    async with grpc.aio.insecure_channel(parts.control.address) as channel:
        await admin_pb2_grpc.AdminServiceStub(channel).GrantCredit(
            credit_pb2.GrantCreditRequest(
                tenant_id="acme",
                limit_id="credits",
                grant_id=f"grant-{number}",
                amount=amount,
                reason="test",
                actor="ann",
            )
        )


async def test_credits_move_with_their_tenant(parts: Parts) -> None:
    """What is used, held and granted of a balance is the same after a move, and goes on there."""
    assert shard_of(TenantId(OLD), SHARDS) != shard_of(TenantId(NEW), SHARDS)
    first, second = (sidecar.address for sidecar in parts.sidecars)
    await grant(parts, 1, 100)

    async def left(units: int) -> bool:
        return (await read(second))[1]["acme/credits"][1] == units

    await eventually(lambda: left(100), SETTLE_S, what="the first grant")
    async with quota(first) as stub:
        assert (await stub.CheckAndConsume(consume("a", 30, "acme"))).allowed
        item = quota_pb2.Item(meter="requests", amount=20)
        held = await stub.Reserve(
            quota_pb2.ReserveRequest(tenant_id="acme", items=[item], operation_id="b")
        )
        await parts.taken_over(await parts.apply(family(NEW, 1_000)), TAKEN_OVER_S)
        await eventually(lambda: left(50), SETTLE_S, what="the balance in its new shard")
        await stub.Release(
            quota_pb2.ReleaseRequest(tenant_id="acme", reservation_id=held.reservation_id)
        )
    await grant(parts, 2, 1_000)
    await eventually(lambda: left(1_070), SETTLE_S, what="the second grant")
    async with quota(second) as stub:
        assert (await stub.CheckAndConsume(consume("a", 30, "acme"))).replayed
        assert not (await stub.CheckAndConsume(consume("c", 1_000, "acme"))).allowed
        assert (await stub.CheckAndConsume(consume("c", 970, "acme"))).allowed
        used = (await read(second))[1]
    assert used["acme/monthly"] == (1_000, 0)
    assert used["next/monthly"] == (970, 1_000_000 - 970)


@pytest.mark.faults_long
async def test_load_loses_nothing_over_moves_and_changes(parts: Parts, postgres_dsn: str) -> None:
    """Callers that retry while acme moves to and fro are each answered and counted once."""
    await grant(parts, 1, 100_000)
    load = Load(parts.sidecars[0].address, "load", "acme")
    await eventually(lambda: granted(parts), SETTLE_S, what="the grant")
    for parent, limit in ((NEW, 100_000), (OLD, 50_000), (NEW, 10_000)):
        version = await parts.apply(family(parent, limit))
        await load.send(300)
        await parts.taken_over(version, SETTLE_S)
    assert len(load.answered) == 900
    used = (await read(parts.sidecars[1].address))[1]
    assert used["acme/monthly"] == (900, 10_000 - 900)
    assert used["acme/credits"] == (900, 100_000 - 900)
    ledger = Ledger(postgres_dsn)

    async def stored() -> bool:
        return await ledger.count() == 900

    await eventually(stored, SETTLE_S, what="all events in the ledger")


async def granted(parts: Parts) -> bool:
    """Say whether acme has credits."""
    return (await read(parts.sidecars[0].address))[1]["acme/credits"][1] > 0
