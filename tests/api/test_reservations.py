"""The two phases over real sidecars: what is held, what settles it, and what is said of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallygate.gen.v1 import event_pb2, quota_pb2
from tests.api.phases import (
    ALREADY_COMMITTED,
    ALREADY_RELEASED,
    COMMITTED,
    EXPIRED,
    EXTENDED,
    PARTIALLY,
    RELEASED,
    Pair,
    by_limit,
    committing,
    pair,
    reserving,
)
from tests.builders import CatalogInMemory, catalog, rate, window
from tests.servers import eventually
from tests.sidecar import charge, failure

MINUTE_MS = 60_000
RECORD = quota_pb2.EXCESS_RECORD


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Pair]:
    """Two sidecars with one limit of a hundred requests a month."""
    async with pair(redis_url, CatalogInMemory(catalog(window()))) as made:
        yield made


async def test_what_is_reserved_counts_everywhere(side: Pair) -> None:
    """A reservation is in every answer of every sidecar at once, and no event tells of it yet."""
    held = await side.reserve(60, name="job")
    assert (held.allowed, held.reservation_id[2:]) == (True, "-job")
    assert held.limits[0].used == 60
    refused = await side.b.Reserve(reserving(41))
    assert (refused.allowed, refused.refused_by, refused.reservation_id) == (False, "monthly", "")
    assert not refused.HasField("expires_at")
    assert refused.HasField("retry_after")
    assert not (await side.b.CheckAndConsume(charge("", 41))).allowed
    assert (await side.used()) == {"monthly": 60}
    assert await side.events() == []


@pytest.mark.parametrize(
    ("amounts", "left", "recorded"),
    [((), 60, [60]), ((60,), 60, [60]), ((13,), 13, [13]), ((0,), 0, []), ((75,), 75, [60, 15])],
    ids=["what was reserved", "as much", "less", "nothing", "more"],
)
async def test_a_commit_counts_what_was_used(
    side: Pair, amounts: tuple[int, ...], left: int, recorded: list[int]
) -> None:
    """Less gives the rest back, more is asked for; the events add up to what was used."""
    held = await side.reserve(60, name="job")
    done = await side.commit(held, *amounts)
    assert (done.outcome, done.refused_by, list(done.unrecorded)) == (COMMITTED, "", [])
    assert by_limit(done.limits, "acme") == await side.used() == {"monthly": left}
    events = await side.events()
    assert [event.amount for event in events] == recorded
    assert [event.event_id for event in events] == list(done.event_ids)
    assert {event.reservation_id for event in events} <= {held.reservation_id}
    stored = event_pb2.DURABILITY_REDIS if recorded else event_pb2.DURABILITY_UNSPECIFIED
    assert done.durability == stored


async def test_an_event_is_dated_when_its_units_were_reserved(redis_url: str) -> None:
    """What was reserved is used from then on; what goes beyond is used when it is settled."""
    view = CatalogInMemory(catalog(window()))
    async with pair(redis_url, view, shifting=True) as side:
        began_us = side.shift.now_us()
        held = await side.reserve(10, name="job")
        side.shift.by_us += 30_000_000
        await side.commit(held, 15)
        covered, excess = await side.events()
        assert 0 <= covered.event_time_us - began_us < 10_000_000
        assert covered.received_at_us - covered.event_time_us >= 30_000_000
        assert excess.event_time_us - covered.event_time_us >= 30_000_000


async def test_a_refused_excess_is_never_silent(side: Pair) -> None:
    """What does not fit is said by item and limit, and is neither counted nor recorded."""
    held = await side.reserve(60, name="job")
    await side.a.CheckAndConsume(charge("", 30))
    done = await side.commit(held, 71)
    assert (done.outcome, done.refused_by) == (PARTIALLY, "monthly")
    assert list(done.unrecorded) == [11]
    assert await side.used() == {"monthly": 90}
    assert await side.amounts() == [30, 60]
    again = await side.commit(held, 71)
    assert again.replayed
    again.replayed = False
    assert again == done


async def test_an_excess_is_recorded_where_the_work_is_done(side: Pair) -> None:
    """With EXCESS_RECORD the limit is passed, as by RecordUsage, and the next check sees it."""
    held = await side.reserve(60)
    done = await side.commit(held, 171, excess=RECORD)
    assert (done.outcome, list(done.unrecorded)) == (COMMITTED, [])
    assert await side.used() == {"monthly": 171}
    assert await side.amounts() == [60, 111]
    assert not (await side.a.CheckAndConsume(charge())).allowed


async def test_a_release_gives_all_back(side: Pair) -> None:
    """Nothing was used: nothing counts, and no event is recorded."""
    held = await side.reserve(60)
    assert (await side.release(held)).outcome == RELEASED
    assert await side.used() == {"monthly": 0}
    assert await side.events() == []


async def test_each_reservation_resolves_once(side: Pair) -> None:
    """The second resolution is told of the first, whichever it was, and does nothing."""
    paid, freed = await side.reserve(10, name="paid"), await side.reserve(20, name="freed")
    await side.commit(paid, 7)
    await side.release(freed)
    for held, said in ((paid, ALREADY_COMMITTED), (freed, ALREADY_RELEASED)):
        late = await side.commit(held, 5, operation_id=f"late-{said}")
        assert (late.outcome, list(late.event_ids), list(late.limits)) == (said, [], [])
        assert late.durability == event_pb2.DURABILITY_UNSPECIFIED
        assert (await side.release(held, f"later-{said}")).outcome == said
        extended = await side.extend(held)
        assert (extended.outcome, extended.HasField("expires_at")) == (said, False)
    assert (await side.commit(freed)).outcome == ALREADY_RELEASED
    assert (await side.release(paid)).outcome == ALREADY_COMMITTED
    assert await side.used() == {"monthly": 7}
    assert await side.amounts() == [7]


async def test_another_commit_without_an_id_is_told_what_came_first(side: Pair) -> None:
    """Who names no operation and brings other amounts hears that it was committed before."""
    held = await side.reserve(10)
    assert (await side.commit(held, 7)).outcome == COMMITTED
    assert (await side.commit(held, 7)).replayed
    assert (await side.commit(held, 8)).outcome == ALREADY_COMMITTED
    assert await side.amounts() == [7]


async def test_repeats_get_the_first_reply(side: Pair) -> None:
    """Reserve, commit and release answer a retry on any sidecar as they did at first."""
    asked = reserving(60, name="job")
    first = await side.a.Reserve(asked)
    ended = await side.a.Reserve(reserving(5, name="other"))
    calls: list[tuple[Any, Any, object]] = [
        (side.a.Reserve, side.b.Reserve, asked),
        (side.a.Commit, side.b.Commit, committing(first, 13, operation_id="end")),
        (
            side.a.Release,
            side.b.Release,
            quota_pb2.ReleaseRequest(tenant_id="acme", reservation_id=ended.reservation_id),
        ),
    ]
    for one, two, request in calls:
        reply = await one(request)
        again = await two(request)
        assert again.replayed
        reply.replayed = again.replayed = False
        assert again == reply
    assert await side.used() == {"monthly": 13}
    assert await side.amounts() == [13]
    # Settled meanwhile or not, the reservation is the one that was made.
    assert (await side.a.Reserve(asked)).reservation_id == first.reservation_id


async def test_an_operation_id_with_other_content_is_refused(side: Pair) -> None:
    """The same id with another amount, time to live or call is no repeat."""
    held = await side.reserve(60, name="job")
    assert (await failure(side.reserve(61, name="job"))).reason == "OPERATION_ID_REUSED"
    assert (await failure(side.reserve(60, name="job", ttl_ms=1_000))).reason == (
        "OPERATION_ID_REUSED"
    )
    reused = await failure(side.commit(held, 60, operation_id="job"))
    assert (reused.reason, reused.fields) == ("OPERATION_ID_REUSED", ["operation_id"])
    await side.commit(held, 60, operation_id="end")
    assert (await failure(side.commit(held, 59, operation_id="end"))).reason == (
        "OPERATION_ID_REUSED"
    )


async def test_a_reservation_expires_by_itself(side: Pair) -> None:
    """Nobody has to ask for it: by the server's clock the units are back, and late calls hear."""
    held = await side.reserve(100, ttl_ms=200)

    async def back() -> bool:
        return await side.used() == {"monthly": 0}

    await eventually(back, what="the units to come back")
    assert (await side.commit(held, 5)).outcome == EXPIRED
    assert (await side.release(held)).outcome == EXPIRED
    assert (await side.extend(held)).outcome == EXPIRED
    assert await side.events() == []


