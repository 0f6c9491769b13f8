"""Defects seen in well-known services for rate limits, each shown to be absent here.

What other tests show is not shown again: late charges behind a stalled Redis, `test_stall.py`; a
network that is late, cut off or a black hole, `test_bad_network.py`; a lost script or a broken
account, `test_redis_store.py`; bad amounts by field, `tests/api/test_errors.py` and
`test_phase_errors.py`; limits that are raised and lowered, `tests/api/test_races.py`; resets,
`tests/contracts/test_refunds.py`; bad catalogs that are kept out, `tests/catalog/test_file_view.py`
and `test_bad_documents.py`; memory for made-up tenants, `tests/catalog/test_redis_view.py`; reserve
and commit, `tests/api/test_reservations.py`; windows across DST, `tests/domain/test_window.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.domain.catalog import OnExceed
from tallygate.domain.ids import AMOUNT_MAX, TenantId
from tallygate.domain.window import HOUR_US, Period
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.api.phases import Pair, pair
from tests.builders import (
    SHARDS,
    CatalogInMemory,
    catalog,
    charges,
    consume,
    decided,
    rate,
    used,
    window,
)
from tests.faults.redis_parts import rig
from tests.quota_subjects import RedisSubject
from tests.servers import eventually
from tests.sidecar import Tuning, channel, charge, failure, sidecar

PER_CALL = 1_000
# An account with one counter and its part of the stream take 270 bytes as measured.
BYTES_PER_KEY_MAX = 500


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Pair]:
    """Two sidecars with a narrow and a wide limit."""
    view = CatalogInMemory(catalog(window("narrow", 10), window("wide", 1_000)))
    async with pair(redis_url, view) as made:
        yield made


async def test_a_refused_call_leaves_no_trace(side: Pair) -> None:
    """Counter pollution: peers count refused calls, or debit some of a call's several limits."""
    await side.a.CheckAndConsume(charge("", 8))
    for n in range(100):
        reply = await (side.a, side.b)[n % 2].CheckAndConsume(charge(f"refused-{n}", 3))
        assert (reply.allowed, reply.refused_by) == (False, "narrow")
        assert [status.used for status in reply.limits] == [8, 8]
    assert await side.used() == {"narrow": 8, "wide": 8}
    assert (await side.a.CheckAndConsume(charge("", 2))).allowed
    assert await side.amounts() == [8, 2]


async def test_a_refused_item_leaves_its_neighbours_unpaid(side: Pair) -> None:
    """Counter pollution in lists: peers debit what came before the item that is refused."""
    reply = await side.a.CheckAndConsume(charge("", 4, 4, 4))
    assert not reply.allowed
    assert await side.used() == {"narrow": 0, "wide": 0}


async def test_asking_for_more_than_is_left_takes_nothing(side: Pair) -> None:
    """RequestMoreThanAvailable and DrainOverLimit: peers empty what a refused call did not get."""
    await side.a.CheckAndConsume(charge("", 6))
    more = await side.a.CheckAndConsume(charge("more", 5))
    assert (more.allowed, more.limits[0].remaining) == (False, 4)
    assert more.HasField("retry_after")
    never = await side.a.CheckAndConsume(charge("never", 11))
    assert (never.allowed, never.HasField("retry_after")) == (False, False)
    rest = await side.a.CheckAndConsume(charge("rest", 4))
    assert (rest.allowed, rest.limits[0].remaining) == (True, 0)


@pytest.mark.parametrize("amount", [0, -1, -(2**63), AMOUNT_MAX + 1, 2**63 - 1])
async def test_odd_hits_are_refused_by_field(side: Pair, amount: int) -> None:
    """Hits of 0, below it and beyond doubles: peers count, refill or wrap around by them."""
    await side.a.CheckAndConsume(charge("", 5))
    told = await failure(side.a.CheckAndConsume(charge("odd", amount)))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["items[0].amount"])
    assert await side.used() == {"narrow": 5, "wide": 5}


