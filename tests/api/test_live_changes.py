"""What a change of the catalog does to usage, reservations and events, without a restart."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from tallygate.gen.v1 import quota_pb2
from tests.live import Live, document, live, monthly
from tests.servers import eventually
from tests.sidecar import failure

COMMITTED = quota_pb2.RESERVATION_OUTCOME_COMMITTED
RELEASED = quota_pb2.RESERVATION_OUTCOME_RELEASED


@pytest.fixture(params=["file", "redis"])
async def site(
    request: pytest.FixtureRequest, redis_url: str, tmp_path: Path
) -> AsyncIterator[Live]:
    """A sidecar with ten requests a month, its catalog from a file, or from Redis."""
    path = tmp_path / "catalog.yaml" if request.param == "file" else None
    async with live(redis_url, document(monthly(10)), path) as found:
        yield found


async def test_a_raise_keeps_what_is_used(site: Live) -> None:
    """A higher number is compared with the same usage: what was refused passes."""
    (caller,) = site.sidecars
    await caller.consume(9)
    assert not (await caller.consume(2, name="late")).allowed
    await site.apply(document(monthly(11)))
    passed = await caller.consume(2, name="late")
    assert (passed.allowed, passed.replayed, passed.limits[0].used) == (True, False, 11)


async def test_a_lowered_limit_takes_nothing_back(site: Live) -> None:
    """Below what is used, the next unit is refused, and what was granted stays granted."""
    (caller,) = site.sidecars
    await caller.consume(9)
    await site.apply(document(monthly(5)))
    refused = await caller.consume(1)
    assert (refused.allowed, refused.limits[0].used, refused.limits[0].remaining) == (False, 9, 0)
    assert len(await site.events()) == 1


async def test_another_plan_goes_on_with_limits_of_the_same_id(site: Live) -> None:
    """Of one id, kind and period, usage is carried from plan to plan; others start at 0."""
    (caller,) = site.sidecars
    await caller.consume(9)
    daily = {**monthly(7), "id": "daily", "period": "day"}
    pro = {"pro": {"limits": [monthly(100), daily]}}
    await site.apply(document(monthly(10), plans=pro, tenants={"acme": {"plan": "pro"}}))
    assert (await caller.consume(1)).allowed
    assert await caller.limits() == {"acme/monthly": (10, 100), "acme/daily": (1, 7)}
    await site.apply(document(monthly(10), plans=pro, tenants={"acme": {"plan": "free"}}))
    assert await caller.limits() == {"acme/monthly": (10, 10)}


@pytest.mark.parametrize(
    "other",
    [{"period": "day"}, {"kind": "rate", "period": "minute"}],
    ids=["period", "kind"],
)
async def test_what_measures_otherwise_starts_anew(site: Live, other: dict[str, str]) -> None:
    """A limit of another kind or period has another counter; back again, it finds the first."""
    (caller,) = site.sidecars
    await caller.consume(9)
    await site.apply(document(monthly(10, **other)))
    assert await caller.limits() == {"acme/monthly": (0, 10)}
    assert (await caller.consume(10)).allowed
    await site.apply(document(monthly(10)))
    assert await caller.limits() == {"acme/monthly": (9, 10)}


async def test_unlimited_and_back_counts_on(site: Live) -> None:
    """While a limit is unlimited it refuses nothing, and counts all the same."""
    (caller,) = site.sidecars
    await site.apply(document(monthly("unlimited")))
    assert (await caller.consume(500)).allowed
    await site.apply(document(monthly(501)))
    assert [(await caller.consume(1)).allowed for _ in range(2)] == [True, False]


async def test_an_override_appears_changes_and_goes(site: Live) -> None:
    """Each step compares the same usage with another number."""
    (caller,) = site.sidecars
    await caller.consume(10)
    found = []
    for override in ({"monthly": {"limit": 30}}, {"monthly": {"limit": 20}}, {}):
        tenants = {"acme": {"plan": "free", "overrides": override}}
        await site.apply(document(monthly(10), tenants=tenants))
        found.append(await caller.limits())
    assert [each["acme/monthly"] for each in found] == [(10, 30), (10, 20), (10, 10)]


async def test_an_override_ends_by_itself(site: Live) -> None:
    """At the instant that it names, no earlier and without a new catalog, the plan is back."""
    (caller,) = site.sidecars
    # Whole seconds, as documents have them.
    ends = int(time.time()) + 3
    until = datetime.fromtimestamp(ends, UTC).isoformat()
    override = {"monthly": {"limit": 30, "expires": until}}
    tenants = {"acme": {"plan": "free", "overrides": override}}
    await site.apply(document(monthly(10), tenants=tenants))
    assert (await caller.consume(20)).allowed
    seen: list[tuple[float, float, int]] = []

    async def over() -> bool:
        asked = time.time()
        limit = (await caller.limits())["acme/monthly"][1]
        seen.append((asked, time.time(), limit))
        return limit == 10

    await eventually(over, 10, what="the plan's number")
    assert all(asked < ends for asked, _, limit in seen if limit == 30)
    assert seen[-1][1] >= ends
    assert not (await caller.consume(1)).allowed


async def test_another_anchor_restarts_what_begins_later(site: Live) -> None:
    """A window that begins later starts at 0; one that begins earlier takes in what is counted."""
    (caller,) = site.sidecars
    days = [datetime.now(UTC).date() - timedelta(days=back) for back in (10, 5)]
    used = []
    for anchor in (days[0], days[1], days[0]):
        tenants = {"acme": {"plan": "free", "anchor": anchor}}
        await site.apply(document(monthly(10, period="billing_period"), tenants=tenants))
        used.append((await caller.consume(1)).limits[0].used)
    assert used == [1, 1, 2]


@pytest.mark.parametrize("suspended", ["acme", "org"])
async def test_a_suspended_tenant_is_granted_nothing(site: Live, suspended: str) -> None:
    """Nor is one below it. What was promised goes on: usage, commits, releases and readings."""
    (caller,) = site.sidecars
    family = {"org": {"plan": "free"}, "acme": {"plan": "free", "parent": "org"}}
    await site.apply(document(monthly(10), tenants=family))
    held = [await caller.reserve(2) for _ in range(2)]
    stopped = {**family, suspended: {**family[suspended], "suspended": True}}
    await site.apply(document(monthly(10), tenants=stopped))
    item = quota_pb2.Item(meter="requests", amount=1)
    check = quota_pb2.CheckRequest(tenant_id="acme", items=[item])
    for call in (caller.consume(1), caller.reserve(1), caller.quota.Check(check)):
        failed = await failure(call)
        assert failed.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (failed.reason, suspended in failed.message) == ("TENANT_SUSPENDED", True)
    await caller.record(3)
    assert (await caller.commit(held[0].reservation_id)).outcome == COMMITTED
    assert (await caller.release(held[1].reservation_id)).outcome == RELEASED
    assert await caller.limits() == {"acme/monthly": (5, 10), "org/monthly": (5, 10)}
    assert sum(event.amount for event in await site.events()) == 5
    await site.apply(document(monthly(10), tenants=family))
    assert (await caller.consume(5)).allowed


async def test_a_deleted_meter_settles_what_was_reserved(site: Live) -> None:
    """Its events reach the stream; new calls are refused; back again, its limits count on."""
    (caller,) = site.sidecars
    both = ("requests", "images")
    images = {**monthly(10), "id": "images", "meter": "images"}
    await site.apply(document(monthly(10), images, meters=both))
    held = [await caller.reserve(4, meter="images") for _ in range(2)]
    await site.apply(document(monthly(10)))
    failed = await failure(caller.consume(1, meter="images"))
    assert failed.reason == "UNKNOWN_METER"
    settled = await caller.commit(held[0].reservation_id, 3)
    assert (settled.outcome, len(settled.event_ids)) == (COMMITTED, 1)
    assert (await caller.release(held[1].reservation_id)).outcome == RELEASED
    assert [(event.meter, event.amount) for event in await site.events()] == [("images", 3)]
    await site.apply(document(monthly(10), images, meters=both))
    assert (await caller.limits())["acme/images"] == (0, 10)


async def test_a_reservation_of_a_limit_that_went_gives_its_units_back(site: Live) -> None:
    """A commit under another plan settles with the limits that both have, and charges new ones."""
    (caller,) = site.sidecars
    held = await caller.reserve(6)
    daily = {**monthly(7), "id": "daily", "period": "day"}
    await site.apply(document(daily))
    assert (await caller.commit(held.reservation_id, 5)).outcome == COMMITTED
    assert await caller.limits() == {"acme/daily": (5, 7)}
    await site.apply(document(monthly(10)))
    assert await caller.limits() == {"acme/monthly": (0, 10)}


async def test_changes_under_load_lose_no_unit(site: Live) -> None:
    """While the number goes up and down, usage is exactly what was granted."""
    (caller,) = site.sidecars
    granted = 0

    async def consume() -> None:
        nonlocal granted
        for _ in range(30):
            reply = await caller.consume(1)
            granted += reply.allowed

    async def change() -> None:
        for limit in (5, 40, 20, 80):
            await site.apply(document(monthly(limit)))

    await asyncio.gather(change(), *(consume() for _ in range(4)))
    assert (await caller.limits())["acme/monthly"] == (granted, 80)
    assert 5 <= granted <= 80
