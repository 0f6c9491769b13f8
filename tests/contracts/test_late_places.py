"""What late usage promises invoices, and the queue of those, of fakes and Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.invoice_queue import PostgresInvoiceQueue
from tallygate.adapters.postgres.late_places import PostgresLatePlaces
from tallygate.domain.catalog import Aggregation
from tallygate.domain.credit import NEVER_US
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, PlanName, TenantId
from tallygate.domain.invoice import Burn, Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window
from tallygate.ports.billing import (
    InvoiceBooks,
    Issuing,
    LatePlaces,
    LateShare,
    UsageAsked,
)
from tallygate.ports.invoice_due import DueCount, Hold, InvoiceQueue, Withheld
from tallygate.testing.invoice_due import FakeInvoiceQueue
from tallygate.testing.late_places import LateUsage
from tests.builders import ACME, REQUESTS
from tests.contracts.billing import CREDITS, START, SUM, Subject, lent, subject_of
from tests.servers import connection
from tests.usage_events import NOON_US, event

DAY = NOON_US // DAY_US * DAY_US
PERIODS = tuple(Window(DAY + n * DAY_US, DAY + (n + 1) * DAY_US) for n in range(4))
FIRST, SECOND, THIRD, _ = PERIODS
OTHER = TenantId("other")


@dataclass
class Late:
    """A ledger with closed periods, and what came late for them."""

    subject: Subject
    places: LatePlaces
    queue: InvoiceQueue
    number: int = 0

    async def period(self, window: Window, revision: int = 1, tenant: TenantId = ACME) -> None:
        """Have a period be closed at a revision, or for 0 be in its grace."""
        if self.subject.fakes is not None:
            assert isinstance(self.queue, FakeInvoiceQueue)
            self.subject.fakes[0].late.periods[tenant, window.start_us] = (window, revision)
            if revision:
                self.queue.closed(tenant, window, revision, window.end_us)
            return
        assert self.subject.dsn is not None
        async with connection(self.subject.dsn) as admin:
            state = "closed" if revision else "grace"
            await admin.execute(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, state,"
                " revision, due_at, created_at) values ($1, tallygate.instant($2),"
                " tallygate.instant($3), $4, $5, tallygate.instant($3), now())"
                " on conflict (tenant_id, start_at)"
                " do update set revision = $5, state = $4",
                *(tenant, window.start_us, window.end_us, state, revision),
            )
            if revision:
                await admin.execute(
                    "insert into tallygate.period_revision select $1, tallygate.instant($2), $4,"
                    " tallygate.instant($3), 'grace_over', tallygate.instant($3),"
                    " tallygate.instant($3), 1, 'x'",
                    *(tenant, window.start_us, window.end_us, revision),
                )

    async def use(self, at_us: int, amount: int, **fields: object) -> UsageEvent:
        """Store an event."""
        self.number += 1
        stored = event(self.number, event_time_us=at_us, amount=amount, **fields)
        await self.subject.store(stored)
        return stored

    async def late(
        self,
        at_us: int,
        amount: int,
        closed: Window | None,
        billed: Window,
        revision: int = 1,
        **fields: object,
    ) -> UsageEvent:
        """Store an event that came late for a period, and belongs to a revision of one."""
        stored = await self.use(at_us, amount, **fields)
        closed_us = closed.start_us if closed is not None else None
        if self.subject.fakes is not None:
            late = LateUsage(stored, closed_us, billed.start_us, revision)
            self.subject.fakes[0].late.late.append(late)
            return stored
        assert self.subject.dsn is not None
        async with connection(self.subject.dsn) as admin:
            await admin.execute(
                "insert into tallygate.late_event (tenant_id, event_id, meter, amount, event_time,"
                " refund_of, closed_start, closed_revision, placed, allocated_start,"
                " allocated_revision) values ($1, $2, $3, $4, tallygate.instant($5), $6,"
                " tallygate.instant($7), 1, 'next_period', tallygate.instant($8), $9)",
                *(ACME, stored.event_id, stored.meter, amount, at_us, stored.refund_of),
                *(closed_us, billed.start_us, revision),
            )
        return stored

    async def used(self, window: Window, by: Window | None, of: Selection = SUM) -> list[int]:
        """Return the quantities of what is asked for, as billed by a period."""
        asked = UsageAsked(0, of, window, by.start_us if by is not None else None)
        found = await self.subject.usage.billed(ACME, [asked])
        return [int(each.quantity) for each in found]


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fakes."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def late(dsn: str | None) -> AsyncIterator[Late]:
    """Each kind of places, over nothing."""
    async with subject_of(dsn) as subject:
        if subject.fakes is not None:
            places = subject.fakes[0].late
            places.issued = lambda: subject.fakes[2].issued if subject.fakes is not None else ()
            yield Late(subject, places, FakeInvoiceQueue())
            return
        assert dsn is not None
        async with lent(dsn) as postgres:
            yield Late(subject, PostgresLatePlaces(postgres), PostgresInvoiceQueue(postgres))


BILLED = [
    (SUM, [100, 107, 117]),
    (Selection(REQUESTS, Aggregation.COUNT), [1, 2, 3]),
    (Selection(REQUESTS, Aggregation.MAX), [100, 100, 100]),
    (Selection(REQUESTS, Aggregation.MIN), [100, 7, 7]),
    (Selection(REQUESTS, Aggregation.LATEST), [100, 7, 10]),
]


@pytest.mark.parametrize(("selection", "billed"), BILLED)
async def test_usage_is_billed_by_the_period_that_it_belongs_to(
    late: Late, selection: Selection, billed: list[int]
) -> None:
    """A closed period has what it was closed with; a later one, what came late by then."""
    for period in PERIODS[:3]:
        await late.period(period)
    await late.use(FIRST.start_us + HOUR_US, 100)
    await late.late(FIRST.start_us + 2 * HOUR_US, 7, FIRST, SECOND)
    await late.late(FIRST.start_us + 3 * HOUR_US, 10, FIRST, THIRD)
    found = [await late.used(FIRST, each, selection) for each in PERIODS[:3]]
    assert found == [[each] for each in billed]
    assert await late.used(FIRST, None, selection) == [billed[-1]]
    part = Window(FIRST.start_us + MINUTE_US + 1, FIRST.end_us - MINUTE_US // 2)
    assert await late.used(part, FIRST, selection) == [billed[0]]


async def test_the_largest_may_be_the_late_one(late: Late) -> None:
    """Where sums do not tell the largest and the smallest of the others, events do."""
    await late.period(FIRST)
    await late.use(FIRST.start_us, 5)
    await late.use(FIRST.start_us, 6)
    for amount in (4, 9):
        await late.late(FIRST.start_us + 1, amount, FIRST, SECOND)
    assert await late.used(FIRST, FIRST, Selection(REQUESTS, Aggregation.MAX)) == [6]
    assert await late.used(FIRST, FIRST, Selection(REQUESTS, Aggregation.MIN)) == [5]
    assert await late.used(FIRST, SECOND, Selection(REQUESTS, Aggregation.MAX)) == [9]


async def test_a_period_that_had_nothing_else_has_nothing(late: Late) -> None:
    """Usage that came late alone is none of the closed period, in whatever groups."""
    await late.period(FIRST)
    model = {"model": "a"}
    stored = await late.late(FIRST.start_us + 5, 3, FIRST, SECOND, dimensions=model)
    at_us, of = stored.event_time_us, EventId(stored.event_id)
    await late.late(at_us, -2, FIRST, THIRD, refund_of=of, dimensions=model)
    by_model = replace(SUM, per="model")
    assert await late.used(FIRST, FIRST, by_model) == []
    assert await late.used(FIRST, SECOND, by_model) == [3]
    assert await late.used(FIRST, THIRD, by_model) == [1]
    assert sum(await late.used(FIRST, FIRST)) == 0


async def test_a_correction_counts_once_it_is_made(late: Late) -> None:
    """What is of the period's own next revision is awaited until then, and billed nowhere else."""
    await late.period(FIRST)
    await late.late(FIRST.start_us + 5, 3, FIRST, FIRST, revision=2)
    assert sum(await late.used(FIRST, FIRST)) == 0
    assert sum(await late.used(FIRST, SECOND)) == 0
    assert await late.places.adjusted(ACME, FIRST.start_us) == []
    await late.period(FIRST, 2)
    assert await late.used(FIRST, FIRST) == [3]
    assert await late.places.shares(ACME, FIRST.start_us) == []