async def test_the_largest_counter_is_exact(redis_url: str) -> None:
    """Doubles: peers that count in Lua lose units from 2^53 on; here none is counted there."""
    soft = window("soft", 10, on_exceed=OnExceed.ALLOW)
    async with pair(redis_url, CatalogInMemory(catalog(soft))) as side:
        await side.a.CheckAndConsume(charge("", AMOUNT_MAX - 1))
        await side.a.CheckAndConsume(charge("", 1))
        assert await side.used() == {"soft": AMOUNT_MAX}
        told = await failure(side.a.CheckAndConsume(charge("", 1)))
        assert told.reason == "COUNTER_OVERFLOW"
        await side.refund((await side.events())[1].event_id)
        assert await side.used() == {"soft": AMOUNT_MAX - 1}


async def test_rates_are_exact_whatever_divides_them(redis_url: str) -> None:
    """LeakyBucketDivBug: peers divide a period by a rate above it, and refill by rounding."""
    subject = RedisSubject(redis_url)
    store = subject.store()
    try:
        for limit, empty_us in ((7, 142_858), (3, 333_334), (1_000, 1_000)):
            limits = [rate(f"rate-{limit}", limit)]
            await store.decide([consume(limits, limit)])
            subject.time.now_us += empty_us - 1
            sooner = (await store.decide([consume(limits, 1)]))[0]
            subject.time.now_us += 1
            later = (await store.decide([consume(limits, 1)]))[0]
            assert (decided(sooner).allowed, decided(later).allowed) == (False, True), limit
        fast = [rate("fast", 2_000_000_000)]
        await store.decide([consume(fast, 2_000_000_000)])
        subject.time.now_us += 1
        assert used((await store.decide([consume(fast, 2_000)]))[0]) == [2_000_000_000]
    finally:
        for client in subject.clients.values():
            await client.aclose()


async def test_a_restart_resets_no_window(own_redis: EmbeddedRedis) -> None:
    """Restart: peers begin each window anew when server or sidecar start again."""
    view = CatalogInMemory(catalog(window(limit=10)))
    async with pair(own_redis.url, view) as first:
        before = await first.a.CheckAndConsume(charge("op", 7))
        held = await first.reserve(2, name="job", ttl_ms=600_000)
    await own_redis.kill()
    await own_redis.start()
    async with pair(own_redis.url, view) as second:
        again = await second.a.CheckAndConsume(charge("op", 7))
        assert (again.replayed, again.limits) == (True, before.limits)
        refused = await second.a.CheckAndConsume(charge("", 2))
        assert (refused.allowed, refused.limits[0].used) == (False, 9)
        assert refused.limits[0].resets_at == before.limits[0].resets_at
        # Redis alone goes away and comes back, without its scripts.
        await own_redis.kill()
        await own_redis.start()

        async def settled() -> bool:
            try:
                done = await second.commit(held)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise
            return done.outcome == quota_pb2.RESERVATION_OUTCOME_COMMITTED

        await eventually(settled, what="the commit")
        assert await second.used() == {"monthly": 9}


