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
from tallygate.domain.invoice import InvoiceLine
from tallygate.domain.period import PeriodState
from tallygate.domain.reconcile import Reconciled, Remedy, Step, Verdict
from tallygate.domain.stripe_retry import SENDABLE_US
from tallygate.domain.window import HOUR_US, Window
from tallygate.ports.billing import StoredInvoice
from tests.month.cast import FAR, METERS
from tests.month.expected import Life, granted_to, lives
from tests.month.plant import PLANTS, REFUSED, TAMPERED, Bed, Plant, planted_of
from tests.month.play import Outcome, outcome, play
from tests.month.script import AWAY
from tests.month.world import BY_HAND, MonthWorld, month_world
from tests.rating.naive_usage import Use, measure
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


def test_closing_issues_invoices(month: Month) -> None:
    """Each closed period with anything to bill has an invoice, for each of its changes one."""
    assert not month.found.waiting
    for life in month.lives.values():
        for period in life.closed():
            key = (life.member.name, period.start_us)
            revisions = month.found.invoices.get(key, [])
            assert len(revisions) <= life.revisions(period.start_us)
            assert revisions or life.due(period, period.start_us, []) == 0
    reasons = {each.actor for found in month.found.invoices.values() for each in found}
    assert reasons == {"control"}


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
            if (life.member.name, start_us) not in month.found.invoices:
                # A tenant that had no plan by then, or nothing to pay.
                assert not total
                continue
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
        if not granted_to(life.member.name):
            assert sum(issued, Decimal(0)) == life.all_due()


def test_each_fault_struck(month: Month) -> None:
    """Every kind of fault has had its effect."""
    assert all(month.found.struck)
    assert {"noted"} <= {*month.world.heard.outcomes}
    assert month.world.sent_again


def test_nothing_is_twice_at_stripe(month: Month) -> None:
    """Stripe counts each intent that was delivered once, with its value, and nothing else."""
    counted = Counter(each.identifier for each in month.found.taken if each.applied)
    assert {*counted.values()} == {1}
    values = {each.identifier: each.value for each in month.found.taken}
    sent = {each.identifier: each for each in month.found.told}
    assert len(sent) == len(month.found.told)
    assert {*counted} <= {*sent}
    for identifier, each in sent.items():
        if each.state == "delivered" and each.kind != "cancel":
            assert counted[identifier] == 1
            assert values[identifier] == Decimal(each.value)
        elif each.state == "too_old":
            assert identifier not in counted
    assert {each.state for each in sent.values()} == {"delivered", "settled", "too_old"}
    assert {each.kind for each in sent.values()} == {"delta", "negative", "cancel"}


def test_stripe_has_what_the_ledger_has(month: Month) -> None:
    """Per customer, meter and period, but for what is too old, which is listed to the unit."""
    old = too_old(month)
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


def test_what_is_left_to_people_is_too_old(month: Month) -> None:
    """Stripe would have refused it when it was planned, or when its account was back."""
    left = [each for each in month.found.told if each.state == "too_old"]
    assert FAR in {each.destination for each in left}
    for each in left:
        came = [
            stored.at_us
            for stored in month.lives[each.tenant_id].stored
            if stored.use.meter == each.meter and each.at_us <= stored.use.at_us < each.ends_us
        ]
        # What came too late for its period is told as of when it came.
        came_us = max(came, default=each.at_us)
        away = each.destination == FAR and AWAY[0] <= came_us <= AWAY[1]
        sendable_us = AWAY[1] if away else came_us
        # It takes a few rounds until all are tried.
        assert sendable_us + 4 * HOUR_US - each.at_us >= SENDABLE_US, each


def test_reconciliation_says_so(month: Month) -> None:
    """Each pair is exact, or late by policy, or lacks at Stripe just what is too old."""
    old = too_old(month)
    verdicts: Counter[Verdict] = Counter()
    by_hand = {
        (each.tenant_id, each.meter, each.start_us)
        for each in month.found.told
        if each.reason.endswith(BY_HAND)
    }
    for key, result in month.found.reconciled.items():
        verdicts[result.verdict] += 1
        drifts = [(each.step, each.units, each.follows) for each in result.drifts]
        life = month.lives[key[0]]
        period = next(each for each in life.periods if each.start_us == key[2])
        if old[key]:
            assert result.verdict is Verdict.DRIFT, key
            lacking = Decimal(-old[key])
            wanted = [(Step.SENT, lacking, None), (Step.STRIPE, lacking, Step.SENT)]
            # What people have settled is said to be sent: Stripe's sum still lacks it.
            assert drifts == ([(Step.STRIPE, lacking, None)] if key in by_hand else wanted), key
        else:
            late = bool(life.moved(key[1], period) or life.carried(key[1], period))
            assert (result.verdict, drifts) == (Verdict.LATE if late else Verdict.EXACT, []), key
    assert {*old} <= {*month.found.reconciled}
    assert all(verdicts[each] for each in (Verdict.EXACT, Verdict.LATE, Verdict.DRIFT))


