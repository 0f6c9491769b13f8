"""Refunds over real sidecars: what comes back, and what is never given back twice."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.window import DAY_US, MINUTE_US, Period
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2
from tests.api.phases import Pair, by_limit, item, pair, refunding
from tests.builders import REQUESTS, CatalogInMemory, catalog, rate, window
from tests.sidecar import charge, failure


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Pair]:
    """Two sidecars with one limit of a hundred requests a month."""
    async with pair(redis_url, CatalogInMemory(catalog(window()))) as made:
        yield made


async def test_a_refund_gives_quota_back_and_records_it(side: Pair) -> None:
    """The counter falls, and a negative event is linked to the first and dated as it is."""
    await side.a.CheckAndConsume(charge("op", 60))
    reply = await side.refund("op:0", 25, operation_id="back", reason="did not work")
    assert (reply.event_id, reply.amount, reply.replayed) == ("back:0", 25, False)
    assert reply.durability == event_pb2.DURABILITY_REDIS
    assert by_limit(reply.limits, "acme") == await side.used() == {"monthly": 35}
    first, taken = await side.events()
    assert (taken.amount, taken.refund_of, taken.event_id) == (-25, "op:0", "back:0")
    assert (taken.meter, taken.operation_id) == ("requests", "back")
    assert taken.event_time_us == first.event_time_us
    assert taken.received_at_us > first.received_at_us
    assert json.loads(taken.metadata_json) == {"reason": "did not work"}
    # What was edited is nothing.
    assert (first.amount, first.refund_of) == (60, "")


async def test_parts_and_the_rest_and_no_more(side: Pair) -> None:
    """Parts add up; 0 takes all that is left; beyond that nothing is taken, whoever asks."""
    await side.a.CheckAndConsume(charge("op", 60))
    await side.refund("op:0", 25)
    told = await failure(side.refund("op:0", 36))
    assert (told.reason, told.fields) == ("REFUND_TOO_LARGE", ["amount"])
    assert "35" in told.message
    assert await side.used() == {"monthly": 35}
    assert (await side.refund("op:0")).amount == 35
    for amount in (0, 1):
        again = await failure(side.refund("op:0", amount, operation_id=f"more-{amount}"))
        assert again.reason == "REFUND_TOO_LARGE"
    assert await side.used() == {"monthly": 0}
    assert await side.amounts() == [60, -25, -35]


@pytest.mark.parametrize("amount", [25, 0], ids=["a part", "the rest"])
async def test_a_repeat_gets_the_first_reply(side: Pair, amount: int) -> None:
    """A retry on any sidecar takes nothing more and hears what was taken at first."""
    await side.a.CheckAndConsume(charge("op", 60))
    first = await side.refund("op:0", amount)
    again = await side.b.Refund(refunding("op:0", amount))
    assert again.replayed
    again.replayed = False
    assert again == first
    name = refunding("op:0", amount).operation_id
    other = await failure(side.refund("op:0", 7, operation_id=name))
    assert (other.reason, other.fields) == ("OPERATION_ID_REUSED", ["operation_id"])
    assert len(await side.events()) == 2


async def test_racing_refunds_take_an_event_back_once(side: Pair) -> None:
    """Fifty that ask for a tenth each get ten between them."""
    await side.a.CheckAndConsume(charge("op", 100))

    async def left_nothing(number: int) -> bool:
        stub = (side.a, side.b)[number % 2]
        try:
            await stub.Refund(refunding("op:0", 10, operation_id=f"r-{number}"))
        except grpc.aio.AioRpcError as error:
            return error.details() == "the event has 0 units left to refund"
        return False

    refused = await asyncio.gather(*(left_nothing(number) for number in range(50)))
    assert sum(refused) == 40
    assert await side.used() == {"monthly": 0}
    assert sum(await side.amounts()) == 0


async def test_every_way_to_record_can_be_refunded(side: Pair) -> None:
    """Events of RecordUsage, of a list's items, of commits and of their excess, by their ids."""
    await side.record(7, "seen:by:sensor")
    reply = await side.usage.BatchRecordUsage(
        usage_pb2.BatchRecordUsageRequest(
            requests=[
                usage_pb2.RecordUsageRequest(
                    tenant_id="acme", meter="requests", amount=5, operation_id=name
                )
                for name in ("one", "two")
            ]
        )
    )
    assert all(result.HasField("response") for result in reply.results)
    await side.a.CheckAndConsume(charge("op", 2, 3))
    held = await side.reserve(10, name="job")
    done = await side.commit(held, 14)
    assert await side.used() == {"monthly": 36}
    ids = ["seen:by:sensor", reply.results[1].response.event_id, "op:1", *done.event_ids]
    taken = [(await side.refund(each)).amount for each in ids]
    assert taken == [7, 5, 3, 10, 4]
    assert await side.used() == {"monthly": 7}
    backs = (await side.events())[-5:]
    assert [event.refund_of for event in backs] == ids
    assert [event.reservation_id for event in backs[-2:]] == [held.reservation_id] * 2


