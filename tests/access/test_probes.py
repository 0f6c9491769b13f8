"""Probes: liveness is of the event loop alone, readiness is what the policy says."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tallygate.gen.v1 import quota_pb2_grpc
from tallygate.settings_sources import load_settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs
from tests.e2e.processes import fetch
from tests.servers import eventually
from tests.sidecar import channel, charge, failure
from tests.transports import TRANSPORT

NOWHERE = {
    "TALLYGATE_REDIS_URL": "redis://127.0.0.1:1/0",
    "TALLYGATE_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none",
}


def environ(folder: Path, **more: str) -> dict[str, str]:
    """Return what a process is started with, on free ports."""
    free = {f"TALLYGATE_{name}_ADDRESS": "127.0.0.1:0" for name in ("GRPC", "CONTROL", "OPS")}
    return {**free, "TALLYGATE_DATA_DIR": str(folder), "TALLYGATE_TRANSPORT": TRANSPORT, **more}


async def probe(process: Running) -> tuple[int, int]:
    """Return the statuses of liveness and readiness."""
    port = process.ops_port
    pages = [await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/{p}") for p in PAGES]
    live, ready = (status for status, _ in pages)
    return live, ready


PAGES = ("livez", "readyz")


@pytest.mark.parametrize("role", list(Role))
async def test_redis_and_postgres_away_fail_no_probe(tmp_path: Path, role: Role) -> None:
    """Each process is live, and ready: what it can do without them it does, the rest waits."""
    given = dict(NOWHERE)
    if role is Role.SERVE:
        # A sidecar has no address of Postgres, and its catalog from a file.
        del given["TALLYGATE_POSTGRES_DSN"]
        given["TALLYGATE_CATALOG"] = str(catalogs.write(tmp_path, catalogs.OPEN))
    settings = load_settings(environ=environ(tmp_path, **given))
    async with running(settings, frozenset({role})) as process:
        await eventually(process.ready, 30.0, what="readiness")
        assert await probe(process) == (200, 200)


async def test_a_sidecar_without_a_catalog_has_not_started(tmp_path: Path) -> None:
    """Its startup probe fails until it has a catalog, and its liveness does not."""
    settings = load_settings(
        environ=environ(tmp_path, TALLYGATE_REDIS_URL=NOWHERE["TALLYGATE_REDIS_URL"])
    )
    async with running(settings, frozenset({Role.SERVE})) as process:
        assert await probe(process) == (200, 503)


async def test_overload_fails_no_probe_and_a_drain_readiness_alone(
    tmp_path: Path, redis_url: str
) -> None:
    """With no room for one more call it stays ready; while it drains it is live, and not ready."""
    settings = load_settings(
        environ=environ(
            tmp_path,
            TALLYGATE_REDIS_URL=redis_url,
            TALLYGATE_CATALOG=str(catalogs.write(tmp_path, catalogs.OPEN)),
            TALLYGATE_COUNTER_REBUILD="none",
            TALLYGATE_CALLS_MAX="1",
            # What waits for Redis waits: that it would be decided without is another matter.
            TALLYGATE_BREAKER_HANG_MS="30000",
            TALLYGATE_REDIS_TIMEOUT_MS="30000",
            TALLYGATE_DRAIN_GRACE_MS="30000",
        )
    )
    async with AsyncExitStack() as stack, Redis.from_url(redis_url) as admin:
        process = await stack.enter_async_context(running(settings, frozenset({Role.SERVE})))
        await eventually(process.ready, 30.0, what="readiness")
        async with channel(process.grpc_addresses[0]) as opened:
            stub = quota_pb2_grpc.QuotaServiceStub(opened)
            assert (await stub.CheckAndConsume(charge("warm"), timeout=30.0)).allowed
            await admin.client_pause(30_000, all=False)
            held = asyncio.ensure_future(stub.CheckAndConsume(charge("held"), timeout=60.0))
            inside = process.metrics.registry.get_sample_value
            await eventually(lambda: inside("tallygate_rpc_in_flight") == 1.0, what="a call inside")
            shed = await failure(stub.CheckAndConsume(charge("more"), timeout=30.0))
            assert shed.reason == "OVERLOADED"
            assert await probe(process) == (200, 200)
            leaving = asyncio.create_task(stack.aclose())

            async def draining() -> bool:
                return await probe(process) == (200, 503)

            await eventually(draining, 20.0, what="a drain that shows")
            await admin.client_unpause()
            assert (await held).allowed
            await leaving
