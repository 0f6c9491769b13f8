"""What the ports of invoices promise, asked of the fakes and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.plan_history import PostgresPlanHistory
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.billed import Level
from tallygate.domain.catalog import Aggregation, Catalog, Plan, Tenant
from tallygate.domain.credit import NEVER_US, CreditGrant, GrantAsked, GrantId
from tallygate.domain.errors import StorageFault
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import EventId, LimitId, MeterName, PlanName, TenantId
from tallygate.domain.invoice import Burn, Invoice, InvoiceLine, LineKind, Selection
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.billing import (
    BilledUsage,
    ExchangeRates,
    InvoiceBooks,
    Issuing,
    Place,
    PlanHistory,
    UsageAsked,
    UsageEvidence,
)
from tallygate.testing.billing import (
    FakeBilledUsage,
    FakeExchangeRates,
    FakeInvoiceBooks,
    FakePlanHistory,
)
from tests.builders import ACME, REQUESTS
from tests.servers import connection
from tests.usage_events import NOON_US, event

CREDITS = LimitId("credits")
START: Place = (0, "")
SUM = Selection(REQUESTS, Aggregation.SUM)


@dataclass(frozen=True, slots=True)
class Subject:
    """All ports over one ledger, and how it is filled."""

    usage: BilledUsage
    evidence: UsageEvidence
    history: PlanHistory
    rates: ExchangeRates
    books: InvoiceBooks
    dsn: str | None = None
    fakes: tuple[FakeBilledUsage, FakePlanHistory, FakeInvoiceBooks] | None = None

    async def store(self, *events: UsageEvent) -> None:
        """Store events."""
        if self.fakes is not None:
            self.fakes[0].stored += events
            return
        async with self._postgres() as postgres:
            await PostgresLedger(postgres).persist(LedgerBatch(events))

    async def apply(self, at_us: int, plan: str, *tenants: Tenant, default: str = "") -> None:
        """Apply a catalog of one plan, and tenants."""
        name = PlanName(plan)
        plans = {name: Plan(name), PlanName("other"): Plan(PlanName("other"))}
        of_default = PlanName(default) if default else None
        if self.fakes is not None:
            version = len(self.fakes[1].catalogs) + 1
            made = Catalog(version, {}, plans, of_default)
            self.fakes[1].catalogs.append((at_us, made))
            self.fakes[1].tenants += [(at_us, tenant) for tenant in tenants]
            return
        async with self._postgres() as postgres:
            store = PostgresCatalogStore(postgres)
            version = (await store.newest()).version
            change = CatalogChange(Catalog(0, {}, plans, of_default), tenants, "", at_us)
            await store.write(change, version)

    async def grant(self, amount: int, starts_us: int, expires_us: int, name: str) -> None:
        """Grant credits."""
        asked = GrantAsked(
            *(ACME, CREDITS, GrantId(name), amount, 3),
            starts_us=starts_us,
            expires_us=expires_us,
        )
        if self.fakes is not None:
            seq = len(self.fakes[2].granted) + 1
            self.fakes[2].granted.append(
                CreditGrant(
                    *(ACME, CREDITS, asked.grant_id, seq, amount, amount, 3),
                    *(starts_us, expires_us, 1),
                )
            )
            return
        async with self._postgres() as postgres:
            await PostgresCreditLedger(postgres).grant(asked, 0, 1)

    def _postgres(self) -> "_Lent":
        assert self.dsn is not None
        return _Lent(self.dsn)


class _Lent:
    """A pool for the length of a block."""

    def __init__(self, dsn: str) -> None:
        self._postgres = Postgres(dsn)

    async def __aenter__(self) -> Postgres:
        return self._postgres

    async def __aexit__(self, *_: object) -> None:
        await self._postgres.close()


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fakes."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of every port, empty."""
    if dsn is None:
        usage, history, books = FakeBilledUsage(), FakePlanHistory(), FakeInvoiceBooks()
        fakes = (usage, history, books)
        yield Subject(usage, usage, history, FakeExchangeRates(), books, fakes=fakes)
        return
    async with _Lent(dsn) as postgres:
        reads = PostgresBilledUsage(postgres)
        yield Subject(
            *(reads, reads, PostgresPlanHistory(postgres), PostgresExchangeRates(postgres)),
            PostgresInvoiceBooks(postgres),
            dsn,
        )