async def test_a_heartbeat_keeps_a_reservation(redis_url: str) -> None:
    """Work that goes on for longer than its time to live keeps its units by asking in time."""
    view = CatalogInMemory(catalog(window()))
    async with pair(redis_url, view, shifting=True) as side:
        held = await side.reserve(100, ttl_ms=MINUTE_MS)
        ends = [held.expires_at.ToMicroseconds()]
        for _ in range(3):
            side.shift.by_us += 50_000_000
            extended = await side.extend(held, MINUTE_MS)
            assert extended.outcome == EXTENDED
            ends.append(extended.expires_at.ToMicroseconds())
        assert all(later - sooner >= 50_000_000 for sooner, later in itertools.pairwise(ends))
        assert await side.used() == {"monthly": 100}
        side.shift.by_us += 60_000_000
        assert (await side.extend(held)).outcome == EXPIRED
        assert await side.used() == {"monthly": 0}


async def test_a_strangers_reservation_is_as_one_that_is_not(side: Pair) -> None:
    """Another tenant's id and an id of nobody cannot be told apart, whatever is asked."""
    held = await side.reserve(10, name="job")
    nothing = quota_pb2.ReserveResponse(reservation_id=f"{held.reservation_id}x")
    strange = quota_pb2.ReserveResponse(reservation_id="no-such-thing")
    for call in (
        lambda of: side.commit(of, tenant_id="spy"),
        lambda of: side.release(of, tenant="spy"),
        lambda of: side.extend(of, tenant="spy"),
    ):
        told = [await failure(call(of)) for of in (held, nothing, strange)]
        assert {each.reason for each in told} == {"RESERVATION_NOT_FOUND"}
        assert {each.code.name for each in told} == {"NOT_FOUND"}
        texts = {
            each.message.replace(of.reservation_id, "ID")
            for each, of in zip(told, (held, nothing, strange), strict=True)
        }
        assert len(texts) == 1
    assert (await side.commit(held)).outcome == COMMITTED


