"""The contracts of the ports to intents and sends, on the fake and on Postgres."""

from dataclasses import replace

import pytest

from tallygate.domain.catalog import Aggregation
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import TenantId
from tallygate.domain.stripe_intent import IntentId, IntentKind, SendState, intent_for, made_again
from tallygate.domain.stripe_sync import StripeSync, Way
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window
from tallygate.ports.stripe_store import Cut
from tests.contracts.stripe_bench import (
    CUSTOMER,
    DAY,
    METER,
    NOW_US,
    TENANT,
    TOKENS,
    Bench,
    asked,
    bench,
    claim,
    done,
    finish,
    intent,
)

__all__ = ["bench"]


async def test_gaps_are_what_is_missing(bench: Bench) -> None:
    """A window's gap is its usage less its intents; what is replaced does not count."""
    await bench.use(5, DAY + MINUTE_US)
    await bench.use(2, DAY + 3 * HOUR_US)
    first, third = await bench.intents.gaps(asked())
    assert (first.total, first.intended, first.seq) == (5, 0, 0)
    assert (first.place.start_us, first.place.end_us) == (DAY, DAY + HOUR_US)
    assert third.place.start_us == DAY + 3 * HOUR_US
    new = await bench.intents.intend([intent(quantity=4)], NOW_US)
    assert len(new) == 1
    first, _ = await bench.intents.gaps(asked())
    assert (first.total, first.intended, first.seq) == (5, 4, 1)
    again = made_again(intent(quantity=4), IntentId(1), customer=CUSTOMER)
    ((claimed,),) = await claim(bench)
    await finish(bench, done(claimed, SendState.SETTLED), again=(again,))
    first, _ = await bench.intents.gaps(asked())
    assert (first.intended, first.seq) == (4, 2)


async def test_late_usage_is_a_gap_of_the_period_that_bills_it(bench: Bench) -> None:
    """It is missing where it came, apart from that window's own usage, and nowhere else."""
    await bench.use(5, DAY)
    await bench.use(3, DAY)
    came_us, ahead = DAY + 5 * HOUR_US, DAY + 4 * HOUR_US
    await bench.put_off(2, 3, DAY, came_us, ahead)
    await bench.use(4, came_us)
    cuts = (
        Cut(TENANT, CUSTOMER, DAY, ahead, DAY, ahead),
        Cut(TENANT, CUSTOMER, ahead, DAY + 31 * DAY_US, ahead, NOW_US),
    )
    query = asked(cuts=cuts, late_since_us=DAY)
    hour_us = came_us - came_us % HOUR_US
    found = {
        (gap.place.start_us, gap.closed_start_us): gap.total
        for gap in await bench.intents.gaps(query)
    }
    assert found == {(DAY, None): 5, (hour_us, None): 4, (hour_us, DAY): 3}
    gaps = await bench.intents.gaps(query)
    sync = StripeSync(Way.METER_EVENTS, event_name="calls")
    made = [intent_for("stripe", sync, gap, IntentKind.DELTA) for gap in gaps]
    assert len({each.identifier for each in made}) == 3
    assert len(await bench.intents.intend(made, NOW_US)) == 3
    assert await bench.intents.gaps(query) == []
    (lane,) = await claim(bench)
    assert [each.intent.closed_start_us for each in lane].count(DAY) == 1
    later = asked(cuts=cuts, late_since_us=DAY + 1)
    assert {gap.total - gap.intended for gap in await bench.intents.gaps(later)} == {3, -3}
    whole = await bench.intents.gaps(asked(cuts=cuts, late_since_us=DAY, latest=True))
    assert {gap.place.start_us: gap.total for gap in whole} == {hour_us: 7}


async def test_periods_that_tenants_have(bench: Bench) -> None:
    """Those that a stretch of time touches, in order."""
    await bench.add_periods(DAY, DAY + HOUR_US, DAY + 3 * HOUR_US, NOW_US)
    found = await bench.intents.chains([TENANT, TenantId("other")], DAY + HOUR_US, NOW_US)
    first, second = Window(DAY + HOUR_US, DAY + 3 * HOUR_US), Window(DAY + 3 * HOUR_US, NOW_US)
    assert found == {TENANT: [first, second]}
    assert await bench.intents.chains([TENANT], NOW_US, NOW_US + 1) == {}


async def test_gaps_are_of_settled_windows(bench: Bench) -> None:
    """A window that ends later than asked is no gap, whatever is intended of it."""
    await bench.use(5, DAY + MINUTE_US)
    await bench.intents.intend([intent(quantity=4)], NOW_US)
    assert await bench.intents.gaps(asked(settled_us=DAY + HOUR_US - 1)) == []
    assert len(await bench.intents.gaps(asked(settled_us=DAY + HOUR_US))) == 1
    assert await bench.intents.gaps(asked(cuts=())) == []


async def test_usage_that_is_gone_is_a_gap(bench: Bench) -> None:
    """What is intended of a window without usage is too much."""
    await bench.intents.intend([intent()], NOW_US)
    (gap,) = await bench.intents.gaps(asked())
    assert (gap.total, gap.intended, gap.cancellable) == (0, 5, None)
    ((claimed,),) = await claim(bench)
    await finish(bench, done(claimed))
    (gap,) = await bench.intents.gaps(asked())
    assert gap.cancellable == claimed.intent_id
    (gap,) = await bench.intents.gaps(asked(cancel_after_us=NOW_US))
    assert gap.cancellable is None


