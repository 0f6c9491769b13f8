"""Reservations of several items, over every kind of limit and scope, and across windows."""

from collections.abc import AsyncIterator

import pytest

from tallygate.domain.catalog import Aggregation, LimitKind, Meter, Weight
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import DAY_US, MINUTE_US, Period
from tallygate.gen.v1 import quota_pb2
from tests.api.phases import COMMITTED, PARTIALLY, Pair, item, pair
from tests.builders import BYTES, REQUESTS, CatalogInMemory, catalog, tenant, window
from tests.servers import eventually
from tests.sidecar import charge, failure

LARGE = {"model": "large"}
SMALL = {"model": "small"}


async def test_items_are_held_together_or_not_at_all(redis_url: str) -> None:
    """One item too many leaves all others free."""
    view = CatalogInMemory(catalog(window(), window("bytes", 1_000, meter=BYTES)))
    async with pair(redis_url, view) as side:
        refused = await side.reserve(items=[item(10), item(1_001, "egress_bytes")])
        assert (refused.allowed, refused.refused_by) == (False, "bytes")
        assert await side.used() == {"monthly": 0, "bytes": 0}
        held = await side.reserve(items=[item(10), item(600, "egress_bytes"), item(5)])
        assert await side.used() == {"monthly": 15, "bytes": 600}
        done = await side.commit(held, 4, 0, 5)
        assert done.outcome == COMMITTED
        assert await side.used() == {"monthly": 9, "bytes": 0}
        assert [(event.meter, event.amount) for event in await side.events()] == [
            ("requests", 4),
            ("requests", 5),
        ]


async def test_an_excess_is_all_or_nothing_too(redis_url: str) -> None:
    """Where one item's excess is refused none is recorded, and each is told."""
    view = CatalogInMemory(catalog(window(), window("bytes", 1_000, meter=BYTES)))
    async with pair(redis_url, view) as side:
        held = await side.reserve(items=[item(10), item(600, "egress_bytes")])
        done = await side.commit(held, 12, 1_001)
        assert (done.outcome, done.refused_by) == (PARTIALLY, "bytes")
        assert list(done.unrecorded) == [2, 401]
        assert await side.used() == {"monthly": 10, "bytes": 600}
        assert await side.amounts() == [10, 600]


async def test_amounts_have_to_fit_the_items(redis_url: str) -> None:
    """One amount per item, or none at all; what does not fit settles nothing."""
    async with pair(redis_url, CatalogInMemory(catalog(window()))) as side:
        held = await side.reserve(10, 20)
        for amounts in ((1,), (1, 2, 3)):
            told = await failure(side.commit(held, *amounts))
            assert (told.reason, told.fields) == ("INVALID_FIELD", ["amounts"])
        assert await side.used() == {"monthly": 30}


async def test_a_meter_that_counts_holds_one(redis_url: str) -> None:
    """Of a meter that counts events an item holds one, however much is used; nothing frees it."""
    meters = {REQUESTS: Meter(REQUESTS, Aggregation.COUNT)}
    async with pair(redis_url, CatalogInMemory(catalog(window(), meters=meters))) as side:
        more, none = await side.reserve(50, name="more"), await side.reserve(50, name="none")
        assert await side.used() == {"monthly": 2}
        assert (await side.commit(more, 70)).outcome == COMMITTED
        assert (await side.commit(none, 0)).outcome == COMMITTED
        assert await side.used() == {"monthly": 1}
        assert await side.amounts() == [70]


async def test_weights_hold_what_they_charge(redis_url: str) -> None:
    """Usage that counts on another meter is held, settled and exceeded by its weight."""
    credit, search = MeterName("credits"), MeterName("searches")
    weight = Weight(search, 5, by="model", values=(("large", 20),))
    meters = {
        credit: Meter(credit, Aggregation.SUM, weights=(weight,)),
        search: Meter(search, Aggregation.SUM),
    }
    view = CatalogInMemory(catalog(window("credits", 100, meter=credit), meters=meters))
    async with pair(redis_url, view) as side:
        held = await side.reserve(
            items=[item(3, "searches", LARGE), item(4, "searches", SMALL)], name="job"
        )
        assert await side.used() == {"credits": 80}
        done = await side.commit(held, 1, 4)
        assert await side.used() == {"credits": 40}
        assert done.outcome == COMMITTED
        held = await side.reserve(items=[item(1, "searches", LARGE)])
        # 60 used: two more of 20 fit, three do not.
        assert (await side.commit(held, 4)).outcome == PARTIALLY
        assert await side.used() == {"credits": 60}


async def test_scopes_hold_in_their_own_counters(redis_url: str) -> None:
    """A limit per dimension value holds and frees that value's units alone."""
    each = window("each", 10, per="model")
    view = CatalogInMemory(
        catalog(window(), each, window("large", 6, where=(("model", ("large",)),)))
    )
    async with pair(redis_url, view) as side:
        held = await side.reserve(
            items=[item(6, "requests", LARGE), item(8, "requests", SMALL)], name="job"
        )
        assert await side.used(dimensions=LARGE) == {"monthly": 14, "each": 6, "large": 6}
        assert await side.used(dimensions=SMALL) == {"monthly": 14, "each": 8}
        refused = await side.reserve(items=[item(3, "requests", SMALL)])
        assert refused.refused_by == "each"
        assert (await side.commit(held, 2, 8)).outcome == COMMITTED
        assert await side.used(dimensions=LARGE) == {"monthly": 10, "each": 2, "large": 2}
        assert await side.used(dimensions=SMALL) == {"monthly": 10, "each": 8}