async def test_tokens_of_a_rate_stay_taken(redis_url: str) -> None:
    """A rate paces beginnings: a release gives its tokens back to nobody."""
    view = CatalogInMemory(catalog(rate(limit=10, burst=1_000), window(limit=1_000)))
    async with pair(redis_url, view, shifting=True) as side:
        held = await side.reserve(1_000)
        await side.release(held)
        refused = await side.a.CheckAndConsume(charge("", 900))
        assert (refused.allowed, refused.refused_by) == (False, "rate")
        assert (await side.used())["monthly"] == 0


async def test_racing_commits_settle_once(side: Pair) -> None:
    """Fifty commits of one reservation over two sidecars: one settles, one event is recorded."""
    held = await side.reserve(60)
    replies = await asyncio.gather(
        *(
            (side.a, side.b)[n % 2].Commit(committing(held, n, operation_id=f"racer-{n}"))
            for n in range(1, 51)
        )
    )
    settled = [reply for reply in replies if reply.outcome == COMMITTED]
    assert len(settled) == 1
    assert [reply.outcome for reply in replies].count(ALREADY_COMMITTED) == 49
    (amount,) = await side.amounts()
    assert await side.used() == {"monthly": amount}


async def test_racing_reservations_share_the_last_unit_once(side: Pair) -> None:
    """Fifty clients race for one unit, time and again: one gets it, and it comes back whole."""
    await side.a.CheckAndConsume(charge("", 99))
    for turn in range(5):
        replies = await asyncio.gather(
            *((side.a, side.b)[n % 2].Reserve(reserving(1, name=f"{turn}-{n}")) for n in range(50))
        )
        (held,) = [reply for reply in replies if reply.allowed]
        assert {reply.refused_by for reply in replies if not reply.allowed} == {"monthly"}
        await side.release(held)
    assert await side.used() == {"monthly": 99}


async def test_many_settle_at_once(side: Pair) -> None:
    """A burst of commits, as after a stall, is served whole: none fails for its neighbours."""
    held = [await side.reserve(1, name=f"job-{n}") for n in range(100)]
    replies = await asyncio.gather(*(side.commit(each) for each in held))
    assert {reply.outcome for reply in replies} == {COMMITTED}
    assert await side.used() == {"monthly": 100}
    assert await side.amounts() == [1] * 100
