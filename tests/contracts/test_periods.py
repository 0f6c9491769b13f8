"""What every `PeriodLedger`, reader and desk promises, asked of the fakes and of Postgres alike."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from tallygate.domain.completeness import Identity
from tallygate.domain.event import UNSTORABLE, UsageEvent
from tallygate.domain.ids import EventId, TenantId
from tallygate.domain.period import (
    GRACE_US,
    Arrived,
    Figures,
    Held,
    PeriodKey,
    PeriodNotSo,
    PeriodState,
)
from tallygate.domain.period_digest import Leaf, LeafKind, PeriodDigest, minute_digest
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Billing, BillingKind, Calendar
from tallygate.ports import LedgerBatch
from tests.periods.world import (
    ACME,
    CALLS,
    DECEMBER,
    EXACT,
    JANUARY,
    LEAST,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    period_world,
    tenant,
)
from tests.usage_events import rejected


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def world(dsn: str | None) -> AsyncIterator[PeriodWorld]:
    """Each kind of ledger, and what closes its periods."""
    async with period_world(dsn) as lent:
        yield lent


async def test_a_month_is_closed_after_its_grace(world: PeriodWorld) -> None:
    """It is open while it lasts, in its grace for 48 hours, and then closed with its totals."""
    await world.declare([tenant()])
    await world.store(
        world.event(MID_OCTOBER, 5),
        world.event(MID_OCTOBER + DAY_US, 7),
        world.event(NOVEMBER, 100),
        world.event(MID_OCTOBER, 9, PEAK),
        world.event(MID_OCTOBER, 3, PEAK),
        world.event(MID_OCTOBER, 3, LEAST),
        world.event(MID_OCTOBER, 3, CALLS),
    )
    assert (await world.run(MID_OCTOBER)).known == 1
    (october,) = await world.all()
    assert (october.start_us, october.end_us) == (OCTOBER, NOVEMBER)
    assert october.state is PeriodState.OPEN
    assert (await world.run(NOVEMBER)).ended == 1
    october, november = await world.all()
    assert (october.state, october.due_us) == (PeriodState.GRACE, NOVEMBER + GRACE_US)
    assert (november.state, november.start_us) == (PeriodState.OPEN, NOVEMBER)
    assert (await world.run(NOVEMBER + GRACE_US - 1)).sealed == 0
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1
    october, november = await world.all()
    assert (october.state, october.revision, october.held) == (PeriodState.CLOSED, 1, None)
    assert await world.bill(OCTOBER) == {REQUESTS: 12, PEAK: 9, LEAST: 3, CALLS: 1}
    (revision,) = await world.reader.revisions(ACME, OCTOBER)
    assert (revision.number, revision.events, revision.cause) == (1, 6, "grace_over")
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 0
    assert await world.kinds() == ["period.closed"]


async def test_the_hash_is_what_its_definition_says(world: PeriodWorld) -> None:
    """An own computation over the events, minute by minute, gives the digest that was stored."""
    events = [
        world.event(MID_OCTOBER + number * 7_000_000, number, (REQUESTS, PEAK)[number % 2])
        for number in range(1, 40)
    ]
    odd = {"path": '/ü"\\\n\t', "b": "\x01", "aa": "", "z": "/"}
    events.append(world.event(MID_OCTOBER, 3, dimensions=odd))
    events.append(world.event(MID_OCTOBER, 3, dimensions={}))
    await world.closed_october(*events)
    digest = PeriodDigest(PeriodKey(ACME, OCTOBER), NOVEMBER, 1, None)
    minutes: dict[tuple[int, str], list[UsageEvent]] = {}
    for each in events:
        minute_us = each.event_time_us - each.event_time_us % MINUTE_US
        minutes.setdefault((minute_us, each.meter), []).append(each)
    revision = (await world.reader.revisions(ACME, OCTOBER))[0]
    for (minute_us, _), found in sorted(minutes.items()):
        leaf = Leaf(
            LeafKind.EVENTS,
            minute_us,
            found[0].meter,
            len(found),
            Figures(),
            minute_digest(reversed(found)),
        )
        digest.add(leaf)
    assert digest.covered().digest.hex() == revision.digest


async def test_late_events_adjust_the_next_period(world: PeriodWorld) -> None:
    """By default a late event is billed in the first period that is not sealed, and linked."""
    await world.closed_october(
        world.event(MID_OCTOBER, 5),
        world.event(MID_OCTOBER, 9, PEAK),
        world.event(MID_OCTOBER, 9, LEAST),
        world.event(MID_NOVEMBER, 50),
    )
    before = await world.reader.totals(ACME, OCTOBER, 1)
    late = [
        world.event(MID_OCTOBER, 4),
        world.event(MID_OCTOBER, 11, PEAK),
        world.event(MID_OCTOBER, 2, PEAK),
        world.event(MID_OCTOBER, 2, LEAST),
        world.event(MID_OCTOBER, 30, CALLS),
    ]
    refund = world.event(MID_OCTOBER, -3, refund_of=EventId("event-000001"))
    stored = await world.store(*late, refund, world.event(MID_NOVEMBER, 1))
    assert stored.late == {"next_period": 6}
    assert await world.reader.totals(ACME, OCTOBER, 1) == before
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    assert await world.bill(NOVEMBER) == {REQUESTS: 51 + 4 - 3, PEAK: 2, LEAST: -7, CALLS: 1}
    assert await world.reader.totals(ACME, OCTOBER, 1) == before
    (found,) = await world.desk.late(PeriodKey(ACME, OCTOBER))
    assert (found.placed, found.allocated_start_us, found.events) == ("next_period", NOVEMBER, 6)
    (revision,) = await world.reader.revisions(ACME, NOVEMBER)
    assert revision.events == 2 + 6
    # Later ones change what the earlier ones have left.
    await world.store(world.event(MID_OCTOBER, 15, PEAK), world.event(MID_OCTOBER, 3, LEAST))
    assert (await world.run(JANUARY + GRACE_US)).closed == 1
    assert await world.bill(DECEMBER) == {PEAK: 4, LEAST: 0}


async def test_late_events_correct_a_period(world: PeriodWorld) -> None:
    """Of a meter that corrects, they make the next revision, whose hash has the first in it."""
    await world.closed_october(world.event(MID_OCTOBER, 5, EXACT), world.event(MID_OCTOBER, 1))
    assert (await world.store(world.event(MID_OCTOBER, 4, EXACT))).late == {"correct": 1}
    counts = await world.run(NOVEMBER + GRACE_US)
    assert (counts.sealed, counts.closed) == (1, 1)
    assert await world.bill(OCTOBER, 1) == {EXACT: 5, REQUESTS: 1}
    assert await world.bill(OCTOBER, 2) == {EXACT: 9, REQUESTS: 1}
    one, two = await world.reader.revisions(ACME, OCTOBER)
    assert (one.events, two.events, two.cause) == (2, 3, "late_events")
    assert await world.kinds() == ["period.closed"] * 2
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    assert await world.bill(NOVEMBER) == {}


async def test_events_stored_again_change_nothing(world: PeriodWorld) -> None:
    """A replay of an archived day, late events among them, is duplicates all."""
    first, late = world.event(MID_OCTOBER, 5), world.event(MID_OCTOBER, 4, EXACT)
    await world.closed_october(first)
    await world.store(late)
    await world.run(NOVEMBER + GRACE_US)
    stored = await world.store(first, late)
    assert (stored.events, stored.duplicates, stored.late) == (0, 2, {})
    assert (await world.run(NOVEMBER + GRACE_US)).sealed == 0
    assert await world.bill(OCTOBER, 2) == {REQUESTS: 5, EXACT: 4}


async def test_a_period_is_reopened_with_a_reason(world: PeriodWorld) -> None:
    """What comes meanwhile is of its next revision; who asked and why stays on record."""
    await world.closed_october(world.event(MID_OCTOBER, 5))
    period = await world.desk.reopen(world.asked(OCTOBER), world.clock.us + HOUR_US)
    assert (period.state, period.revision) == (PeriodState.GRACE, 1)
    with pytest.raises(PeriodNotSo):
        await world.desk.reopen(world.asked(OCTOBER), world.clock.us + HOUR_US)
    assert (await world.store(world.event(MID_OCTOBER, 2))).late == {"reopened": 1}
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 0
    assert (await world.run(NOVEMBER + GRACE_US + HOUR_US)).closed == 1
    assert await world.bill(OCTOBER, 1) == {REQUESTS: 5}
    assert await world.bill(OCTOBER, 2) == {REQUESTS: 7}
    kinds = await world.kinds()
    assert kinds == ["period.closed", "period.reopened", "period.closed"]
    (action,) = await world.desk.actions(PeriodKey(ACME, OCTOBER))
    assert (action.action, action.actor, action.reason) == ("reopen", "ada", "a late invoice")


async def test_what_may_be_missing_holds_a_period(world: PeriodWorld) -> None:
    """It is told once, and closed when nothing is missing any more."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    world.arrivals.found = Arrived(Identity(unaccounted=1))
    due_us = NOVEMBER + GRACE_US
    assert (await world.run(due_us)).held == 1
    assert (await world.run(due_us)).held == 0
    october = (await world.all())[0]
    assert (october.held, october.held_since_us) == (Held.UNACCOUNTED, due_us)
    world.arrivals.found = Arrived(Identity(), oldest_us=due_us - 1)
    assert (await world.run(due_us)).held == 1
    assert await world.kinds() == ["period.held"] * 2
    world.arrivals.found = Arrived(Identity(), oldest_us=due_us)
    assert (await world.run(due_us)).closed == 1


