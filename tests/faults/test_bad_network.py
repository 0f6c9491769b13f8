"""What a bad network between sidecar and Redis does to callers, and what it may not do."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from tallygate.domain.catalog import Limit, OnOutage
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.builders import CatalogInMemory, catalog, window
from tests.faults.proxy import Proxy, proxied
from tests.servers import eventually
from tests.sidecar import Tuning, channel, charge, failure, sidecar

HANG_MS = 500
DEADLINE_S = 2.0


@dataclass(frozen=True)
class Side:
    """A sidecar behind a proxy, and one beside it that goes straight to Redis."""

    proxy: Proxy
    far: "quota_pb2_grpc.QuotaServiceAsyncStub"
    near: "quota_pb2_grpc.QuotaServiceAsyncStub"

    async def used(self) -> int:
        """Return what Redis has counted."""
        reply = await self.near.GetQuota(quota_pb2.GetQuotaRequest(tenant_id="acme"))
        return reply.limits[0].used

    async def asked(self, name: str, amount: int = 1) -> quota_pb2.CheckAndConsumeResponse | None:
        """Ask until there is an answer."""

        async def ask() -> quota_pb2.CheckAndConsumeResponse | None:
            try:
                return await self.far.CheckAndConsume(charge(name, amount), timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ):
                    raise
                return None

        return await eventually(ask, what=f"an answer to {name}")


@asynccontextmanager
async def behind_proxy(url: str, limit: Limit) -> AsyncIterator[Side]:
    """Serve over a bad network and beside it."""
    view = CatalogInMemory(catalog(limit))
    tuned = Tuning("far", redis_timeout_ms=2 * HANG_MS, hang_ms=HANG_MS)
    async with (
        proxied(url) as proxy,
        sidecar(proxy.url, view, tuned) as far,
        sidecar(url, view, Tuning("near")) as near,
        channel(far) as one,
        channel(near) as two,
    ):
        yield Side(
            proxy, quota_pb2_grpc.QuotaServiceStub(one), quota_pb2_grpc.QuotaServiceStub(two)
        )


@pytest.mark.parametrize("late_s", [0.001, 0.05])
async def test_latency_changes_no_answer(redis_url: str, late_s: float) -> None:
    """Late replies are slower and as right: a limit is met exactly."""
    async with behind_proxy(redis_url, window(limit=20)) as side:
        side.proxy.late_s = late_s
        replies = await asyncio.gather(
            *(side.far.CheckAndConsume(charge(f"op-{n}")) for n in range(30))
        )
        assert sum(reply.allowed for reply in replies) == 20
        assert await side.used() == 20


async def test_crumbs_are_put_together(redis_url: str) -> None:
    """Replies that come byte by byte are whole, and each caller's own."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        side.proxy.crumb = 1
        replies = await asyncio.gather(
            *(side.far.CheckAndConsume(charge(f"op-{n}", n)) for n in range(1, 11))
        )
        assert sorted(reply.limits[0].used for reply in replies)[-1] == 55
        assert [list(reply.event_ids) for reply in replies] == [[f"op-{n}:0"] for n in range(1, 11)]


@pytest.mark.parametrize("cut_after", [0, 1, 5, 40])
async def test_a_reply_that_is_cut_off_is_charged_once(redis_url: str, cut_after: int) -> None:
    """Peers charge again, or answer by half a reply; here a retry finds the charge made."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        side.proxy.cut_after = cut_after
        for turn in range(1, 6):
            side.proxy.cuts = turn
            reply = await side.asked(f"op-{turn}", 3)
            assert reply is not None
            assert reply.allowed
            assert await side.used() == 3 * turn
            side.proxy.cuts = 0


async def test_a_black_hole_costs_one_wait_and_then_none(redis_url: str) -> None:
    """Peers hang with their Redis; here the first caller waits its bound and the next do not."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.open.clear()
        # Told by the sidecar, not by the caller's own clock: nobody waits for the deadline.
        for n in range(21):
            told = await failure(side.far.CheckAndConsume(charge(f"later-{n}"), timeout=DEADLINE_S))
            assert told.reason == "BACKEND_UNAVAILABLE"


