"""Warnings under races: each crossing is told exactly once per window, whoever crosses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.catalog import OnExceed
from tallygate.domain.event import ThresholdCrossing
from tallygate.domain.ids import TenantId, shard_of
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.builders import SHARDS, CatalogInMemory, catalog, window
from tests.sidecar import Tuning, channel, charge, sidecar

CLIENTS = 50
ROUNDS = 3
UNITS = 100
RATIOS = (500_000, 800_000, 1_000_000)
Stubs = Sequence["quota_pb2_grpc.QuotaServiceAsyncStub"]
SHARED = shard_of(TenantId("acme"), SHARDS)


@asynccontextmanager
async def clients(url: str, view: CatalogInMemory) -> AsyncIterator[Stubs]:
    """Connect the clients, in turn to two sidecars over one Redis."""
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(sidecar(url, view, Tuning(source=source)))
            for source in ("a", "b")
        ]
        yield [
            quota_pb2_grpc.QuotaServiceStub(
                await stack.enter_async_context(channel(addresses[number % 2]))
            )
            for number in range(CLIENTS)
        ]


async def crossings(url: str) -> list[ThresholdCrossing]:
    """Return every crossing that the tenant's shard has told of."""
    client = connect(url, 5_000)
    try:
        # Its type allows for text and for nothing, which this client never gives.
        entries: Any = await client.xrange(keys.stream(SHARED))
    finally:
        await client.aclose()
    return [
        each
        for entry_id, fields in entries
        for each in decode_entry(SHARED, entry_id.decode(), fields).crossings
    ]


async def work(stub: "quota_pb2_grpc.QuotaServiceAsyncStub", number: int) -> None:
    """Consume, reserve and commit, and reserve and release: the counter goes up and down."""
    for turn in range(ROUNDS):
        name = f"{number}-{turn}"
        await stub.CheckAndConsume(charge(f"{name}-use", 1))
        for kind in ("commit", "release"):
            wanted = quota_pb2.ReserveRequest(
                tenant_id="acme",
                operation_id=f"{name}-{kind}",
                items=[quota_pb2.Item(meter="requests", amount=2)],
            )
            held = await stub.Reserve(wanted)
            if not held.allowed:
                continue
            if kind == "release":
                gone = quota_pb2.ReleaseRequest(
                    tenant_id="acme",
                    reservation_id=held.reservation_id,
                    operation_id=f"{name}-released",
                )
                await stub.Release(gone)
            else:
                settled = quota_pb2.CommitRequest(
                    tenant_id="acme",
                    reservation_id=held.reservation_id,
                    operation_id=f"{name}-committed",
                    amounts=[1],
                )
                await stub.Commit(settled)


@pytest.mark.slow
@pytest.mark.parametrize("on_exceed", list(OnExceed))
async def test_each_crossing_is_told_once(redis_url: str, on_exceed: OnExceed) -> None:
    """Fifty clients over two sidecars, holds that come back: each ratio of each limit once."""
    limits = [
        window(name, limit, on_exceed=on_exceed, warn_at_ppm=RATIOS)
        for name, limit in (("narrow", UNITS), ("wide", 2 * UNITS))
    ]
    async with clients(redis_url, CatalogInMemory(catalog(*limits))) as stubs:
        await asyncio.gather(*(work(stub, number) for number, stub in enumerate(stubs)))
    told = await crossings(redis_url)
    counted = Counter((each.limit_id, each.ratio_ppm) for each in told)
    assert set(counted.values()) == {1}
    narrow = {ratio for limit_id, ratio in counted if limit_id == "narrow"}
    # A refusal stops two units short of the limit when nothing smaller is asked for any more.
    assert narrow == set(RATIOS)
    for each in told:
        assert each.used >= each.threshold
