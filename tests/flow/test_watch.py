"""Watching: one read for all who ask alike, the newest state only, and an end with a reason."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tallygate.domain.decision import LimitState
from tallygate.domain.errors import BackendUnavailable, Overloaded, UnknownTenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.request import QuotaRequest
from tallygate.flow.watch import READS_MAX, Cause, Update, Watch
from tests.watches import STALE_MS, Rig, standing

ACME = QuotaRequest(TenantId("acme"))
WARNING = LimitState.WARNING


def seen(update: Update) -> tuple[Cause, int]:
    """Return the cause and the units used."""
    return update.cause, update.result.readings[0].used


async def upcoming(updates: AsyncIterator[Update]) -> tuple[Cause, int]:
    """Return the next update that is there already."""
    async with asyncio.timeout(1):
        return seen(await anext(updates))


async def silent(updates: AsyncIterator[Update]) -> bool:
    """Say whether nothing is there to be told; the iterator is of no use afterwards."""
    waiting = asyncio.ensure_future(anext(updates))
    # Everything that could make it ready has been done: a few turns of the loop are all it needs.
    for _ in range(10):
        await asyncio.sleep(0)
    quiet = not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return quiet


async def test_a_watch_begins_with_a_snapshot_and_tells_each_change() -> None:
    """The snapshot is read for the watch; then usage tells CHANGED, another state CROSSED."""
    rig = Rig()
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        assert await upcoming(updates) == (Cause.SNAPSHOT, 0)
        await rig.show(standing(5))
        assert await upcoming(updates) == (Cause.CHANGED, 5)
        await rig.show(standing(80, WARNING))
        assert await upcoming(updates) == (Cause.CROSSED, 80)
        await rig.show(standing(90, WARNING))
        assert await upcoming(updates) == (Cause.CHANGED, 90)
        await rig.show(standing(0))
        assert await upcoming(updates) == (Cause.CROSSED, 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(standing(5), standing(5), id="nothing"),
        pytest.param(standing(0), standing(0, resets_at_us=9), id="an unused window turns"),
        pytest.param(standing(5), replace(standing(5), catalog_version=2), id="a catalog's number"),
    ],
)
async def test_what_makes_no_difference_is_not_told(before: object, after: object) -> None:
    """A watcher hears nothing of what changes nothing for it."""
    rig = Rig()
    rig.readings.result = before  # type: ignore[assignment]
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        await rig.show(after)  # type: ignore[arg-type]
        assert await silent(updates)
    assert rig.told.polls == {"same": 1}


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(standing(5, limit=200), id="a limit"),
        pytest.param(standing(5, resets_at_us=9), id="a window's end"),
        pytest.param(replace(standing(5), plan=PlanName("pro")), id="the plan"),
        pytest.param(replace(standing(5), readings=()), id="no limits any more"),
    ],
)
async def test_every_difference_is_told(after: object) -> None:
    """Limits, plans and windows in use are told of as usage is."""
    rig = Rig()
    rig.readings.result = standing(5)
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        await rig.show(after)  # type: ignore[arg-type]
        update = await anext(updates)
        assert (update.cause, update.result) == (Cause.CHANGED, after)


async def test_a_slow_watcher_is_told_the_newest_only() -> None:
    """What happened while it was busy is one update, and nothing if it has changed back."""
    rig = Rig()
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        for used in range(1, 50):
            await rig.show(standing(used))
        assert await upcoming(updates) == (Cause.CHANGED, 49)
        await rig.show(standing(50))
        await rig.show(standing(49))
        assert await silent(updates)


async def test_one_read_serves_all_who_ask_alike() -> None:
    """The order of meters and their repetition make no other question; other dimensions do."""
    rig = Rig()
    one, other = MeterName("one"), MeterName("other")
    alike = [
        QuotaRequest(TenantId("acme"), (one, other)),
        QuotaRequest(TenantId("acme"), (other, one, one)),
    ]
    different = QuotaRequest(TenantId("acme"), (one, other), {"user": "a"})
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(rig.watches.open(each)) for each in [*alike, different]
        ]
        assert (rig.told.watches, rig.told.questions) == (3, 2)
        rig.readings.asked.clear()
        await rig.show(standing(7))
        assert [len(each) for each in rig.readings.asked] == [2]
        for watch in watches:
            updates = watch.updates()
            await upcoming(updates)
            assert await upcoming(updates) == (Cause.CHANGED, 7)
    assert (rig.told.watches, rig.told.questions) == (0, 0)
    rig.readings.asked.clear()
    await rig.watches.run_once()
    assert rig.readings.asked == []


async def test_many_questions_are_read_in_bounded_lists() -> None:
    """Decisions pass between two lists, so that watching delays none for long."""
    rig = Rig()
    async with AsyncExitStack() as stack:
        for number in range(READS_MAX + 1):
            request = QuotaRequest(TenantId(f"t{number}"))
            await stack.enter_async_context(rig.watches.open(request))
        rig.readings.asked.clear()
        counts = await rig.watches.run_once()
        assert [len(each) for each in rig.readings.asked] == [READS_MAX, 1]
        assert counts.questions == READS_MAX + 1
        # When nothing answers, the rest is not waited for.
        rig.readings.asked.clear()
        await rig.show(BackendUnavailable())
        assert [len(each) for each in rig.readings.asked] == [READS_MAX]
    assert rig.told.polls["failed"] == READS_MAX + 1


async def test_one_question_too_many_is_refused() -> None:
    """Questions that are asked already may be asked by more; another one may not."""
    rig = Rig(questions_max=1)
    other = QuotaRequest(TenantId("other"))
    async with rig.watches.open(ACME), rig.watches.open(ACME):
        with pytest.raises(Overloaded):
            async with rig.watches.open(other):
                pass
    async with rig.watches.open(other):
        pass


async def test_one_watch_too_many_is_refused() -> None:
    """The bound holds over all questions, and a watch that ends makes room."""
    rig = Rig(watches_max=1)
    async with rig.watches.open(ACME):
        with pytest.raises(Overloaded) as refused:
            async with rig.watches.open(ACME):
                pass
        assert refused.value.retry_after_us
    async with rig.watches.open(ACME):
        pass


async def test_what_cannot_be_read_cannot_be_watched() -> None:
    """The error of the snapshot is the watch's, and leaves no trace."""
    rig = Rig()
    rig.readings.result = UnknownTenant(field="tenant_id")
    with pytest.raises(UnknownTenant):
        async with rig.watches.open(ACME):
            pass
    assert (rig.told.watches, rig.told.questions) == (0, 0)