def use(number: int, at_us: int, amount: int = 1, **fields: object) -> UsageEvent:
    """Return an event of a time and amount."""
    return event(number, event_time_us=at_us, amount=amount, **fields)


def asked(start_us: int, end_us: int, selection: Selection = SUM) -> UsageAsked:
    """Return the usage of a selection in a window."""
    return UsageAsked(3, selection, Window(start_us, end_us))


async def figures(
    subject: Subject, *asks: UsageAsked
) -> list[tuple[tuple[tuple[str, str], ...], int, int]]:
    """Return group, quantity and count of what was used."""
    found = await subject.usage.billed(ACME, asks)
    return [(each.group, int(each.quantity), each.count) for each in found]


async def test_usage_is_exact_at_any_instant(subject: Subject) -> None:
    """A window may begin and end within a minute: its first instant is in, its last is not."""
    at = NOON_US + 30 * SECOND_US
    await subject.store(use(1, at - 1, 1), use(2, at, 10), use(3, at + 3 * DAY_US, 100))
    assert await figures(subject, asked(at, at + 3 * DAY_US)) == [((), 10, 1)]
    assert await figures(subject, asked(at - 1, at + 3 * DAY_US + 1)) == [((), 111, 3)]
    assert await figures(subject, asked(at + 1, at + 2)) == []


@pytest.mark.parametrize(
    ("aggregation", "quantity"),
    [
        (Aggregation.SUM, 18),
        (Aggregation.COUNT, 3),
        (Aggregation.MAX, 9),
        (Aggregation.MIN, 5),
    ],
)
async def test_every_aggregation(subject: Subject, aggregation: Aggregation, quantity: int) -> None:
    """Refunds take from the sum, and are no use of their own."""
    day = NOON_US // DAY_US * DAY_US
    refund = use(9, day + 5, -3, refund_of=EventId("event-1"))
    await subject.store(use(1, day, 5), use(2, day + HOUR_US, 9), use(3, day + DAY_US, 7), refund)
    selection = Selection(REQUESTS, aggregation)
    assert await figures(subject, asked(day, day + 2 * DAY_US, selection)) == [((), quantity, 3)]


async def test_values_choose_and_tell_apart(subject: Subject) -> None:
    """`where` looks into dimensions, then into the context; `per` makes groups, one for none."""
    large, small = {"model": "large"}, {"model": "small"}
    await subject.store(
        use(1, NOON_US, 1, dimensions=large),
        use(2, NOON_US, 2, dimensions=small),
        use(3, NOON_US, 4, dimensions={**large, "region": "mars"}),
        use(4, NOON_US, 8, dimensions={}, context=EventContext(region="us")),
        use(5, NOON_US, 16, dimensions={}, tenant_id=TenantId("other")),
    )
    day = (NOON_US, NOON_US + DAY_US)
    of_model = replace(SUM, where=(("model", ("large", "small")),))
    by_region = replace(SUM, per="region")
    assert await figures(subject, asked(*day, of_model)) == [((), 7, 3)]
    assert await figures(subject, asked(*day, by_region)) == [
        ((("region", "eu-1"),), 3, 2),
        ((("region", "mars"),), 4, 1),
        ((("region", "us"),), 8, 1),
    ]
    both = replace(by_region, where=(("model", ("large",)), ("region", ("mars", "venus"))))
    assert await figures(subject, asked(*day, both)) == [((("region", "mars"),), 4, 1)]
    by_model = replace(SUM, per="model", where=(("region", ("us",)),))
    assert await figures(subject, asked(*day, by_model)) == [((("model", ""),), 8, 1)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY_US), st.integers(1, 50)), max_size=12),
    st.lists(st.integers(0, 3 * DAY_US), min_size=2, max_size=2).map(sorted),
)
async def test_windows_are_covered_once(
    postgres_dsn: str, used: Sequence[tuple[int, int]], ends: Sequence[int]
) -> None:
    """Out of rollups and events comes what the events come to one by one."""
    day = NOON_US // DAY_US * DAY_US
    # Ids differ by example, as one database serves all.
    tenant = TenantId(f"t{abs(hash((tuple(used), tuple(ends))))}")
    events = [
        use(number, day + at_us, amount, tenant_id=tenant)
        for number, (at_us, amount) in enumerate(used)
    ]
    window = Window(day + ends[0], day + ends[1])
    async with _Lent(postgres_dsn) as postgres:
        await PostgresLedger(postgres).persist(LedgerBatch(tuple(events)))
        found = await PostgresBilledUsage(postgres).billed(tenant, [UsageAsked(0, SUM, window)])
        meters = await PostgresBilledUsage(postgres).meters(tenant, window)
    fake = FakeBilledUsage(events)
    assert found == await fake.billed(tenant, [UsageAsked(0, SUM, window)])
    assert meters == await fake.meters(tenant, window)


