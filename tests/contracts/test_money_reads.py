"""What every `MoneyReads` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.reconcile_money import PostgresMoneyReads
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.domain.catalog import Aggregation, Tenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.stripe_intent import IntentKind, IntentPlace, SendState, WindowGap, intent_for
from tallygate.domain.stripe_sync import StripeSync, Way
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.ports import LedgerBatch
from tallygate.ports.billing import InvoiceBooks, Issuing
from tallygate.ports.reconcile import IntendedUsage, IntentsAsked, MoneyReads, PeriodAsked
from tallygate.ports.stripe_store import SendResult, StripeIntents, StripeSends
from tallygate.testing.billing import FakeInvoiceBooks
from tallygate.testing.late_places import LateUsage
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.reconcile_money import FakeMoneyReads
from tallygate.testing.stripe_rows import LateUse
from tallygate.testing.stripe_store import FakeStripeStore
from tests.servers import connection
from tests.usage_events import NOON_US, event

ACME, OTHER = TenantId("acme"), TenantId("other")
METER = MeterName("requests")
PERIOD = Window(NOON_US, NOON_US + DAY_US)
NOW_US = NOON_US + 2 * DAY_US
SYNC = StripeSync(Way.METER_EVENTS, event_name="calls", since_us=NOON_US + HOUR_US)
ASKED = IntentsAsked(
    *(0, ACME, METER, "stripe", PERIOD, PERIOD.start_us, PERIOD.end_us, SYNC.since_us, HOUR_US),
    settled_us=NOW_US,
    fresh_us=NOW_US - HOUR_US,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Reads, and what fills that which they read."""

    reads: MoneyReads
    ledger: FakeLedger | PostgresLedger
    intents: StripeIntents
    sends: StripeSends
    books: InvoiceBooks
    dsn: str = ""

    async def use(self, number: int, hour: int, amount: int, **fields: object) -> None:
        """Store usage of an hour of the period."""
        used = event(number, event_time_us=NOON_US + hour * HOUR_US, amount=amount, **fields)
        await self.ledger.persist(LedgerBatch((used,)))

    async def put_off(
        self, number: int, hour: int, units: int, came_us: int, allocated_us: int
    ) -> None:
        """Have usage of an hour, which came then, be billed by the period that begins there."""
        at_us = NOON_US + hour * HOUR_US
        if isinstance(self.intents, FakeStripeStore):
            late = LateUse(ACME, at_us, units, came_us, allocated_us, PERIOD.start_us)
            self.intents.late.append(late)
            return
        assert self.dsn is not None
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.late_event (tenant_id, event_id, meter, amount, event_time,"
                " refund_of, closed_start, closed_revision, placed, allocated_start,"
                " allocated_revision) values ($1, $2, $3, $4, tallygate.instant($5), '',"
                " tallygate.instant($6), 1, 'next_period', tallygate.instant($7), 1)",
                *(ACME, f"event-{number}", METER, units, at_us, PERIOD.start_us, allocated_us),
            )

    async def intend(
        self,
        hour: int,
        units: int,
        seq: int = 0,
        tenant: TenantId = ACME,
        closed_us: int | None = None,
    ) -> None:
        """Write an intent of an hour."""
        start_us = NOON_US + hour * HOUR_US
        place = IntentPlace(
            *(tenant, "cus_1", METER, "{}", start_us, start_us + HOUR_US),
            *(PERIOD.start_us, NOON_US + 9 * DAY_US),
        )
        gap = WindowGap(place, units, 0, seq, closed_start_us=closed_us)
        made = intent_for("stripe", SYNC, gap, IntentKind.DELTA)
        assert await self.intents.intend([made], NOON_US)

    async def send(self, at_us: int, *states: SendState) -> None:
        """Have the sends that are due end so, in their order."""
        claim = await self.sends.claim("stripe", at_us, lanes=9, per_lane=9, lease_ms=60_000)
        (lane,) = claim.lanes
        results = [
            SendResult(each.intent_id, state, at_us)
            for each, state in zip(lane, states, strict=True)
        ]
        assert await self.sends.finish(claim.token, results) == len(states)
        await self.sends.release(claim.token)

    async def intended(self, **fields: object) -> IntendedUsage:
        """Return what there is."""
        asked = replace(ASKED, **fields)  # type: ignore[arg-type]  # fields by name
        (found,) = await self.reads.intended([asked])
        return found


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of reads, over nothing."""
    if dsn is None:
        ledger, store = FakeLedger(), FakeStripeStore(lambda: NOW_US)
        books = FakeInvoiceBooks(clock_us=NOW_US)
        yield Subject(FakeMoneyReads(ledger, store, books), ledger, store, store, books)
        return
    postgres = Postgres(dsn)
    yield Subject(
        *(PostgresMoneyReads(postgres), PostgresLedger(postgres)),
        *(PostgresStripeIntents(postgres), PostgresStripeSends(postgres)),
        PostgresInvoiceBooks(postgres),
        dsn,
    )
    await postgres.close()


async def test_intents_are_held_window_by_window(subject: Subject) -> None:
    """What is due is the usage of settled windows; what was before is aside, unless told."""
    assert await subject.reads.intended([ASKED]) == []
    await subject.use(1, 0, 3)
    await subject.use(2, 2, 10)
    await subject.use(3, 5, 7)
    found = await subject.intended()
    assert (found.intended, found.due, found.aside, found.customers) == (0, 17, 3, ())
    await subject.intend(2, 10)
    await subject.intend(2, 1, seq=1)
    found = await subject.intended()
    assert (found.intended, found.due, found.waiting, found.taken) == (11, 17, 11, 0)
    early = await subject.intended(settled_us=NOON_US + 3 * HOUR_US)
    assert (early.due, early.aside) == (10, 3)
    fresh = await subject.intended(fresh_us=0)
    assert (fresh.due, fresh.intended) == (11, 11)
    counted = await subject.intended(counts=True)
    assert (counted.due, counted.aside) == (2, 1)
    totals = await subject.intended(totals=True)
    assert (totals.intended, totals.waiting) == (1, 1)
    await subject.intend(0, 3)
    assert ((await subject.intended()).due, (await subject.intended()).aside) == (20, 0)


async def test_late_usage_is_due_where_it_is_billed(subject: Subject) -> None:
    """Its own period says so many are late, the other has as many more to tell, apart."""
    following = Window(PERIOD.end_us, PERIOD.end_us + DAY_US)
    came_us = following.start_us + 3 * HOUR_US
    await subject.use(1, 2, 10)
    await subject.use(2, 5, 7, received_at_us=came_us)
    await subject.put_off(2, 5, 7, came_us, following.start_us)
    own = await subject.intended()
    assert (own.due, own.late, own.aside) == (10, 7, 0)
    asked = {"period": following, "start_us": following.start_us, "end_us": following.end_us}
    other = await subject.intended(**asked)
    assert (other.intended, other.due, other.late, other.aside) == (0, 7, -7, 0)
    await subject.intend(27, 7, closed_us=PERIOD.start_us)
    other = await subject.intended(**asked)
    assert (other.intended, other.due, other.late) == (7, 7, -7)
    assert (await subject.intended(**asked, totals=True)).due == 7
    later = await subject.intended(since_us=came_us)
    assert (later.due, later.late, later.aside) == (0, 0, 17)


async def test_sends_are_told_apart(subject: Subject) -> None:
    """By how far they came; what was taken just now, Stripe's sum may lack."""
    for hour in (2, 3, 4):
        await subject.intend(hour, 10**hour)
    assert not (await subject.intended()).shared
    await subject.send(NOW_US, SendState.DELIVERED, SendState.REJECTED, SendState.AMBIGUOUS)
    found = await subject.intended()
    assert (found.taken, found.refused, found.waiting) == (100, 1_000, 10_000)
    assert (found.lacks, found.exceeds, found.customers) == (100, 10_000, ("cus_1",))
    assert (await subject.intended(fresh_us=NOW_US + 1)).lacks == 0
    await subject.intend(2, 1, tenant=OTHER)
    assert (await subject.intended()).shared


