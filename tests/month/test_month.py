"""A month of fifty tenants: invoices, Stripe's totals and reconciliation agree with the script.

The month is played once, on one clock, through the real flows; each test looks at what came of it.
`make month SEED=7` plays another one.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal

import pytest

from tallygate.domain.ids import TenantId
from tallygate.domain.period import PeriodState
from tallygate.domain.reconcile import Step, Verdict
from tests.month.cast import CAST, METERS
from tests.month.expected import Life, lives
from tests.month.play import Outcome, outcome, play
from tests.month.world import MonthWorld, month_world
from tests.servers import Databases, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SEEDS = [int(seed) for seed in os.environ.get("TALLYGATE_MONTH_SEEDS", "1").split(",")]


@dataclass(frozen=True, slots=True)
class Month:
    """What came of it, what should have, and the world as it is then."""

    runner: asyncio.Runner
    world: MonthWorld
    found: Outcome
    lives: Mapping[TenantId, Life]


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: f"seed-{seed}")
def month(
    request: pytest.FixtureRequest, databases: Databases, migrated_template: str
) -> Iterator[Month]:
    """The month, lived through once."""
    name = run(databases.create(migrated_template))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world = runner.run(stack.enter_async_context(month_world(databases.dsn(name))))
        runner.run(play(world, request.param))
        yield Month(runner, world, runner.run(outcome(world)), lives(request.param))
        runner.run(stack.aclose())
    run(databases.drop(name))


def test_each_event_is_stored_once(month: Month) -> None:
    """All of the script's events are in the ledger, also those that came twice."""
    expected = [each.name for life in month.lives.values() for each in life.stored]
    assert len(expected) == len({*expected}) == len(month.found.events)
    assert month.found.events == {*expected}


def test_periods_close_when_their_grace_is_over(month: Month) -> None:
    """Each tenant's periods are those of its calendar; all that were due are closed."""
    for life in month.lives.values():
        name = life.member.name
        mine = [each for key, each in month.found.periods.items() if key[0] == name]
        bounds = [(each.start_us, each.end_us) for each in mine]
        assert bounds == [(e.start_us, e.end_us) for e in life.periods[: len(bounds)]]
        closed = [each.start_us for each in mine if each.state is PeriodState.CLOSED]
        assert closed == [each.start_us for each in life.closed()], name
        revisions = {each.start_us: each.revision for each in mine if each.revision}
        assert revisions == {e.start_us: life.revisions(e.start_us) for e in life.closed()}, name
    assert month.world.held == 0


def test_late_events_are_where_policy_puts_them(month: Month) -> None:
    """What came after its period was sealed is billed where its meter's policy says."""
    expected = {
        each.name: (life.member.name, each.billed_us)
        for life in month.lives.values()
        for each in life.stored
        if life.sealed(each.start_us, each.at_us)
    }
    assert month.found.late == expected


def test_invoices_are_those_of_the_naive_rater(month: Month) -> None:
    """To the cent, each closed period's newest invoice; its lines add up."""
    wrong = {}
    for life in month.lives.values():
        for start_us, total in life.invoices().items():
            (*_, newest) = month.found.invoices[life.member.name, start_us]
            if newest.invoice.total != total:
                wrong[life.member.name, life.member.kind, start_us] = (newest.invoice.total, total)
            lines = newest.invoice.lines
            assert sum((line.amount for line in lines), Decimal(0)) == newest.invoice.total
    assert not wrong


def test_invoices_together_are_all_usage(month: Month) -> None:
    """What all of a tenant's invoices come to is what all of its events come to."""
    for life in month.lives.values():
        issued = [
            revisions[-1].invoice.total
            for (tenant_id, _), revisions in month.found.invoices.items()
            if tenant_id == life.member.name
        ]
        assert sum(issued, Decimal(0)) == life.all_due()


def test_each_fault_struck(month: Month) -> None:
    """Every kind of fault has had its effect."""
    assert all(month.found.struck)
    assert {"noted"} <= {*month.world.heard.outcomes}
    assert month.world.sent_again


def test_nothing_is_twice_at_stripe(month: Month) -> None:
    """No identifier counts twice, and what counts are the sends that were delivered or settled."""
    counted = Counter(each.identifier for each in month.found.taken if each.applied)
    assert {*counted.values()} == {1}
    sent = {each.identifier: each for each in month.found.told}
    assert {*counted} <= {*sent}
    for identifier, each in sent.items():
        if each.state == "delivered":
            assert counted[identifier] == 1
        if each.state == "too_old":
            assert identifier not in counted


def test_stripe_has_what_the_ledger_has(month: Month) -> None:
    """Per customer, meter and period, but for what is too old, which is listed to the unit."""
    old: Counter[tuple[TenantId, str, int]] = Counter()
    for each in month.found.told:
        if each.state == "too_old":
            old[each.tenant_id, each.meter, each.start_us] += each.quantity
    assert old
    for life in month.lives.values():
        if not life.member.tenant.stripe_customer_id:
            continue
        for period in life.periods:
            for meter in METERS.values():
                if meter.stripe is not None:
                    key = (life.member.name, meter.name, period.start_us)
                    used = life.quantity(meter.name, period)
                    assert month.found.summed[key] + old[key] == used, key


def test_reconciliation_says_so(month: Month) -> None:
    """Each pair is exact, late, or short of what is too old."""
    wrong = {}
    for key, result in month.found.reconciled.items():
        if result.verdict is Verdict.DRIFT or result.verdict is Verdict.UNKNOWN:
            wrong[key] = (result.verdict, [(d.step, d.name, d.units) for d in result.drifts])
    assert not wrong, wrong


def test_the_cast_has_what_it_should() -> None:
    """Fifty tenants; every one has periods of its own."""
    assert len({each.name for each in CAST}) == 50
    assert {each.kind for each in CAST} >= {"month", "fifteenth", "weekly", "thirtyfirst", "starts"}
    assert Step.LEDGER