def test_each_line_leads_to_its_events(month: Month) -> None:
    """The evidence of a line are the events that the naive rater took for it, and no other."""
    for ((tenant_id, start_us), _), proof in month.found.evidence.items():
        line = proof.line
        assert line.selection is not None
        expected = {
            each.name
            for each in month.lives[tenant_id].stored
            if each.use.meter == line.selection.meter
            and each.billed_us == start_us
            and each.moved == (line.adjusts is not None)
            and line.segment.holds(each.use.at_us)
            and is_for(each.use, line)
        }
        assert {each.event_id for each in proof.events} == expected, (tenant_id, start_us, line)
        assert proof.more_from is None
        if proof.buckets:
            assert not proof.more_buckets
            total = sum(each.sum for each in proof.buckets)
            assert total == sum(each.amount for each in proof.events)
    assert any(proof.line.adjusts for proof in month.found.evidence.values())


def test_totals_are_frozen_as_used(month: Month) -> None:
    """What was frozen of a meter, or of each group of one, is what a naive fold makes of it."""
    for (tenant_id, start_us), totals in month.found.totals.items():
        life = month.lives[tenant_id]
        period = life.period_of(start_us)
        for total in totals:
            uses = life.own(total.meter, total.group, period)
            expected = measure(METERS[total.meter], uses, period.start_us, period.end_us)
            assert total.quantity == expected, (tenant_id, start_us, total)
        used = {
            each.use.meter for each in life.stored if each.billed_us == start_us == each.start_us
        }
        assert used <= {total.meter for total in totals}


def test_invoices_do_not_change_by_being_asked_for(month: Month) -> None:
    """Issued again at the end, each is what it was: nobody gets a revision for nothing."""

    async def again(tenant_id: TenantId, start_us: int) -> StoredInvoice:
        period = month.found.periods[tenant_id, start_us]
        window = Window(period.start_us, period.end_us)
        issue = month.world.invoicing.issue
        return await issue(tenant_id, window, reason="again", actor="ann")

    for key, revisions in month.found.invoices.items():
        assert month.runner.run(again(*key)) == revisions[-1], key


def test_closed_periods_verify(month: Month) -> None:
    """Each closed revision's totals and hash are what its events come to."""
    assert {each.differs for each in month.found.verified} == {()}
    revisions = sum(each.revision for each in month.found.periods.values())
    assert len(month.found.verified) == revisions


def too_old(month: Month) -> Counter[tuple[TenantId, str, int]]:
    """Return the units that are left to people, by tenant, meter and period."""
    old: Counter[tuple[TenantId, str, int]] = Counter()
    for each in month.found.told:
        if each.state == "too_old" or each.reason.endswith(BY_HAND):
            old[each.tenant_id, each.meter, each.start_us] += each.quantity
    return Counter({key: units for key, units in old.items() if units})


@pytest.fixture
def bed(month: Month) -> Bed:
    """Where errors are planted."""
    return Bed(month.world, month.found, planted_of(month.found))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.step.value)
def test_a_planted_unit_is_found(month: Month, bed: Bed, plant: Plant) -> None:
    """One unit too many is found at its step, with what makes it whole, and at no other."""

    async def found() -> Reconciled:
        async with bed.planted(plant.statement):
            return await bed.look()

    assert blamed(month.runner.run(found())) == [(plant.step, 1, plant.remedy, -1)]
    assert month.runner.run(bed.look()).verdict is Verdict.EXACT


@pytest.mark.parametrize("units", [1, -1])
def test_a_unit_at_stripe_is_found(month: Month, bed: Bed, units: int) -> None:
    """What Stripe counts that nobody told it, or does not count of what it took, is Stripe's."""
    bed.tell(units)
    remedy = Remedy.NEGATIVE if units > 0 else Remedy.REPLACEMENT
    assert blamed(month.runner.run(bed.look())) == [(Step.STRIPE, units, remedy, -units)]
    bed.tell(-units)
    assert month.runner.run(bed.look()).verdict is Verdict.EXACT


def test_a_refused_send_is_found(month: Month, bed: Bed) -> None:
    """Usage that Stripe refused is missing where it was sent, and is no fault of the intents."""

    async def found() -> Reconciled:
        await bed.edit(REFUSED, state="rejected")
        try:
            return await bed.look()
        finally:
            await bed.edit(REFUSED, state="delivered")

    ((step, units, remedy, append),) = blamed(month.runner.run(found()))[:1]
    assert (step, remedy, append) == (Step.SENT, Remedy.REPLACEMENT, -units)
    assert units < 0
    assert month.runner.run(bed.look()).verdict is Verdict.EXACT


def test_a_tampered_event_is_found(month: Month, bed: Bed) -> None:
    """An event that was changed after its period was hashed makes the period differ."""

    async def found() -> set[str]:
        async with bed.planted(TAMPERED):
            return {
                differs
                async for each in month.world.verify.run(*bed.key)
                for differs in each.differs
            }

    assert "sha256" in month.runner.run(found())


def blamed(result: Reconciled) -> list[tuple[Step, int, Remedy, int]]:
    """Return the steps at which something began, by how much, and what to append."""
    assert result.verdict is Verdict.DRIFT
    repairs = {each.step: each for each in result.repairs if each.follows is None}
    return [
        (each.step, int(each.units), repairs[each.step].remedy, int(repairs[each.step].units))
        for each in result.drifts
        if each.follows is None
    ]


def is_for(use: Use, line: InvoiceLine) -> bool:
    """Say whether an event is of a line's selection and group."""
    assert line.selection is not None
    found = dict(use.dimensions)
    wanted = all(found.get(name, "") in values for name, values in line.selection.where)
    return wanted and all(found.get(name, "") == value for name, value in line.group)
