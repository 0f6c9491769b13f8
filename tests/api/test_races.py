"""Races for the last units, and storms of retries, over real channels and several sidecars."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.domain.ids import TenantId, shard_of
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.builders import SHARDS, CatalogInMemory, catalog, window
from tests.sidecar import Tuning, channel, charge, sidecar

CLIENTS = 50
ROUNDS = 10
UNITS = 100
Stubs = Sequence["quota_pb2_grpc.QuotaServiceAsyncStub"]


@asynccontextmanager
async def clients(url: str, view: CatalogInMemory, count: int) -> AsyncIterator[Stubs]:
    """Connect so many clients, in turn to two sidecars over one Redis."""
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(sidecar(url, view, Tuning(source=source)))
            for source in ("a", "b")
        ]
        yield [
            quota_pb2_grpc.QuotaServiceStub(
                await stack.enter_async_context(channel(addresses[n % 2]))
            )
            for n in range(count)
        ]


@pytest.mark.slow
async def test_the_last_units_are_granted_exactly(redis_url: str) -> None:
    """Fifty clients over two sidecars get exactly the last hundred units, every time."""
    view = CatalogInMemory(catalog(window("calls", UNITS), window("wide", 10 * UNITS)))
    async with clients(redis_url, view, CLIENTS) as stubs:
        for turn in range(ROUNDS):
            tenant = f"racer-{turn}"

            async def race(
                stub: "quota_pb2_grpc.QuotaServiceAsyncStub", tenant: str = tenant
            ) -> list[quota_pb2.CheckAndConsumeResponse]:
                return [await stub.CheckAndConsume(charge(tenant=tenant)) for _ in range(4)]

            replies = [
                reply
                for some in await asyncio.gather(*(race(stub) for stub in stubs))
                for reply in some
            ]
            granted = [reply for reply in replies if reply.allowed]
            assert len(granted) == UNITS
            assert sorted(reply.limits[0].used for reply in granted) == list(range(1, UNITS + 1))
            assert {reply.refused_by for reply in replies if not reply.allowed} == {"calls"}


async def test_two_limits_of_one_call_never_drift(redis_url: str) -> None:
    """Whatever is granted and refused meanwhile, both counters show the same at every reply."""
    view = CatalogInMemory(catalog(window("narrow", 70), window("wide", 1_000)))
    async with clients(redis_url, view, 10) as stubs:

        async def race(number: int) -> None:
            for turn in range(8):
                amount = 1 + (number + turn) % 5
                reply = await stubs[number].CheckAndConsume(charge("", amount))
                narrow, wide = reply.limits
                assert narrow.used == wide.used <= 70

        await asyncio.gather(*(race(number) for number in range(10)))
        asked = quota_pb2.GetQuotaRequest(tenant_id="acme")
        narrow, wide = (await stubs[0].GetQuota(asked)).limits
        assert narrow.used == wide.used
        assert 65 < narrow.used <= 70


async def test_retries_of_one_operation_charge_once(redis_url: str) -> None:
    """200 retries from 20 connections: one charge, one stream entry, one answer."""
    view = CatalogInMemory(catalog(window(limit=1_000)))
    async with clients(redis_url, view, 20) as stubs:
        wanted = charge("the-one", 3, 4)
        replies = await asyncio.gather(
            *(stubs[n % len(stubs)].CheckAndConsume(wanted) for n in range(200))
        )
        assert sum(not reply.replayed for reply in replies) == 1
        for reply in replies:
            reply.replayed = False
        assert len({reply.SerializeToString(deterministic=True) for reply in replies}) == 1
        assert (replies[0].allowed, replies[0].limits[0].used) == (True, 7)
        assert list(replies[0].event_ids) == ["the-one:0", "the-one:1"]
        asked = quota_pb2.GetQuotaRequest(tenant_id="acme")
        assert (await stubs[0].GetQuota(asked)).limits[0].used == 7
    client = connect(redis_url, 2_000)
    try:
        assert await client.xlen(keys.stream(shard_of(TenantId("acme"), SHARDS))) == 1
    finally:
        await client.aclose()


async def test_a_refused_call_passes_for_whoever_comes_after_a_change(redis_url: str) -> None:
    """A limit that is raised while it is used keeps what is used and compares it anew."""
    view = CatalogInMemory(catalog(window(limit=2)))
    async with clients(redis_url, view, 2) as stubs:
        first = await stubs[0].CheckAndConsume(charge("a", 2))
        refused = await stubs[1].CheckAndConsume(charge("b", 1))
        view.catalog = catalog(window(limit=3), version=2)
        passed = await stubs[1].CheckAndConsume(charge("b", 1))
        view.catalog = catalog(window(limit=1), version=3)
        lowered = await stubs[0].CheckAndConsume(charge("c", 1))
    assert [reply.allowed for reply in (first, refused, passed, lowered)] == [
        True,
        False,
        True,
        False,
    ]
    assert [reply.limits[0].used for reply in (refused, passed, lowered)] == [2, 3, 3]
    assert lowered.limits[0].remaining == 0