async def test_a_callers_deadline_is_kept(redis_url: str) -> None:
    """Whoever waits less than the sidecar's patience is answered by its own clock."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.open.clear()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await side.far.CheckAndConsume(charge("second"), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_late_request_is_not_charged(redis_url: str) -> None:
    """Peers charge a call long after its caller gave up; here it arrives too late to count."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.open.clear()
        lost = await asyncio.gather(
            *(
                failure(side.far.CheckAndConsume(charge(f"lost-{n}", 5), timeout=DEADLINE_S))
                for n in range(10)
            )
        )
        assert {told.reason for told in lost} == {"BACKEND_UNAVAILABLE"}
        gone = time.monotonic()
        await eventually(lambda: time.monotonic() - gone > HANG_MS / 1000, what="the time")
        # All that was held up arrives now.
        side.proxy.open.set()
        later = await side.asked("later")
        assert later is not None
        assert later.limits[0].used == 2
        assert await side.used() == 2
        # The same call, asked again, is charged now, and as a new one.
        again = await side.asked("lost-0", 5)
        assert again is not None
        assert (again.replayed, again.limits[0].used) == (False, 7)


async def test_the_limits_rule_decides_in_a_black_hole(redis_url: str) -> None:
    """What is granted without Redis says so at once, and is counted once it can be."""
    limit = window(limit=100, on_outage=OnOutage.ALLOW)
    async with behind_proxy(redis_url, limit) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.open.clear()
        replies = [await side.far.CheckAndConsume(charge(f"op-{n}")) for n in range(10)]
        assert all(reply.allowed and reply.degraded for reply in replies)
        side.proxy.open.set()

        async def counted() -> bool:
            return await side.used() == 11

        await eventually(counted, what="the grants to be counted")


async def test_jitter_and_crumbs_at_once_change_no_answer(redis_url: str) -> None:
    """Replies in threes of bytes, each at another time: a limit is met exactly all the same."""
    async with behind_proxy(redis_url, window(limit=20)) as side:
        side.proxy.jitter_s, side.proxy.crumb = 0.03, 3
        replies = [
            reply
            for turn in range(3)
            for reply in await asyncio.gather(
                *(side.far.CheckAndConsume(charge(f"op-{turn}-{n}")) for n in range(10))
            )
        ]
        assert sum(reply.allowed for reply in replies) == 20
        assert await side.used() == 20


@pytest.mark.parametrize("late_s", [1.0, 5.0])
async def test_lateness_beyond_patience_is_an_outage(redis_url: str, late_s: float) -> None:
    """A Redis that answers too late is not waited for; what it did is found by the retry."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.late_s = late_s
        told = await failure(side.far.CheckAndConsume(charge("late", 3), timeout=DEADLINE_S))
        assert told.reason == "BACKEND_UNAVAILABLE"
        side.proxy.late_s = 0.0
        reply = await side.asked("late", 3)
        assert reply is not None
        assert (reply.allowed, await side.used()) == (True, 4)


async def test_a_charge_that_is_not_heard_of_is_found_by_the_retry(redis_url: str) -> None:
    """Half-open: requests arrive and no reply does. Each call is charged once, however often."""
    async with behind_proxy(redis_url, window(limit=100)) as side:
        await side.far.CheckAndConsume(charge("first"))
        side.proxy.answering.clear()
        for _ in range(3):
            told = await failure(side.far.CheckAndConsume(charge("deaf", 3), timeout=DEADLINE_S))
            assert told.reason == "BACKEND_UNAVAILABLE"

        async def charged() -> bool:
            return await side.used() == 4

        await eventually(charged, what="the charge that nobody hears of")
        side.proxy.answering.set()
        reply = await side.asked("deaf", 3)
        assert reply is not None
        assert (reply.allowed, reply.replayed, await side.used()) == (True, True, 4)
