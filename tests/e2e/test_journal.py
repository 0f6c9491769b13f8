"""Real processes whose journals hold what Redis has lost and what the ledger has not."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.e2e.processes import Server, Site, site
from tests.e2e.test_outage import TENANT, record, usage
from tests.e2e.test_redis_loss import SETTLE_S, decides, ledger
from tests.servers import eventually

pytestmark = pytest.mark.slow

LIMIT = 1_000
CALLS = 25
HELD = 40


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis, postgres_dsn: str) -> AsyncIterator[Site]:
    """An installation with a hard limit, whose Redis may be emptied."""
    file = catalogs.write(tmp_path, catalogs.limited(LIMIT))
    settings = {"redis_url": own_redis.url, "postgres_dsn": postgres_dsn, "catalog": file}
    async with site(tmp_path, **settings) as place:
        yield place


async def start_ingest(place: Site) -> Server:
    """Start an ingester."""
    return await place.start("serve", "--with", "ingest")


async def start_sidecar(place: Site, postgres_dsn: str, folder: Path) -> Server:
    """Start a sidecar on a folder; it has no way to Postgres, as in an app's pod."""
    del postgres_dsn
    settings = {name: each for name, each in place.settings.items() if name != "postgres_dsn"}
    kept, place.settings = place.settings, settings
    try:
        return await place.start("serve", data_dir=folder)
    finally:
        place.settings = kept


async def used(server: Server) -> int:
    """Return what the counter says, as soon as it says anything."""

    async def told() -> tuple[int] | None:
        async with quota(server.address) as stub:
            request = quota_pb2.GetQuotaRequest(tenant_id=TENANT)
            try:
                return ((await stub.GetQuota(request, timeout=CALL_TIMEOUT_S)).limits[0].used,)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return None

    found = await eventually(told, SETTLE_S, what="limits are decided")
    assert found is not None
    return found[0]


async def test_the_ledger_is_waited_for_and_trims_the_journal(
    place: Site, postgres_dsn: str, tmp_path: Path
) -> None:
    """`POSTGRES` is answered once the event is a row; the journal then forgets it."""
    await start_ingest(place)
    serve = await start_sidecar(place, postgres_dsn, tmp_path / "sidecar")
    await decides(serve)
    async with usage(serve.address) as stub:
        request = record(1)
        request.min_durability = event_pb2.DURABILITY_POSTGRES
        reply = await stub.RecordUsage(request, timeout=3 * CALL_TIMEOUT_S)
        assert reply.durability == event_pb2.DURABILITY_POSTGRES
    units, _ = await ledger(postgres_dsn)
    assert units == {TENANT: 1}
    async with usage(serve.address) as stub:
        for number in range(2, CALLS):
            reply = await stub.RecordUsage(record(number), timeout=CALL_TIMEOUT_S)
            assert reply.durability == event_pb2.DURABILITY_JOURNAL

    async def forgotten() -> bool:
        return not await serve.metric("tallygate_journal_unconfirmed_events")

    await eventually(forgotten, SETTLE_S, what="the journal has forgotten what the ledger has")


@pytest.mark.parametrize(
    "killed",
    [
        pytest.param(False, id="running", marks=pytest.mark.faults_long),
        pytest.param(True, id="killed"),
    ],
)
async def test_what_redis_lost_comes_from_the_journal(
    place: Site, own_redis: EmbeddedRedis, postgres_dsn: str, tmp_path: Path, *, killed: bool
) -> None:
    """Events that neither Redis nor the ledger has are handed in once; reservations are held."""
    folder = tmp_path / "sidecar"
    ingest = await start_ingest(place)
    serve = await start_sidecar(place, postgres_dsn, folder)
    await decides(serve)
    async with usage(serve.address) as recording:
        seed = record(CALLS)
        seed.min_durability = event_pb2.DURABILITY_POSTGRES
        await recording.RecordUsage(seed, timeout=3 * CALL_TIMEOUT_S)
    # From now on nothing is ingested.
    await ingest.process.kill()
    async with quota(serve.address) as stub, usage(serve.address) as recording:
        for number in range(CALLS):
            allowed = await stub.CheckAndConsume(
                consume(f"op-{number}", 1, TENANT), timeout=CALL_TIMEOUT_S
            )
            assert allowed.allowed
        for number in range(CALLS):
            reply = await recording.RecordUsage(record(number), timeout=CALL_TIMEOUT_S)
            assert reply.durability == event_pb2.DURABILITY_JOURNAL
        asked = quota_pb2.ReserveRequest(tenant_id=TENANT, operation_id="held")
        asked.ttl.FromSeconds(3_600)
        asked.items.add(meter="requests", amount=HELD)
        held = await stub.Reserve(asked, timeout=CALL_TIMEOUT_S)
        # What comes after it on the disk is synced together with it.
        last = usage_pb2.RecordUsageRequest(
            tenant_id=TENANT, meter="requests", amount=1, event_id="last"
        )
        reply = await recording.RecordUsage(last, timeout=CALL_TIMEOUT_S)
        assert reply.durability == event_pb2.DURABILITY_JOURNAL
    if killed:
        await serve.process.kill()
    async with Redis.from_url(own_redis.url) as client:
        await client.flushall()
    if killed:
        # Counters wait for journals that are there, and not for ever for those that are not.
        serve = await start_sidecar(place, postgres_dsn, folder)
    await start_ingest(place)
    recorded = 2 * CALLS + 2
    # The first answer that a limit gives is already whole.
    assert await used(serve) == recorded + HELD
    async with quota(serve.address) as stub:
        again = await stub.CheckAndConsume(consume("op-0", 1, TENANT), timeout=CALL_TIMEOUT_S)
        assert again.replayed
        settled = await stub.Commit(
            quota_pb2.CommitRequest(
                tenant_id=TENANT, reservation_id=held.reservation_id, amounts=[HELD // 2]
            ),
            timeout=CALL_TIMEOUT_S,
        )
        assert settled.outcome == quota_pb2.RESERVATION_OUTCOME_COMMITTED
    recorded += HELD // 2
    assert await used(serve) == recorded

    async def whole() -> bool:
        units, times = await ledger(postgres_dsn)
        assert set(times.values()) <= {1}
        return units == {TENANT: recorded}

    await eventually(whole, SETTLE_S, what="the ledger has each event once")

    async def forgotten() -> bool:
        return not await serve.metric("tallygate_journal_unconfirmed_events")

    # The numbers of the lost epoch are closed, and its entries forgotten.
    await eventually(forgotten, SETTLE_S, what="the journal is empty")