def usage_line(segment: Window, amount: Decimal) -> InvoiceLine:
    """Return a line for so many units, each worth one."""
    return InvoiceLine(
        *(1, LineKind.USAGE, PlanName("p"), segment, amount, amount, PriceId("calls")),
        model=PriceModel.PER_UNIT,
        selection=Selection(METER, Aggregation.SUM),
        quantity=amount,
        unit="USD",
    )


async def test_invoices_are_held_by_segment(subject: Subject) -> None:
    """The newest revision counts, by prices for all of a meter; the rest of the period is aside."""
    asked = PeriodAsked(Tenant(ACME, PlanName("p")), PERIOD)
    assert await subject.reads.invoiced([asked], []) == []
    await subject.use(1, 0, 3)
    await subject.use(2, 20, 4)
    await subject.use(3, 1, 9, received_at_us=NOW_US * 2)
    segment = Window(NOON_US, NOON_US + 12 * HOUR_US)
    for quantity in (9, 5):
        amount = Decimal(quantity)
        line = usage_line(segment, amount)
        made = Invoice(ACME, PERIOD, "USD", (line,), amount, Decimal(0), Decimal(0), amount)
        newest = await subject.books.newest(ACME)
        assert await subject.books.write(Issuing(made, "", ""), newest)
    (found,) = await subject.reads.invoiced([asked], [])
    assert (int(found.units), found.late, found.aside) == (5, 9, 4)
    (found,) = await subject.reads.invoiced([asked], [METER])
    assert (int(found.units), found.late, found.aside) == (5, 1, 1)
    shorter = replace(asked, period=Window(PERIOD.start_us, PERIOD.end_us - 1))
    assert await subject.reads.invoiced([shorter], []) == []