async def test_a_level_that_came_late_lasts(late: Late) -> None:
    """A closed period begins with the levels that were known when it was closed."""
    levels = Selection(REQUESTS, Aggregation.TIME_WEIGHTED)
    await late.period(FIRST)
    await late.period(SECOND)
    await late.use(FIRST.start_us, 1)
    await late.late(FIRST.start_us + HOUR_US, 3, FIRST, THIRD)
    seconds = DAY_US // 1_000_000
    assert await late.used(SECOND, SECOND, levels) == [seconds]
    assert await late.used(SECOND, THIRD, levels) == [3 * seconds]
    assert await late.used(FIRST, FIRST, levels) == [seconds]


async def test_periods_are_told(late: Late) -> None:
    """Of a period, those whose late usage it bills, and where its own is; and which holds when."""
    for period in (SECOND, THIRD):
        await late.period(period)
    await late.late(SECOND.start_us + 7, 1, SECOND, THIRD)
    await late.late(FIRST.start_us + 9, 1, None, THIRD)
    await late.late(FIRST.start_us + 5, 1, None, THIRD)
    assert await late.places.adjusted(ACME, THIRD.start_us) == [
        Window(FIRST.start_us + 5, SECOND.start_us),
        SECOND,
    ]
    assert await late.places.adjusted(OTHER, THIRD.start_us) == []
    assert await late.places.period(ACME, SECOND.start_us + 9) == SECOND
    assert await late.places.period(ACME, FIRST.start_us) is None
    assert await late.places.period(ACME, THIRD.end_us) is None
    assert await late.places.shares(ACME, SECOND.start_us) == [LateShare(THIRD.start_us, 1)]


