"""Plays the script, and reads what came of it.

Guarantees: what is read is read once, at the end, from the stores and from Stripe themselves.
Refuses to know what should have come of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tallygate.domain.errors import NotFound
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.period import PeriodKey
from tallygate.domain.reconcile import Reconciled
from tallygate.domain.window import SECOND_US, Window
from tallygate.flow.invoice import START, Evidence
from tallygate.flow.period_orders import PeriodOrder
from tallygate.flow.verify_periods import PeriodFinding
from tallygate.ports.billing import StoredInvoice
from tallygate.ports.period import BillingPeriod, FrozenTotal, PeriodQuery
from tests.month.cast import CAST, METERS, PLANS, plans
from tests.month.expected import REOPENED_OF_US
from tests.month.script import MOVES, RAISED, REOPENED, Move, story, ticks, troubles
from tests.month.world import MonthWorld
from tests.servers import connection

Key = tuple[TenantId, int]


@dataclass(frozen=True, slots=True)
class Told:
    """An intent of Stripe's, and how far it has come."""

    destination: str
    tenant_id: TenantId
    customer: str
    meter: MeterName
    start_us: int
    at_us: int
    ends_us: int
    identifier: str
    kind: str
    quantity: int
    value: str
    state: str
    reason: str
    replaces: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A meter event as Stripe has it."""

    account: str
    event_name: str
    customer: str
    identifier: str
    value: Decimal
    applied: bool
    cancelled: bool


@dataclass
class Outcome:
    """What there is at the end."""

    periods: dict[Key, BillingPeriod] = field(default_factory=dict)
    totals: dict[Key, Sequence[FrozenTotal]] = field(default_factory=dict)
    invoices: dict[Key, list[StoredInvoice]] = field(default_factory=dict)
    late: dict[EventId, Key] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    summed: dict[tuple[TenantId, MeterName, int], Decimal] = field(default_factory=dict)
    events: set[EventId] = field(default_factory=set)
    waiting: list[TenantId] = field(default_factory=list)
    struck: list[int] = field(default_factory=list)
    evidence: dict[tuple[Key, int], Evidence] = field(default_factory=dict)
    verified: list[PeriodFinding] = field(default_factory=list)
    reconciled: Mapping[tuple[TenantId, MeterName, int], Reconciled] = field(default_factory=dict)


async def play(world: MonthWorld, seed: int) -> None:
    """Live through the month and its tail."""
    coming = story(seed)
    trouble = troubles()
    arrived = 0
    for at_us in ticks():
        world.clock.virtual.set(at_us / SECOND_US)
        while trouble and trouble[0].at_us <= at_us:
            first = trouble.pop(0)
            stripe = world.accounts[first.account].stripe
            world.rules.append(stripe.faults.add(first.fault))
        for move in MOVES:
            if move.at_us == at_us:
                await _move(world, move)
        for number, opened_us in REOPENED.items():
            if opened_us == at_us:
                await _reopen(world, number)
        begun = arrived
        while arrived < len(coming) and coming[arrived].at_us <= at_us:
            arrived += 1
        await world.tick(at_us, coming[begun:arrived])
        await world.decide()


async def _move(world: MonthWorld, move: Move) -> None:
    if move.tenant_id is None or move.plan is None:
        for name, plan in plans(RAISED).items():
            if plan != PLANS[name]:
                await world.apply.plan(plan)
        return
    tenant = await world.catalogs.tenant(move.tenant_id)
    assert tenant is not None
    await world.apply.tenant(replace(tenant, plan=move.plan))


async def _reopen(world: MonthWorld, number: int) -> None:
    member = CAST[number]
    march = next(each for each in member.periods() if each.holds(REOPENED_OF_US))
    key = PeriodKey(member.name, march.start_us)
    await world.orders.reopen(PeriodOrder(key, "ann", "an import was wrong"))


async def outcome(world: MonthWorld) -> Outcome:
    """Read what there is."""
    found = Outcome()
    async with connection(world.dsn) as admin:
        rows = await admin.fetch("select tenant_id, event_id from tallygate.usage_event")
        found.events = {EventId(row["event_id"]) for row in rows}
        late = await admin.fetch(
            "select tenant_id, event_id, tallygate.microseconds(allocated_start) as start_us"
            " from tallygate.late_event"
        )
        found.late = {
            EventId(row["event_id"]): (TenantId(row["tenant_id"]), row["start_us"]) for row in late
        }
        waiting = await admin.fetch("select tenant_id from tallygate.invoice_due")
        found.waiting = [TenantId(row["tenant_id"]) for row in waiting]
        told = await admin.fetch(
            "select destination, tenant_id, customer, meter,"
            " tallygate.microseconds(period_start) as start_us,"
            " tallygate.microseconds(sent_as_of) as at_us,"
            " tallygate.microseconds(window_end) as ends_us, identifier,"
            " kind, quantity::bigint as quantity, value, state, reason, replaces"
            " from tallygate.stripe_intent join tallygate.stripe_send"
            " using (intent_id, destination, customer, meter, period_start) order by intent_id"
        )
        found.told = [Told(**dict(row)) for row in told]
    await _periods(world, found)
    _stripe(world, found)
    found.verified = [each async for each in world.verify.run(None, None)]
    results = await world.reconcile(found.periods.values())
    found.reconciled = {
        (each.pair.tenant_id, each.pair.meter, each.pair.period.start_us): each for each in results
    }
    found.struck = [rule.struck for rule in world.rules]
    return found


async def _periods(world: MonthWorld, found: Outcome) -> None:
    for member in CAST:
        periods = await world.reader.periods(PeriodQuery(member.name, limit=1_000))
        for each in periods:
            key = (member.name, each.start_us)
            found.periods[key] = each
            if each.revision:
                found.totals[key] = await world.reader.totals(*key, each.revision)
            window = Window(each.start_us, each.end_us)
            revisions: list[StoredInvoice] = []
            while True:
                try:
                    number = len(revisions) + 1
                    stored = await world.invoicing.stored(member.name, window, number)
                except NotFound:
                    break
                revisions.append(stored)
            if revisions:
                found.invoices[key] = revisions
                invoice = revisions[-1].invoice
                for line in invoice.lines:
                    if line.selection is not None:
                        proof = await world.invoicing.evidence(invoice, line, START, 1_000)
                        found.evidence[key, line.number] = proof


def _stripe(world: MonthWorld, found: Outcome) -> None:
    meters = {meter.name: meter.stripe for meter in METERS.values() if meter.stripe is not None}
    for name, account in world.accounts.items():
        for each in account.stripe.meter_events():
            found.taken.append(
                Taken(
                    *(name, each.event_name, each.customer or "", each.identifier, each.value),
                    *(each.applied_us is not None, each.cancelled),
                )
            )
    for member in CAST:
        customer = member.tenant.stripe_customer_id
        for period in member.periods():
            for meter, sync in meters.items():
                stripe = world.accounts[sync.destination].stripe
                bounds = (period.start_us // SECOND_US, period.end_us // SECOND_US)
                units = stripe.total(sync.event_name, customer, *bounds) / Decimal(sync.scale)
                found.summed[member.name, meter, period.start_us] = units