async def test_one_operation_with_two_contents_is_one_of_them(redis_url: str) -> None:
    """Same key, other payload, at once: peers charge both, or answer one with the other's reply."""
    async with pair(redis_url, CatalogInMemory(catalog(window(limit=1_000)))) as side:

        async def ask(number: int) -> tuple[int, bool | None]:
            amount = 3 + number % 2
            stub = (side.a, side.b)[number // 2 % 2]
            try:
                reply = await stub.CheckAndConsume(charge("the-one", amount))
            except grpc.aio.AioRpcError as error:
                return amount, None if "used before" in str(error.details()) else True
            assert reply.limits[0].used == amount
            return amount, reply.replayed

        answers = await asyncio.gather(*(ask(number) for number in range(100)))
        (winner,) = {amount for amount, replayed in answers if replayed is not None}
        assert [replayed for _, replayed in answers].count(False) == 1
        assert [replayed for _, replayed in answers].count(None) == 50
        assert await side.amounts() == [winner]


async def test_a_limit_that_goes_and_comes_back_keeps_its_count(redis_url: str) -> None:
    """Live changes: peers begin anew, or keep refusing by a limit that is deleted."""
    view = CatalogInMemory(catalog(window(limit=10)))
    async with pair(redis_url, view) as side:
        await side.a.CheckAndConsume(charge("", 10))
        assert not (await side.b.CheckAndConsume(charge())).allowed
        view.catalog = catalog(version=2)
        free = await side.b.CheckAndConsume(charge("", 5))
        assert (free.allowed, len(free.limits)) == (True, 0)
        view.catalog = catalog(window(limit=12), version=3)
        assert await side.used() == {"monthly": 10}
        assert not (await side.a.CheckAndConsume(charge("", 3))).allowed
        assert (await side.a.CheckAndConsume(charge("", 2))).allowed


class Skewed(SystemClock):
    """A machine's clock that is off by hours."""

    by_us = 0

    def now_us(self) -> int:
        """Return its time."""
        return super().now_us() + self.by_us


async def test_skewed_sidecars_share_one_window(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clocks: peers that go by their own open a window each; here Redis' clock decides."""
    view = CatalogInMemory(catalog(window("daily", 20, period=Period.DAY)))
    async with AsyncExitStack() as stack:
        stubs: list[quota_pb2_grpc.QuotaServiceAsyncStub] = []
        for source, by_us in (("a", -30 * HOUR_US), ("b", 30 * HOUR_US)):
            clock = type(f"Skewed{source}", (Skewed,), {"by_us": by_us})
            monkeypatch.setattr("tests.sidecar.SystemClock", clock)
            address = await stack.enter_async_context(sidecar(redis_url, view, Tuning(source)))
            opened = await stack.enter_async_context(channel(address))
            stubs.append(quota_pb2_grpc.QuotaServiceStub(opened))
        replies = await asyncio.gather(
            *(stubs[n % 2].CheckAndConsume(charge(f"op-{n}")) for n in range(60))
        )
        assert sum(reply.allowed for reply in replies) == 20
        assert len({reply.limits[0].resets_at.ToMicroseconds() for reply in replies}) == 1


async def test_a_clock_that_steps_opens_no_second_window(redis_url: str) -> None:
    """Clock step: peers grant a window's units again when the server's clock is set back."""
    view = CatalogInMemory(catalog(window("hourly", 10, period=Period.HOUR)))
    async with pair(redis_url, view, shifting=True) as side:
        assert (await side.a.CheckAndConsume(charge("", 10))).allowed
        side.shift.by_us += HOUR_US
        assert (await side.b.CheckAndConsume(charge("", 10))).allowed
        for by_us in (0, HOUR_US, HOUR_US // 2, HOUR_US):
            side.shift.by_us = by_us
            assert not (await side.a.CheckAndConsume(charge())).allowed
            assert not (await side.b.CheckAndConsume(charge())).allowed
        side.shift.by_us = 2 * HOUR_US
        assert (await side.a.CheckAndConsume(charge("", 10))).allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [20_000, pytest.param(100_000, marks=pytest.mark.faults_long)], ids=str
)
async def test_made_up_keys_end_with_their_windows(redis_url: str, count: int) -> None:
    """Cardinality: peers keep every key they ever saw; here each ends, and costs what is stated."""
    minute = window("minute", 5, period=Period.MINUTE)
    async with rig(redis_url, timeout_ms=30_000) as it:
        empty = (await it.beside.info("memory"))["used_memory"]
        for start in range(0, count, PER_CALL):
            outcomes = await it.store.decide(
                [
                    consume(
                        tenant_id=TenantId(f"made-up-{n}"),
                        shard=n % SHARDS,
                        charges=charges([minute], 1, TenantId(f"made-up-{n}")),
                    )
                    for n in range(start, start + PER_CALL)
                ]
            )
            assert all(decided(outcome).allowed for outcome in outcomes)
        spent = (await it.beside.info("memory"))["used_memory"] - empty
        assert spent < count * BYTES_PER_KEY_MAX
        lasting = {keys.stream(shard) for shard in range(SHARDS)}
        lasting |= {keys.meta(shard) for shard in range(SHARDS)} | {keys.layout()}
        names = [name async for name in it.beside.scan_iter("*", count=10_000)]
        pipeline = it.beside.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        ends = await pipeline.execute()
        without = {
            name.decode() for name, left in zip(names, ends, strict=True) if left < 0
        } - lasting
        assert without == set()
        # A window of a minute, the minute after it, and the hour that spares later calls.
        assert max(ends) <= 2 * 60_000 + 3_600_000