async def test_meters_in_use(subject: Subject) -> None:
    """Meters are named once, if anything was used in the minutes of the window."""
    await subject.store(use(1, NOON_US), use(2, NOON_US + MINUTE_US, meter=MeterName("bytes")))
    await subject.store(use(3, NOON_US + 5))
    assert await subject.usage.meters(ACME, Window(NOON_US, NOON_US + 2 * MINUTE_US)) == [
        *("bytes", "requests")
    ]
    assert await subject.usage.meters(ACME, Window(NOON_US, NOON_US + 1)) == ["requests"]
    assert await subject.usage.meters(ACME, Window(0, NOON_US)) == []


async def test_evidence_is_paged(subject: Subject) -> None:
    """Buckets and events come by time; a page goes on where the one before has ended."""
    day = NOON_US // DAY_US * DAY_US
    await subject.store(*(use(number, day + number * 20 * SECOND_US) for number in range(1, 8)))
    of = asked(day + 50 * SECOND_US, day + 2 * MINUTE_US + 1)
    buckets = await subject.evidence.buckets(ACME, of, START, 10)
    assert [(each.level, each.count, each.event_id) for each in buckets] == [
        (Level.MINUTE, 3, ""),
        (Level.EVENT, 1, "event-6"),
    ]
    found: list[str] = []
    after = START
    while page := await subject.evidence.events(ACME, of, (), after, 3):
        assert len(page) <= 3
        found += [each.event_id for each in page]
        after = (page[-1].event_time_us, page[-1].event_id)
    assert found == ["event-3", "event-4", "event-5", "event-6"]
    grouped = replace(of, selection=replace(SUM, per="region"))
    group = (("region", "eu-1"),)
    assert len(await subject.evidence.events(ACME, grouped, group, START, 9)) == 4
    assert await subject.evidence.events(ACME, grouped, (("region", "x"),), START, 9) == []


async def test_history_says_what_was_in_effect(subject: Subject) -> None:
    """The version at the first instant is there, and each change up to the last instant."""
    acme = Tenant(ACME, PlanName("free"))
    await subject.apply(10, "free", default="free")
    await subject.apply(20, "free", acme, default="free")
    await subject.apply(30, "free", replace(acme, plan=PlanName("other")))
    await subject.apply(40, "free")

    async def told(from_us: int, to_us: int) -> list[tuple[int, int, str]]:
        return [
            (each.at_us, each.catalog.version, each.tenant.plan if each.tenant else "")
            for each in await subject.history.versions(ACME, from_us, to_us)
        ]

    assert await told(5, 9) == []
    assert await told(5, 10) == [(10, 1, "free")]
    assert (await told(25, 29))[-1] == (20, 2, "free")
    assert (await told(29, 40))[-2:] == [(30, 3, "other"), (40, 4, "other")]
    assert (await subject.history.versions(TenantId("b"), 40, 41))[-1].tenant is None
    (undeclared,) = await subject.history.versions(TenantId("b"), 10, 11)
    assert undeclared.tenant == Tenant(TenantId("b"), PlanName("free"))


async def test_rates_hold_from_their_instant_on(subject: Subject) -> None:
    """The newest rate that is not later counts; of one instant, what was written last."""

    def rate(from_us: int, value: str, base: str = "USD", quote: str = "EUR") -> ExchangeRate:
        return ExchangeRate(base, quote, from_us, Decimal(value), "a bank")

    first = [rate(10, "0.9"), rate(20, "0.8"), rate(10, "150", "USD", "JPY")]
    assert await subject.rates.write(first) == 3
    assert await subject.rates.write(first) == 0
    assert await subject.rates.write([rate(20, "0.85")]) == 1
    asked_for = [("USD", 9), ("USD", 10), ("USD", 19), ("USD", 20), ("JPY", 50)]
    assert await subject.rates.at("EUR", asked_for) == {
        ("USD", 10): Decimal("0.9"),
        ("USD", 19): Decimal("0.9"),
        ("USD", 20): Decimal("0.85"),
    }
    page = await subject.rates.page("USD", "EUR", 2)
    assert page == [rate(20, "0.85"), rate(20, "0.8")]
    assert len(await subject.rates.page(None, None, 9)) == 4