async def test_what_is_billed_elsewhere_is_no_part_of_an_invoice(subject: Subject) -> None:
    """It was taken off what was frozen; a line for late usage of another period is none either."""
    asked = PeriodAsked(Tenant(ACME, PlanName("p")), PERIOD)
    await subject.use(1, 0, 3)
    await subject.use(2, 1, 4)
    await subject.use(3, 2, 50)
    place = (PERIOD.start_us, PERIOD.end_us)
    if isinstance(subject.reads, FakeMoneyReads):
        late = subject.reads.late
        late.periods = {(ACME, PERIOD.start_us): (PERIOD, 1)}
        stored = {str(each.event_id): each for each in subject.reads.ledger.events.values()}
        late.late = [
            LateUsage(stored["event-2"], *place, 1),
            LateUsage(stored["event-3"], PERIOD.start_us, PERIOD.start_us, 2),
        ]
    else:
        assert subject.dsn is not None
        async with connection(subject.dsn) as admin:
            await admin.execute(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, state,"
                " revision, due_at, created_at)"
                " values ('acme', tallygate.instant($1), tallygate.instant($2),"
                " 'closed', 1, now(), now())",
                *place,
            )
            await admin.execute(
                "insert into tallygate.late_event select tenant_id, event_id, meter, amount,"
                " event_time, refund_of, tallygate.instant($1), 1, 'next_period',"
                " tallygate.instant(case amount when 4 then $2::bigint else $1 end),"
                " case amount when 4 then 1 else 2 end from tallygate.usage_event where amount > 3",
                *place,
            )
    own = usage_line(PERIOD, Decimal(3))
    other = replace(usage_line(PERIOD, Decimal(70)), adjusts=Window(0, PERIOD.start_us))
    made = Invoice(
        *(ACME, PERIOD, "USD", (own, other), Decimal(73), Decimal(0), Decimal(0), Decimal(73))
    )
    assert await subject.books.write(Issuing(made, "", ""), 0)
    (found,) = await subject.reads.invoiced([asked], [])
    assert (int(found.units), found.late, found.aside) == (3, 0, 0)
    # Nor is it where no price is for all of the meter.
    short = replace(own, segment=Window(PERIOD.start_us, NOON_US + HOUR_US))
    again = Issuing(replace(made, lines=(short, other)), "", "")
    assert await subject.books.write(again, await subject.books.newest(ACME))
    (found,) = await subject.reads.invoiced([asked], [])
    assert (int(found.units), found.late, found.aside) == (3, 0, 0)