@pytest.mark.parametrize(
    ("measure", "total"),
    [
        (Aggregation.SUM, 12),
        (Aggregation.COUNT, 2),
        (Aggregation.MAX, 7),
        (Aggregation.MIN, 5),
    ],
)
async def test_measures(bench: Bench, measure: Aggregation, total: int) -> None:
    """A window is measured as its meter is; the last intent of a total says what was told."""
    await bench.use(5, DAY)
    await bench.use(7, DAY + 1)
    (gap,) = await bench.intents.gaps(asked(measure=measure, latest=True))
    assert (gap.total, gap.intended) == (total, 0)
    told = intent(kind=IntentKind.TOTAL, quantity=total)
    await bench.intents.intend([told], NOW_US)
    assert await bench.intents.gaps(asked(measure=measure, latest=True)) == []
    later = intent(seq=2, kind=IntentKind.TOTAL, quantity=99)
    await bench.intents.intend([later], NOW_US)
    (gap,) = await bench.intents.gaps(asked(measure=measure, latest=True))
    assert (gap.intended, gap.seq) == (99, 2)


async def test_an_intent_is_written_once(bench: Bench) -> None:
    """Neither the same number of a window nor the same identity is taken again."""
    assert len(await bench.intents.intend([intent()], NOW_US)) == 1
    assert await bench.intents.intend([intent()], NOW_US) == []
    assert await bench.intents.intend([intent(quantity=6)], NOW_US) == []
    assert len(await bench.intents.intend([intent(seq=2, quantity=1)], NOW_US)) == 1


async def test_a_lane_is_claimed_by_one(bench: Bench) -> None:
    """A customer's meter is leased whole; others are free, and its own again after the lease."""
    intents = [intent(0), intent(1), intent(0, customer="cus_2")]
    await bench.intents.intend([replace(each, seq=n + 1) for n, each in enumerate(intents)], NOW_US)
    lanes = await claim(bench, lanes=1)
    assert len(lanes) == 1
    assert len(await claim(bench)) == 1
    assert await claim(bench) == []
    await bench.end_leases()
    lanes = await claim(bench)
    assert sorted(len(lane) for lane in lanes) == [1, 2]
    assert all(each.doubtful and each.attempt == 2 for lane in lanes for each in lane)


async def test_claims_are_bounded_and_in_order(bench: Bench) -> None:
    """So many of a lane at once, in doubt first, then by their time; what is not due waits."""
    await bench.intents.intend([intent(hour) for hour in range(4)], NOW_US)
    ((one, two),) = await claim(bench, per_lane=2)
    assert [each.intent.place.start_us for each in (one, two)] == [DAY, DAY + HOUR_US]
    later = NOW_US + HOUR_US
    await finish(bench, done(one, SendState.AMBIGUOUS, due_us=later, doubtful=True), done(two))
    ((three, four),) = await claim(bench, per_lane=2)
    await finish(bench, *(done(each, SendState.PENDING, unsent=True) for each in (three, four)))
    assert await claim(bench, now_us=NOW_US - 1) == []
    ((first, _),) = await claim(bench, now_us=later, per_lane=2)
    assert (first.intent_id, first.doubtful, first.first_us) == (one.intent_id, True, NOW_US)


async def test_what_was_not_sent_is_no_attempt(bench: Bench) -> None:
    """An attempt that is taken back leaves no trace; one that was surely not taken, no first."""
    await bench.intents.intend([intent()], NOW_US)
    ((one,),) = await claim(bench)
    await finish(bench, done(one, SendState.PENDING, unsent=True))
    ((one,),) = await claim(bench, now_us=NOW_US + 5)
    assert (one.attempt, one.doubtful, one.first_us) == (1, False, NOW_US + 5)
    await finish(bench, done(one, SendState.PENDING, code="busy", alone=True))
    ((one,),) = await claim(bench, now_us=NOW_US + 9)
    assert (one.attempt, one.first_us, one.code, one.alone) == (2, NOW_US + 9, "busy", True)


async def test_a_lease_that_is_gone_notes_nothing(bench: Bench) -> None:
    """After another took over, results and replacements of the former are refused."""
    await bench.intents.intend([intent()], NOW_US)
    ((one,),) = await claim(bench)
    late = TOKENS[-1]
    await bench.end_leases()
    ((other,),) = await claim(bench)
    again = made_again(one.intent, one.intent_id, customer=CUSTOMER)
    assert await bench.sends.finish(late, [done(one, SendState.SETTLED)], [again]) == 0
    await bench.sends.release(late)
    assert await claim(bench) == []
    TOKENS.pop()
    assert await finish(bench, done(other)) == 1
    assert await claim(bench) == []


async def test_a_lane_may_be_left_alone(bench: Bench) -> None:
    """What is to be quiet is claimed by nobody until then, whatever comes in meanwhile."""
    await bench.intents.intend([intent()], NOW_US)
    await claim(bench)
    await bench.sends.release(TOKENS[-1], {(CUSTOMER, METER): NOW_US + HOUR_US})
    await bench.intents.intend([intent(1)], NOW_US)
    assert await claim(bench, now_us=NOW_US + HOUR_US - 1) == []
    (lane,) = await claim(bench, now_us=NOW_US + HOUR_US)
    assert len(lane) == 2


async def test_a_replacement_stands_for_one(bench: Bench) -> None:
    """A send is replaced once; the other has its window's next number."""
    await bench.intents.intend([intent(), intent(seq=2, quantity=2)], NOW_US)
    ((one, two),) = await claim(bench)
    again = made_again(one.intent, one.intent_id, customer="cus_2")
    assert await finish(bench, done(one, SendState.SETTLED), done(two), again=(again,)) == 2
    ((third,),) = await claim(bench)
    assert (third.intent.seq, third.intent.replaces) == (3, one.intent_id)
    assert third.intent.place.customer == "cus_2"
    await finish(bench, done(third, SendState.REJECTED, code="bad"))
    with pytest.raises(BackendUnavailable):
        await bench.upkeep.replace("stripe", [again], NOW_US)