@pytest.mark.parametrize("length", [126, 127, 128])
async def test_the_longest_ids_can_be_refunded(side: Pair, length: int) -> None:
    """Events of operations and reservations whose ids are as long as may be have ids that work."""
    name = "x" * length
    reply = await side.a.CheckAndConsume(charge(name, *[1] * 11))
    assert (await side.refund(reply.event_ids[10], operation_id="r-1")).amount == 1
    held = await side.reserve(5, name="y" * length)
    done = await side.commit(held, 9)
    for event_id in done.event_ids:
        await side.refund(event_id, operation_id=f"r-{event_id[-1]}{len(event_id)}")
    assert await side.used() == {"monthly": 10}


async def test_what_cannot_be_refunded_is_told(side: Pair) -> None:
    """Unknown events, another tenant's, refunds themselves, and nothing that was never recorded."""
    await side.a.CheckAndConsume(charge("op", 5))
    held = await side.reserve(5, name="job")
    back = await side.refund("op:0", 2)
    for event_id, tenant in (
        ("nobody:0", "acme"),
        ("nobody", "acme"),
        ("op:1", "acme"),
        ("op", "acme"),
        ("op:0", "spy"),
        ("op:\u00b2", "acme"),
        ("job:0", "acme"),
        (f"{held.reservation_id}#c:0", "acme"),
    ):
        told = await failure(side.refund(event_id, tenant_id=tenant, operation_id="try"))
        wanted = "INVALID_FIELD" if not event_id.isascii() else "EVENT_NOT_FOUND"
        assert (told.reason, told.fields) == (wanted, ["event_id"]), event_id
    told = await failure(side.refund(back.event_id, operation_id="again"))
    assert (told.reason, told.fields) == ("INVALID_FIELD", ["event_id"])
    assert await side.used() == {"monthly": 8}


async def test_a_counted_event_counts_until_all_of_it_is_back(redis_url: str) -> None:
    """Of a meter that counts, parts leave the one event counted, and the last part frees it."""
    meters = {REQUESTS: Meter(REQUESTS, Aggregation.COUNT)}
    async with pair(redis_url, CatalogInMemory(catalog(window(), meters=meters))) as side:
        await side.a.CheckAndConsume(charge("op", 5, 7))
        assert await side.used() == {"monthly": 2}
        await side.refund("op:0", 3)
        assert await side.used() == {"monthly": 2}
        await side.refund("op:0", 2)
        assert await side.used() == {"monthly": 1}
        await side.refund("op:1")
        assert await side.used() == {"monthly": 0}
        assert await side.amounts() == [5, 7, -3, -2, -7]


async def test_racing_parts_free_a_counted_event_once(redis_url: str) -> None:
    """Whoever brings the last part frees the event, however many parts come at once."""
    meters = {REQUESTS: Meter(REQUESTS, Aggregation.COUNT)}
    async with pair(redis_url, CatalogInMemory(catalog(window(), meters=meters))) as side:
        await side.a.CheckAndConsume(charge("op", 20, 1))
        await asyncio.gather(
            *(
                (side.a, side.b)[n % 2].Refund(refunding("op:0", 1, operation_id=f"r-{n}"))
                for n in range(20)
            )
        )
        assert await side.used() == {"monthly": 1}


async def test_units_come_back_where_they_were_used(redis_url: str) -> None:
    """Yesterday's event gives today nothing, and yesterday's commit neither; its tokens drain."""
    day = window("daily", 100, period=Period.DAY)
    view = CatalogInMemory(catalog(day, rate(limit=100)))
    async with pair(redis_url, view, shifting=True) as side:
        side.shift.by_us = DAY_US - side.shift.now_us() % DAY_US - MINUTE_US
        await side.a.CheckAndConsume(charge("op", 30))
        held = await side.reserve(20, name="job", ttl_ms=600_000)
        side.shift.by_us += 2 * MINUTE_US
        done = await side.commit(held)
        await side.a.CheckAndConsume(charge("today", 40))
        for event_id in ("op:0", *done.event_ids):
            await side.refund(event_id)
        assert (await side.used())["daily"] == 40
        await side.refund("today:0", 15)
        assert (await side.used())["daily"] == 25


async def test_items_by_dimension_are_refunded_in_their_scope(redis_url: str) -> None:
    """A limit per dimension value gives back to that value's counter."""
    large = {"model": "large"}
    view = CatalogInMemory(catalog(window(), window("each", 50, per="model")))
    async with pair(redis_url, view) as side:
        await side.a.CheckAndConsume(
            quota_pb2.CheckAndConsumeRequest(
                tenant_id="acme",
                operation_id="op",
                items=[item(30, "requests", large), item(20, "requests", {"model": "small"})],
            )
        )
        await side.refund("op:0", 12)
        assert await side.used(dimensions=large) == {"monthly": 38, "each": 18}
        assert await side.used(dimensions={"model": "small"}) == {"monthly": 38, "each": 20}