async def test_a_short_absence_is_waited_out() -> None:
    """Within its bound a watch stays; what changed meanwhile is told once it can be read."""
    rig = Rig()
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        rig.clock.seconds += STALE_MS / 1000 - 0.001
        await rig.show(BackendUnavailable())
        await rig.show(standing(3))
        assert await upcoming(updates) == (Cause.CHANGED, 3)
        # The time counts from the last reading, not from the first failure.
        rig.clock.seconds += STALE_MS / 1000 - 0.001
        await rig.show(BackendUnavailable())
        assert await silent(updates)


async def test_a_long_absence_ends_the_watch() -> None:
    """Past its bound nobody is left with figures that may be old."""
    rig = Rig()
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        rig.clock.seconds += STALE_MS / 1000
        await rig.show(BackendUnavailable())
        with pytest.raises(BackendUnavailable):
            await upcoming(updates)


async def test_what_does_not_pass_ends_the_watch_at_once() -> None:
    """A tenant that is gone is not waited for."""
    rig = Rig()
    async with rig.watches.open(ACME) as watch:
        updates = watch.updates()
        await upcoming(updates)
        await rig.show(UnknownTenant(field="tenant_id"))
        with pytest.raises(UnknownTenant):
            await upcoming(updates)


async def test_a_poll_under_way_shows_a_newcomer_nothing_old() -> None:
    """Who joins while a poll reads is not told what was read before its own snapshot."""
    rig = Rig()
    joined: list[Watch] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(rig.watches.open(ACME))

        async def join() -> None:
            rig.readings.result = standing(9)
            joined.append(await stack.enter_async_context(rig.watches.open(ACME)))

        rig.readings.meanwhile = join
        await rig.watches.run_once()
        updates = joined[0].updates()
        assert await upcoming(updates) == (Cause.SNAPSHOT, 9)
        assert await silent(updates)
