"""The ports of invoices over one ledger, and how it is filled, for their contract tests.

Owns what a test stores and applies. Refuses to know what is promised.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.plan_history import PostgresPlanHistory
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Catalog, Plan, Tenant
from tallygate.domain.credit import CreditGrant, GrantAsked, GrantId
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import LimitId, PlanName
from tallygate.domain.invoice import Selection
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.billing import (
    BilledUsage,
    ExchangeRates,
    InvoiceBooks,
    Place,
    PlanHistory,
    UsageEvidence,
)
from tallygate.testing.billing import (
    FakeBilledUsage,
    FakeExchangeRates,
    FakeInvoiceBooks,
    FakePlanHistory,
)
from tests.builders import ACME, REQUESTS

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
        assert self.dsn is not None
        async with lent(self.dsn) as postgres:
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
        assert self.dsn is not None
        async with lent(self.dsn) as postgres:
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
        assert self.dsn is not None
        async with lent(self.dsn) as postgres:
            await PostgresCreditLedger(postgres).grant(asked, 0, 1)


@asynccontextmanager
async def lent(dsn: str) -> AsyncIterator[Postgres]:
    """Lend a pool for the length of a block."""
    postgres = Postgres(dsn)
    try:
        yield postgres
    finally:
        await postgres.close()


@asynccontextmanager
async def subject_of(dsn: str | None) -> AsyncIterator[Subject]:
    """Lend each port of that database, or the fakes without one, empty."""
    if dsn is None:
        usage, history, books = FakeBilledUsage(), FakePlanHistory(), FakeInvoiceBooks()
        fakes = (usage, history, books)
        yield Subject(usage, usage, history, FakeExchangeRates(), books, fakes=fakes)
        return
    async with lent(dsn) as postgres:
        reads = PostgresBilledUsage(postgres)
        yield Subject(
            *(reads, reads, PostgresPlanHistory(postgres), PostgresExchangeRates(postgres)),
            PostgresInvoiceBooks(postgres),
            dsn,
        )
