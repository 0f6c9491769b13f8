"""WatchQuota on real sidecars over a real Redis: what one decides, another's watchers see."""

import asyncio
from dataclasses import replace

import grpc
import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.domain.catalog import OnExceed, Plan
from tallygate.domain.ids import PlanName
from tallygate.gen.v1 import limit_pb2, quota_pb2, quota_pb2_grpc
from tests.builders import CatalogInMemory, catalog, rate, tenant, window
from tests.sidecar import Tuning, channel, charge, failure, sidecar

TRIES = 20
WARNING, EXCEEDED = limit_pb2.LIMIT_STATE_WARNING, limit_pb2.LIMIT_STATE_EXCEEDED
ACME = quota_pb2.WatchQuotaRequest(tenant_id="acme")
Reply = quota_pb2.WatchQuotaResponse


async def read(call: "grpc.aio.UnaryStreamCall[quota_pb2.WatchQuotaRequest, Reply]") -> Reply:
    """Return the next message, which must come soon."""
    async with asyncio.timeout(5):
        reply = await call.read()
    assert isinstance(reply, Reply)
    return reply


async def test_what_another_sidecar_grants_is_seen_in_time(redis_url: str) -> None:
    """Each change by anybody reaches the watcher, and a crossing is told as one."""
    view = CatalogInMemory(catalog(window(limit=TRIES, warn_at_ppm=(500_000,))))
    async with (
        sidecar(redis_url, view) as here,
        sidecar(redis_url, view, Tuning(source="b")) as there,
        channel(here) as watched,
        channel(there) as other,
    ):
        call = quota_pb2_grpc.QuotaServiceStub(watched).WatchQuota(ACME)
        assert [each.used for each in (await read(call)).limits] == [0]
        quota = quota_pb2_grpc.QuotaServiceStub(other)
        causes: list[int] = []
        for number in range(1, TRIES + 1):
            assert (await quota.CheckAndConsume(charge(f"op-{number}"))).allowed
            reply = await read(call)
            causes.append(reply.cause)
            assert [each.used for each in reply.limits] == [number]
        crossed = [number for number, cause in enumerate(causes, 1)
                   if cause == quota_pb2.WATCH_CAUSE_CROSSED]  # fmt: skip
        assert crossed == [TRIES // 2]
        call.cancel()


async def test_a_new_number_and_another_plan_are_seen(redis_url: str) -> None:
    """A catalog that changes the tenant's limits is told without any use."""
    first = catalog(window(limit=10, on_exceed=OnExceed.ALLOW))
    view = CatalogInMemory(first)
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        await quota.CheckAndConsume(charge("op", 5))
        call = quota.WatchQuota(ACME)
        assert [each.limit for each in (await read(call)).limits] == [10]
        raised = {PlanName("free"): Plan(PlanName("free"), (window(limit=20),))}
        view.catalog = replace(first, version=2, plans=raised)
        reply = await read(call)
        assert [(each.used, each.limit) for each in reply.limits] == [(5, 20)]
        assert (reply.cause, reply.catalog_version) == (quota_pb2.WATCH_CAUSE_CHANGED, 2)
        both = {**raised, PlanName("pro"): Plan(PlanName("pro"), (window(limit=30),))}
        view.tenants = {tenant().tenant_id: tenant(plan=PlanName("pro"))}
        view.catalog = replace(first, version=3, plans=both)
        reply = await read(call)
        assert (reply.plan, [each.limit for each in reply.limits]) == ("pro", [30])
        call.cancel()


async def test_a_bucket_is_seen_filling_and_then_rests(redis_url: str) -> None:
    """What drains by itself is told as it drains, and an idle bucket is silent."""
    view = CatalogInMemory(catalog(rate(limit=5, burst=5)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        call = quota.WatchQuota(ACME)
        await read(call)
        await quota.CheckAndConsume(charge("op", 3))
        seen = [3]
        while seen[-1]:
            seen.append((await read(call)).limits[0].used)
        assert seen == sorted(seen, reverse=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await call.read()


async def test_dimensions_choose_whose_counter_is_watched(redis_url: str) -> None:
    """A limit per user shows the user asked for, and no other's use."""
    view = CatalogInMemory(catalog(window(per="user", limit=10)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        request = quota_pb2.WatchQuotaRequest(tenant_id="acme", dimensions={"user": "ada"})
        call = quota.WatchQuota(request)
        await read(call)
        for user, amount in (("bob", 4), ("ada", 3)):
            item = quota_pb2.Item(meter="requests", amount=amount, dimensions={"user": user})
            await quota.CheckAndConsume(
                quota_pb2.CheckAndConsumeRequest(tenant_id="acme", items=[item])
            )
        assert [each.used for each in (await read(call)).limits] == [3]
        call.cancel()


async def test_a_watch_outlasts_a_short_absence_of_redis_and_no_long_one(
    own_redis: EmbeddedRedis,
) -> None:
    """It stays while Redis restarts; past the bound it ends as UNAVAILABLE, not in silence."""
    view = CatalogInMemory(catalog(window(limit=10)))
    tuning = Tuning(redis_timeout_ms=200, stale_ms=4_000)
    async with sidecar(own_redis.url, view, tuning) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        call = quota.WatchQuota(ACME)
        await read(call)
        await own_redis.kill()
        await own_redis.start()
        # Whether the first try meets the connection that was cut is chance.
        for _ in range(100):
            try:
                await quota.CheckAndConsume(charge("op", 2))
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0)
        while not (reply := await read(call)).limits[0].used:
            pass
        assert reply.limits[0].used == 2
        await own_redis.kill()
        found = await failure(call.read())
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE")
        assert found.pushback_ms