def invoice(start_us: int = 0, total: str = "5.00", *burns: Burn) -> Invoice:
    """Return an invoice of one fee, and lines for credits that were burned."""
    window = Window(start_us, start_us + DAY_US)
    fee = InvoiceLine(
        *(1, LineKind.FEE, PlanName("free"), window, Decimal(total), Decimal(total)), unit="EUR"
    )
    burned = [
        replace(fee, number=place, kind=LineKind.CREDITS, amount=Decimal(0), burn=burn)
        for place, burn in enumerate(burns, 2)
    ]
    return Invoice(
        *(ACME, window, "EUR", (fee, *burned)),
        *(Decimal(total), Decimal(0), Decimal(0), Decimal(total)),
        catalogs=(1, 2),
    )


async def test_invoices_are_revisions(subject: Subject) -> None:
    """What says the same is not written again; what changed is the next revision; all stay."""
    books = subject.books
    first = await books.write(Issuing(invoice(), "month end", "ann"), await books.newest(ACME))
    assert first is not None
    assert (first.revision, first.reason, first.actor) == (1, "month end", "ann")
    newest = await books.newest(ACME)
    again = await books.write(Issuing(invoice(), "again", "bob"), newest)
    assert again == first
    changed = await books.write(Issuing(invoice(total="6.00"), "late usage", "bob"), newest)
    assert changed is not None
    assert changed.revision == 2
    assert await books.read(ACME, 0, 1) == first
    assert await books.read(ACME, 0, 0) == changed
    assert await books.read(ACME, 0, 3) is None
    assert await books.read(ACME, 1, 0) is None
    listed = await books.page(ACME, 0, 9)
    assert [(each.revision, each.total) for each in listed] == [
        (2, Decimal("6.00")),
        (1, Decimal("5.00")),
    ]
    assert await books.page(None, listed[0].number, 9) == listed[1:]
    assert await books.page(TenantId("other"), 0, 9) == []


async def test_only_one_of_two_writers_wins(subject: Subject) -> None:
    """Who has not seen what was written meanwhile is told so."""
    wanted = [Issuing(invoice(total=f"{total}.00"), "", "") for total in range(1, 5)]
    found = await asyncio.gather(*(subject.books.write(each, 0) for each in wanted))
    assert len([each for each in found if each is not None]) == 1


async def test_grants_less_what_other_periods_burned(subject: Subject) -> None:
    """Only the newest revision of each other period counts; what is used up is left out."""
    await subject.grant(100, 1, NEVER_US, "yearly")
    await subject.grant(50, 1, DAY_US, "early")
    await subject.grant(7, 3 * DAY_US, NEVER_US, "late")
    books = subject.books

    async def issue(made: Invoice) -> None:
        newest = await books.newest(ACME)
        assert await books.write(Issuing(made, "", ""), newest) is not None

    async def left(start_us: int) -> list[tuple[str, str]]:
        window = Window(start_us, start_us + DAY_US)
        found = await books.grants(ACME, window, [CREDITS])
        return [(each.grant_id, str(each.left)) for each in found]

    async def burn(start_us: int, units: str, total: str = "1.00") -> None:
        await issue(invoice(start_us, total, Burn(CREDITS, 1, "yearly", Decimal(units))))

    assert await left(0) == [("yearly", "100"), ("early", "50")]
    await burn(0, "10")
    await burn(0, "12.5", "2.00")
    await burn(DAY_US, "20")
    assert await left(0) == [("yearly", "80"), ("early", "50")]
    assert await left(2 * DAY_US) == [("yearly", "67.5")]
    await burn(DAY_US, "87.5", "2.00")
    assert await left(3 * DAY_US) == [("late", "7")]
    assert await books.grants(ACME, Window(0, 1), [LimitId("none")]) == []


async def test_an_edited_document_is_found(postgres_dsn: str) -> None:
    """A document whose bytes are not those of its hash is not handed out."""
    async with _Lent(postgres_dsn) as postgres, connection(postgres_dsn) as admin:
        books = PostgresInvoiceBooks(postgres)
        await books.write(Issuing(invoice(), "", ""), 0)
        await admin.execute("set session_replication_role = replica")
        await admin.execute("update tallygate.invoice set document = 'x'")
        with pytest.raises(StorageFault):
            await books.read(ACME, 0, 0)
