"""A window turns, and all whom it refused come back: not in one moment, and to what is theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tallygate.domain.spread import SPREAD_MAX_US
from tallygate.domain.window import MINUTE_US, Period
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.builders import CatalogInMemory, catalog, now_us, window
from tests.sidecar import Tuning, channel, charge, sidecar

LIMIT = 10
HERD = 100
LEFT_US = 50_000_000


@dataclass
class Still:
    """The time of a store, which stands."""

    at_us: int

    def now_us(self) -> int:
        """Return it."""
        return self.at_us


@dataclass(frozen=True, slots=True)
class Side:
    """Two sidecars, by whose store's time 50 s of a minute are left."""

    time: Still
    stubs: "tuple[quota_pb2_grpc.QuotaServiceAsyncStub, ...]"

    async def herd(self, names: list[str]) -> list[quota_pb2.CheckAndConsumeResponse]:
        """Charge one unit by each of these ids, at either sidecar."""
        return await asyncio.gather(
            *(self.stubs[n % 2].CheckAndConsume(charge(name)) for n, name in enumerate(names))
        )


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Side]:
    """A limit of ten units a minute."""
    time = Still(now_us() // MINUTE_US * MINUTE_US + MINUTE_US - LEFT_US)
    view = CatalogInMemory(catalog(window("minute", LIMIT, period=Period.MINUTE)))
    async with AsyncExitStack() as stack:
        stubs = []
        for source in ("a", "b"):
            address = await stack.enter_async_context(
                sidecar(redis_url, view, Tuning(source), time.now_us)
            )
            opened = await stack.enter_async_context(channel(address))
            stubs.append(quota_pb2_grpc.QuotaServiceStub(opened))
        yield Side(time, tuple(stubs))


async def test_a_herd_comes_back_apart(side: Side) -> None:
    """Each is told a moment of its own within the second after the reset, and any sidecar's."""
    names = [f"op-{n}" for n in range(LIMIT + HERD)]
    replies = await side.herd(names)
    refused = {
        name: reply.retry_after.ToMicroseconds()
        for name, reply in zip(names, replies, strict=True)
        if not reply.allowed
    }
    assert len(refused) == HERD
    assert all(LEFT_US <= wait <= LEFT_US + SPREAD_MAX_US for wait in refused.values())
    assert len({*refused.values()}) > HERD * 0.9
    assert max(refused.values()) - min(refused.values()) > SPREAD_MAX_US / 2
    # The other sidecar tells it the same; what resets tells the moment itself.
    again = await side.herd(list(reversed(refused)))
    assert [each.retry_after.ToMicroseconds() for each in again] == [*reversed(refused.values())]
    ends_us = side.time.at_us + LEFT_US
    assert {each.limits[0].resets_at.ToMicroseconds() for each in again} == {ends_us}


async def test_whoever_comes_when_it_was_told_meets_the_new_window(side: Side) -> None:
    """The first ten of those that come back are served, in the order of their moments."""
    names = [f"op-{n}" for n in range(LIMIT + HERD)]
    replies = await side.herd(names)
    waits = sorted(
        (reply.retry_after.ToMicroseconds(), name)
        for name, reply in zip(names, replies, strict=True)
        if not reply.allowed
    )
    began_us, served = side.time.at_us, []
    for wait_us, name in waits:
        side.time.at_us = began_us + wait_us
        [reply] = await side.herd([name])
        served.append(reply.allowed)
    assert served == [True] * LIMIT + [False] * (HERD - LIMIT)


async def test_others_hear_nothing_of_a_herd(side: Side) -> None:
    """Another tenant's calls are answered among the refused ones, each with its own limit."""
    calls = [charge(f"op-{n}") for n in range(HERD)]
    calls[::10] = [charge(f"other-{n}", tenant="other") for n in range(LIMIT)]
    replies = await asyncio.gather(
        *(side.stubs[n % 2].CheckAndConsume(call) for n, call in enumerate(calls))
    )
    assert all(reply.allowed and not reply.HasField("retry_after") for reply in replies[::10])
    assert sum(reply.allowed for reply in replies) == 2 * LIMIT


async def test_a_question_is_told_the_moment(side: Side) -> None:
    """`Check` brings nobody back: it says when the window turns."""
    await side.herd([f"op-{n}" for n in range(LIMIT)])
    asked = quota_pb2.CheckRequest(tenant_id="acme", items=charge().items)
    told = await side.stubs[0].Check(asked)
    assert (told.allowed, told.retry_after.ToMicroseconds()) == (False, LEFT_US)
