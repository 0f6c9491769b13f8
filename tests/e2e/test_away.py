"""Processes that start while Redis and Postgres are away: they live, say so, and recover."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, Ledger, consume, quota, reason
from tests.e2e.processes import Server, Site, site, tallygate
from tests.servers import eventually

RECOVERY_S = 30.0
"""Loops come back within ten seconds of their backend; the rest is for a slow machine."""


@pytest.fixture
async def place(
    tmp_path: Path, own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres
) -> AsyncIterator[Site]:
    """An installation whose Redis and Postgres are not there."""
    await own_redis.stop()
    await own_postgres.stop()
    async with site(tmp_path, redis_url=own_redis.url, counter_rebuild="none") as place:
        yield place


async def refusal(address: str, name: str) -> str:
    """Return why a call is refused: it has to be UNAVAILABLE, with a hint when to come again."""
    async with quota(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CheckAndConsume(consume(name), timeout=CALL_TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "grpc-retry-pushback-ms" in dict(caught.value.trailing_metadata())
    return reason(caught.value)


async def alive(*servers: Server) -> None:
    """Hold processes to being alive by their own word."""
    for server in servers:
        assert await server.page("/livez") == (200, "ok\n")


async def allowed(address: str, name: str) -> bool:
    """Say whether a call is answered."""
    async with quota(address) as stub:
        try:
            reply = await stub.CheckAndConsume(consume(name), timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return reply.allowed


async def test_sidecar_waits_for_redis(place: Site, own_redis: EmbeddedRedis) -> None:
    """A sidecar with a catalog file starts without Redis, refuses with a reason, and recovers."""
    file = catalogs.write(place.folder, catalogs.OPEN)
    serve = await place.start("serve", "--catalog", file)
    assert await refusal(serve.address, "early") == "BACKEND_UNAVAILABLE"
    await alive(serve)
    await own_redis.start()

    async def recovered() -> bool:
        return await allowed(serve.address, "early")

    await eventually(recovered, RECOVERY_S, what="a sidecar with its Redis")
    await alive(serve)
    assert await serve.terminate() == 0


@pytest.mark.slow
async def test_all_roles_wait_for_their_servers(
    place: Site, own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres
) -> None:
    """Sidecar, ingester and control start without servers, and are one chain when these come."""
    dsn = own_postgres.dsn
    serve = await place.start("serve")
    ingest = await place.start("ingest", postgres_dsn=dsn)
    control = await place.start("control", postgres_dsn=dsn)
    assert await refusal(serve.address, "early") == "CATALOG_NOT_LOADED"
    assert (await serve.page("/readyz"))[0] == 503
    async with grpc.aio.insecure_channel(control.address) as channel:
        admin = admin_pb2_grpc.AdminServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await admin.ListPlans(admin_pb2.ListPlansRequest(), timeout=CALL_TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "BACKEND_UNAVAILABLE"
    await alive(serve, ingest, control)

    await own_redis.start()
    await own_postgres.start()
    assert (await tallygate("migrate", postgres_dsn=dsn)).code == 0
    file = catalogs.write(place.folder, catalogs.OPEN)
    applied = await tallygate("apply", "-f", file, "--control-address", control.address)
    assert applied.code == 0, applied.err

    async def recovered() -> bool:
        return await allowed(serve.address, "early")

    await eventually(recovered, RECOVERY_S, what="a sidecar with its catalog")

    async def stored() -> bool:
        return await Ledger(dsn).count() == 1

    await eventually(stored, RECOVERY_S, what="the call in the ledger")
    await alive(serve, ingest, control)
    for server in (serve, ingest, control):
        assert await server.terminate() == 0


async def test_stops_while_servers_are_away(place: Site, own_postgres: EmbeddedPostgres) -> None:
    """A process whose servers never came still stops when told, with 0."""
    roles = ("serve", "--with", "ingest,relay,control")
    serve = await place.start(*roles, postgres_dsn=own_postgres.dsn)
    await alive(serve)
    assert await serve.terminate() == 0
