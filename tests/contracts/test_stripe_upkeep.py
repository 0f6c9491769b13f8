"""What reports and people do to sends, and how these are counted, on fake and Postgres."""

from decimal import Decimal

from tallygate.domain.stripe_intent import IntentKind, SendState, made_again
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.ports.stripe_store import ReportedError
from tests.contracts.stripe_bench import (
    CUSTOMER,
    DAY,
    METER,
    NOW_US,
    Bench,
    bench,
    claim,
    done,
    finish,
    intent,
)

__all__ = ["bench"]


async def test_a_period_adds_up(bench: Bench) -> None:
    """Taken and doubtful sends of a period are there, others are not."""
    await bench.intents.intend([intent(hour, quantity=hour + 1) for hour in range(5)], NOW_US)
    ((a, b, c, d, _),) = await claim(bench)
    await finish(
        bench,
        done(a),
        done(b, SendState.AMBIGUOUS, doubtful=True),
        done(c, SendState.REJECTED),
        done(d, SendState.SETTLED, doubtful=True),
    )
    found = await bench.sends.period("stripe", CUSTOMER, METER, Window(DAY, DAY + DAY_US))
    assert [(each.value, each.open) for each in found] == [
        (Decimal(1), False),
        (Decimal(2), True),
        (Decimal(4), False),
    ]
    assert {each.last_us for each in found} == {NOW_US}
    first = Window(DAY, DAY + HOUR_US)
    assert len(await bench.sends.period("stripe", CUSTOMER, METER, first)) == 1
    later = Window(DAY + 4 * HOUR_US, DAY + DAY_US)
    assert await bench.sends.period("stripe", CUSTOMER, METER, later) == []


async def test_depths_count_what_is_not_done(bench: Bench) -> None:
    """By state, with the oldest usage and how much is late."""
    await bench.intents.intend([intent(hour) for hour in range(4)], NOW_US)
    (lane,) = await claim(bench, per_lane=2)
    await finish(bench, done(lane[0]), done(lane[1], SendState.REJECTED, code="x"))
    found = {each.state: each for each in await bench.sends.depths(DAY + 3 * HOUR_US)}
    pending = found[SendState.PENDING]
    assert (pending.sends, pending.oldest_us, pending.late) == (2, DAY + 2 * HOUR_US, 1)
    assert found[SendState.REJECTED].sends == 1
    assert len(found) == 2


async def test_a_report_counts_once(bench: Bench) -> None:
    """By key or identifier sends are rejected; those of a shared key go again alone."""
    await bench.intents.intend([intent(hour) for hour in range(4)], NOW_US)
    ((a, b, c, d),) = await claim(bench)
    await finish(bench, done(a), done(b), done(c, batch_key="many"), done(d, batch_key="many"))
    errors = [
        ReportedError(a.intent.idempotency_key, "bad", "why"),
        ReportedError(b.intent.identifier, "worse", ""),
        ReportedError("many", "some", ""),
        ReportedError("nobody", "x", ""),
    ]
    noted = await bench.upkeep.report("stripe", "evt_1", errors, NOW_US)
    assert (noted.new, noted.rejected, noted.opened) == (True, 2, 2)
    assert not (await bench.upkeep.report("stripe", "evt_1", errors, NOW_US)).new
    left = await bench.upkeep.left("stripe", [SendState.REJECTED])
    assert [(each.code, each.reason) for each in left] == [("bad", "why"), ("worse", "")]
    ((one, two),) = await claim(bench)
    assert (one.alone, one.doubtful, two.alone, two.doubtful) == (True, True, True, True)


async def test_what_is_left_is_found_and_closed(bench: Bench) -> None:
    """By state, code and number, in pages; closed by hand it is settled with the reason."""
    await bench.intents.intend([intent(hour) for hour in range(3)], NOW_US)
    ((a, b, c),) = await claim(bench)
    await finish(
        bench,
        done(a, SendState.REJECTED, code="bad"),
        done(b, SendState.REJECTED, code="worse"),
        done(c, SendState.TOO_OLD),
    )
    left, states = bench.upkeep.left, [SendState.REJECTED, SendState.TOO_OLD]
    assert [each.intent_id for each in await left("stripe", states)] == [
        each.intent_id for each in (a, b, c)
    ]
    assert len(await left("stripe", states, code="bad")) == 1
    assert len(await left("stripe", states, ids=[c.intent_id])) == 1
    assert len(await left("stripe", states, after=a.intent_id, limit=1)) == 1
    assert await left("other", states) == []
    assert await bench.upkeep.decide("stripe", [a.intent_id, c.intent_id], "waived") == 2
    assert await bench.upkeep.decide("stripe", [a.intent_id], "waived") == 0
    again = made_again(b.intent, b.intent_id, customer=CUSTOMER)
    assert await bench.upkeep.replace("stripe", [again], NOW_US) == 1
    assert await left("stripe", states) == []
    ((sent,),) = await claim(bench)
    assert sent.intent.replaces == b.intent_id


async def test_shadow_is_left_when_asked(bench: Bench) -> None:
    """What is in shadow is claimed by nobody, and sent from an instant on when that is asked."""
    await bench.intents.intend([intent(0), intent(1)], NOW_US, shadow=True)
    assert await claim(bench) == []
    assert await bench.sends.depths(NOW_US) == []
    assert await bench.upkeep.leave_shadow("stripe", DAY + HOUR_US, NOW_US) == 1
    ((one,),) = await claim(bench)
    assert one.intent.place.start_us == DAY + HOUR_US


async def test_a_total_is_outdone_by_a_later_one(bench: Bench) -> None:
    """Of totals of one window, and of quantities, all but the last are outdone."""
    for kind, hours in ((IntentKind.TOTAL, (0, 0, 1)), (IntentKind.QUANTITY, (2, 2, 3))):
        intents = [
            intent(hour, seq=number + 1, kind=kind, quantity=number)
            for number, hour in enumerate(hours)
        ]
        await bench.intents.intend(intents, NOW_US)
    ((*totals, a, b, c),) = await claim(bench)
    assert [each.outdone for each in totals] == [True, False, False]
    assert [each.outdone for each in (a, b, c)] == [True, True, False]