async def test_an_operator_closes_without_what_is_lost(world: PeriodWorld) -> None:
    """What was accepted once holds no later period, until more is lost."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    world.arrivals.found = Arrived(Identity(lost=3))
    assert (await world.run(NOVEMBER + GRACE_US)).held == 1
    await world.desk.ask_close(world.asked(OCTOBER), accept_missing=True)
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1
    assert (await world.run(DECEMBER + GRACE_US)).closed == 1
    world.arrivals.found = Arrived(Identity(lost=4))
    assert (await world.run(JANUARY + GRACE_US)).held == 1


async def test_usage_before_the_first_period_has_periods_too(world: PeriodWorld) -> None:
    """A first use that comes late is not before all periods, nor between them."""
    await world.declare([tenant()])
    await world.run(MID_NOVEMBER)
    assert [each.start_us for each in await world.all()] == [NOVEMBER]
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(DECEMBER + GRACE_US)
    assert [each.start_us for each in await world.all()] == [OCTOBER, NOVEMBER, DECEMBER]
    assert await world.bill(OCTOBER) == {REQUESTS: 5}
    await world.store(world.event(OCTOBER - 1, 3))
    await world.run(JANUARY + GRACE_US)
    assert await world.bill(DECEMBER) == {REQUESTS: 3}


async def test_events_that_could_not_be_stored_hold_their_tenant(world: PeriodWorld) -> None:
    """A letter of the period's own time holds it; one that a rule refused does not."""
    await world.declare([tenant(), tenant(name="other")])
    await world.store(world.event(MID_OCTOBER, 5), world.event(MID_OCTOBER, tenant_id="other"))
    letters = [
        rejected(1, reason=UNSTORABLE, received_at_us=MID_OCTOBER),
        rejected(2, reason="EVENT_TIME_TOO_OLD", received_at_us=MID_OCTOBER, tenant_id="other"),
        rejected(3, reason=UNSTORABLE, received_at_us=OCTOBER - 1, tenant_id="other"),
    ]
    await world.ledger.persist(LedgerBatch((), rejected=tuple(letters)))
    await world.run(NOVEMBER)
    counts = await world.run(NOVEMBER + GRACE_US)
    assert (counts.held, counts.closed) == (1, 1)
    assert (await world.all())[0].held is Held.DEAD_LETTERS
    assert (await world.all(TenantId("other")))[0].state is PeriodState.CLOSED
    await world.desk.ask_close(world.asked(OCTOBER), accept_missing=True)
    assert (await world.run(NOVEMBER + GRACE_US)).closed == 1