def line(amount: str, period: Window, **fields: object) -> InvoiceLine:
    """Return a line of a period."""
    made = InvoiceLine(
        *(1, LineKind.FEE, PlanName("free"), period, Decimal(amount), Decimal(amount)), unit="EUR"
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


async def issue(books: InvoiceBooks, period: Window, *lines: InvoiceLine) -> None:
    """Write an invoice of these lines."""
    total = sum((each.amount for each in lines), Decimal(0))
    made = Invoice(ACME, period, "EUR", lines, total, Decimal(0), Decimal(0), total)
    assert await books.write(Issuing(made, "", ""), await books.newest(ACME)) is not None


async def test_invoices_name_each_other(late: Late) -> None:
    """Where late usage of a period is invoiced, with what it comes to on the newest revision."""
    for period in PERIODS[:3]:
        await late.period(period)
    await late.late(FIRST.start_us + 7, 1, FIRST, SECOND)
    await late.late(FIRST.start_us + 8, 1, FIRST, THIRD)
    books = late.subject.books
    await issue(books, SECOND, line("1.50", FIRST, adjusts=FIRST), line("9", SECOND))
    await issue(
        books, SECOND, line("2.50", FIRST, adjusts=FIRST), line("0.25", FIRST, adjusts=FIRST)
    )
    numbers = [each.number for each in await books.page(ACME, 0, 9)]
    billed = LateShare(SECOND.start_us, 1, max(numbers), 2, Decimal("2.75"), "EUR")
    assert await late.places.shares(ACME, FIRST.start_us) == [
        billed,
        LateShare(THIRD.start_us, 1),
    ]


async def test_credits_for_late_usage_are_the_closed_periods_own(late: Late) -> None:
    """A period that is worked out anew has what it burned before, and what nobody else has."""
    await late.subject.grant(100, 1, NEVER_US, "yearly")
    books = late.subject.books

    def burned(units: str, period: Window, **fields: object) -> InvoiceLine:
        return line("0", period, burn=Burn(CREDITS, 1, "yearly", Decimal(units)), **fields)

    async def left(period: Window, invoiced: Window | None) -> list[str]:
        at_us = invoiced.start_us if invoiced is not None else None
        found = await books.grants(ACME, period, [CREDITS], at_us)
        return [str(each.left) for each in found]

    await issue(books, FIRST, burned("10", FIRST))
    await issue(books, SECOND, burned("20", FIRST, adjusts=FIRST), burned("5", SECOND))
    await issue(books, THIRD, burned("30", FIRST, adjusts=FIRST))
    assert await left(FIRST, None) == ["45"]
    assert await left(FIRST, SECOND) == ["70"]
    assert await left(FIRST, THIRD) == ["95"]
    assert await left(SECOND, THIRD) == ["70"]
    assert await left(SECOND, None) == ["60"]


async def test_evidence_of_late_usage_is_the_late_events(late: Late) -> None:
    """A closed period's line leads to its own events, a line for late usage to those that came."""
    for period in PERIODS[:3]:
        await late.period(period)
    own = await late.use(FIRST.start_us + 1, 1)
    second = await late.late(FIRST.start_us + 2, 1, FIRST, SECOND)
    third = await late.late(FIRST.start_us + 3, 1, FIRST, THIRD, dimensions={"model": "x"})

    async def events(asked: UsageAsked, group: tuple[tuple[str, str], ...] = ()) -> list[str]:
        found = await late.subject.evidence.events(ACME, asked, group, START, 9)
        return [each.event_id for each in found]

    closed = UsageAsked(0, SUM, FIRST, FIRST.start_us)
    assert await events(closed) == [own.event_id]
    assert await events(replace(closed, billed_by_us=SECOND.start_us)) == [
        own.event_id,
        second.event_id,
    ]
    at_third = UsageAsked(0, SUM, FIRST, late_at_us=THIRD.start_us)
    assert await events(at_third) == [third.event_id]
    grouped = replace(at_third, selection=replace(SUM, per="model"))
    assert await events(grouped, (("model", "x"),)) == [third.event_id]
    assert await events(grouped, (("model", ""),)) == []
    # Rollups have what the line does not.
    assert await late.subject.evidence.buckets(ACME, closed, START, 9) == []
    whole = replace(closed, billed_by_us=THIRD.start_us)
    assert len(await late.subject.evidence.buckets(ACME, whole, START, 9)) == 1


async def test_what_is_closed_is_due_in_its_order(late: Late) -> None:
    """Of each tenant its first period; what is taken is nobody else's until the lease is over."""
    queue = late.queue
    for period in (SECOND, FIRST):
        await late.period(period)
    await late.period(FIRST, tenant=OTHER)
    assert await queue.claim(FIRST.end_us - 1, 9, 1) == []
    first, other = sorted(
        await queue.claim(SECOND.end_us, 9, HOUR_US), key=lambda due: due.tenant_id
    )
    assert (first.tenant_id, first.period, first.revision, first.attempts) == (ACME, FIRST, 1, 1)
    assert other.tenant_id == OTHER
    assert await queue.claim(SECOND.end_us, 9, HOUR_US) == []
    assert [(each.held, each.periods) for each in await queue.counts()] == [(None, 3)]
    assert await queue.done(first)
    assert not await queue.done(first)
    (second,) = await queue.claim(SECOND.end_us, 9, HOUR_US)
    assert second.period == SECOND
    # A lease that is over is taken over; who had it changes nothing any more.
    again = list(await queue.claim(SECOND.end_us + HOUR_US, 9, HOUR_US))
    assert {each.tenant_id: each.attempts for each in again} == {ACME: 2, OTHER: 2}
    assert not await queue.done(second)
    assert not await queue.hold(second, Hold(Withheld.DRIFT, "", 0), 0)


async def test_what_is_held_is_told_once(late: Late) -> None:
    """It is looked at again when it is time, with its reason; another reason is told anew."""
    queue, at_us = late.queue, FIRST.end_us
    await late.period(FIRST)

    async def hold(reason: Withheld, now_us: int) -> bool:
        (due,) = await queue.claim(now_us, 9, HOUR_US)
        return await queue.hold(due, Hold(reason, "why", now_us + 10), now_us)

    assert await hold(Withheld.DRIFT, at_us)
    assert await queue.claim(at_us + 9, 9, HOUR_US) == []
    assert not await hold(Withheld.DRIFT, at_us + 10)
    assert list(await queue.counts()) == [DueCount(Withheld.DRIFT, 1, at_us)]
    assert await hold(Withheld.EXCHANGE_RATE, at_us + 20)
    assert list(await queue.counts()) == [DueCount(Withheld.EXCHANGE_RATE, 1, at_us + 20)]


async def test_another_revision_is_another_turn(late: Late) -> None:
    """What is closed anew while it is invoiced stays due, as of the new revision."""
    await late.period(FIRST)
    (due,) = await late.queue.claim(FIRST.end_us, 9, HOUR_US)
    await late.period(FIRST, 2)
    assert not await late.queue.done(due)
    (again,) = await late.queue.claim(FIRST.end_us, 9, HOUR_US)
    assert again.revision == 2


async def test_a_correction_has_those_again_that_bill_its_late_usage(postgres_dsn: str) -> None:
    """Their lines may come to something else; a first closing changes nobody's."""
    async with subject_of(postgres_dsn) as subject, lent(postgres_dsn) as postgres:
        queue = PostgresInvoiceQueue(postgres)
        late = Late(subject, PostgresLatePlaces(postgres), queue)
        for period in PERIODS[:3]:
            await late.period(period)
        await late.late(FIRST.start_us + 7, 1, FIRST, THIRD)
        for _ in range(3):
            (due,) = await queue.claim(THIRD.end_us, 9, HOUR_US)
            assert await queue.done(due)
        await late.period(FIRST, 2)
        found: list[tuple[Window, int]] = []
        while due_ones := await queue.claim(THIRD.end_us, 9, HOUR_US):
            assert await queue.done(due_ones[0])
            found.append((due_ones[0].period, due_ones[0].revision))
        assert found == [(FIRST, 2), (THIRD, 1)]
