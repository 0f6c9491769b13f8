"""What the histories and books of invoices promise, asked of fakes and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.domain.catalog import Tenant
from tallygate.domain.credit import NEVER_US
from tallygate.domain.errors import InvalidField, StorageFault
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import LimitId, PlanName, TenantId
from tallygate.domain.invoice import Burn, Invoice, InvoiceLine, LineKind
from tallygate.domain.window import DAY_US, Window
from tallygate.ports.billing import (
    Issuing,
)
from tests.builders import ACME
from tests.contracts.billing import CREDITS, Subject, lent, subject_of
from tests.servers import connection


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fakes."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of every port, empty."""
    async with subject_of(dsn) as made:
        yield made


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


async def test_no_two_invoices_of_one_time(subject: Subject) -> None:
    """A period that overlaps one with an invoice has none; one that ends there has."""
    books = subject.books
    assert await books.write(Issuing(invoice(), "", ""), 0) is not None
    newest = await books.newest(ACME)
    with pytest.raises(InvalidField, match="overlaps 1970-01-01"):
        await books.write(Issuing(invoice(DAY_US - 1), "", ""), newest)
    assert await books.newest(ACME) == newest
    assert await books.write(Issuing(invoice(DAY_US), "", ""), newest) is not None


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
    async with lent(postgres_dsn) as postgres, connection(postgres_dsn) as admin:
        books = PostgresInvoiceBooks(postgres)
        await books.write(Issuing(invoice(), "", ""), 0)
        await admin.execute("set session_replication_role = replica")
        await admin.execute("update tallygate.invoice set document = 'x'")
        with pytest.raises(StorageFault):
            await books.read(ACME, 0, 0)