async def test_a_changed_calendar_leaves_no_hole(world: PeriodWorld) -> None:
    """The period that lasts ends by the new calendar, and the next one begins there."""
    await world.declare([tenant()])
    await world.store(world.event(MID_OCTOBER, 5), world.event(MID_NOVEMBER, 7))
    await world.run(MID_NOVEMBER)
    weekly = Calendar("UTC", OCTOBER, billing=Billing(BillingKind.EVERY, 7 * DAY_US))
    await world.declare([tenant(weekly)])
    await world.run(DECEMBER + GRACE_US)
    found = await world.all()
    assert found[0].end_us == found[1].start_us == NOVEMBER
    # Weeks count from the first of October: the rest of one comes first.
    assert found[1].end_us == OCTOBER + 35 * DAY_US
    assert all(one.end_us == two.start_us for one, two in pairwise(found))
    assert {each.end_us - each.start_us for each in found[2:]} == {7 * DAY_US}
    bills = [await world.bill(each.start_us) for each in found if each.revision]
    assert [each for each in bills if each] == [{REQUESTS: 5}, {REQUESTS: 7}]


async def test_a_tenant_s_own_grace_counts(world: PeriodWorld) -> None:
    """A tenant may be waited for longer or shorter than the others, also once it is reopened."""
    short = Calendar(billing=Billing(grace_us=HOUR_US))
    await world.declare([tenant(short)])
    await world.store(world.event(MID_OCTOBER, 5))
    await world.run(NOVEMBER)
    assert (await world.run(NOVEMBER + HOUR_US - 1)).closed == 0
    assert (await world.run(NOVEMBER + HOUR_US)).closed == 1