async def test_parents_hold_with_their_children(redis_url: str) -> None:
    """What a project reserves its organisation has reserved, and gets back with it."""
    tenants = {
        TenantId("org"): tenant("org"),
        TenantId("team"): tenant("team", parent=TenantId("org")),
        TenantId("acme"): tenant("acme", parent=TenantId("team")),
        TenantId("twin"): tenant("twin", parent=TenantId("team")),
    }
    async with pair(redis_url, CatalogInMemory(catalog(window()), tenants)) as side:
        held = await side.reserve(60)
        assert await side.used() == {"monthly": 60, "team/monthly": 60, "org/monthly": 60}
        refused = await side.reserve(41, tenant_id="twin")
        assert not refused.allowed
        assert (await side.commit(held, 35)).outcome == COMMITTED
        assert await side.used() == {"monthly": 35, "team/monthly": 35, "org/monthly": 35}
        assert (await side.used("twin"))["monthly"] == 0


async def test_a_sliding_limit_takes_units_back_from_their_bucket(redis_url: str) -> None:
    """What is released leaves the trailing time at once, wherever in it it was reserved."""
    sliding = window("hour", 100, kind=LimitKind.SLIDING, period=None, duration_us=60 * MINUTE_US)
    async with pair(redis_url, CatalogInMemory(catalog(sliding)), shifting=True) as side:
        held = await side.reserve(60, ttl_ms=3_600_000)
        side.shift.by_us += 10 * MINUTE_US
        await side.a.CheckAndConsume(charge("", 40))
        await side.commit(held, 10)
        assert await side.used() == {"hour": 50}
        # The ten belong to when they were reserved, and leave with that moment.
        side.shift.by_us += 52 * MINUTE_US
        assert await side.used() == {"hour": 40}


@pytest.fixture
async def slots(redis_url: str) -> AsyncIterator[Pair]:
    """Two sidecars with two slots, of which a request takes one while it is held."""
    limit = window("slots", 2, kind=LimitKind.CONCURRENCY, period=None)
    async with pair(redis_url, CatalogInMemory(catalog(limit))) as made:
        yield made


async def test_concurrency_is_given_back_however_it_ends(slots: Pair) -> None:
    """A commit and a release free what was held; a charge finds room or not, and takes none."""
    one, two = await slots.reserve(1), await slots.reserve(1)
    refused = await slots.reserve(1)
    assert (refused.allowed, refused.refused_by) == (False, "slots")
    # The end of the one held first, and the part by which those who were refused come apart.
    assert 0 < refused.retry_after.ToMilliseconds() <= 61_000
    assert not (await slots.a.CheckAndConsume(charge())).allowed
    await slots.commit(one)
    await slots.release(two)
    assert await slots.used() == {"slots": 0}
    assert (await slots.a.CheckAndConsume(charge("", 2))).allowed
    assert await slots.used() == {"slots": 0}


async def test_a_dead_holders_units_come_back(slots: Pair) -> None:
    """Who does not ask to keep its units loses them in time; who does keeps them."""
    dead, alive = await slots.reserve(1, ttl_ms=300), await slots.reserve(1, ttl_ms=60_000)

    async def free() -> bool:
        return (await slots.reserve(1)).allowed

    await eventually(free, what="the dead holder's unit")
    assert not await free()
    assert (await slots.release(alive)).outcome == quota_pb2.RESERVATION_OUTCOME_RELEASED
    assert (await slots.commit(dead)).outcome == quota_pb2.RESERVATION_OUTCOME_EXPIRED


async def test_usage_belongs_to_the_window_of_its_reservation(redis_url: str) -> None:
    """A window that turns meanwhile gets the excess alone, and gives nothing back."""
    day = window("daily", 100, period=Period.DAY)
    async with pair(redis_url, CatalogInMemory(catalog(day)), shifting=True) as side:
        # A minute before midnight.
        side.shift.by_us = DAY_US - side.shift.now_us() % DAY_US - MINUTE_US
        less = await side.reserve(60, name="less", ttl_ms=600_000)
        more = await side.reserve(40, name="more", ttl_ms=600_000)
        assert not (await side.reserve(1)).allowed
        side.shift.by_us += 2 * MINUTE_US
        assert (await side.commit(less, 10)).outcome == COMMITTED
        assert await side.used() == {"daily": 0}
        assert (await side.commit(more, 45)).outcome == COMMITTED
        assert await side.used() == {"daily": 5}
        dated = [(event.amount, event.event_time_us // DAY_US) for event in await side.events()]
        first = dated[0][1]
        assert dated == [(10, first), (40, first), (5, first + 1)]


async def test_a_limit_that_comes_later_counts_what_is_settled(redis_url: str) -> None:
    """A limit that held nothing, as it was not there yet, is charged with what was used."""
    view = CatalogInMemory(catalog(window()))
    async with pair(redis_url, view) as side:
        held = await side.reserve(60)
        view.catalog = catalog(window("other"), version=2)
        assert (await side.commit(held, 35)).outcome == COMMITTED
        assert await side.used() == {"other": 35}
        view.catalog = catalog(window(), version=3)
        assert await side.used() == {"monthly": 0}
