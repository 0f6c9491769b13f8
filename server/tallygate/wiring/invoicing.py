"""What invoices and rates of exchange are put together with, for commands and for control.

Guarantees: nothing that is lent outlives its `async with`.
Refuses to know: how invoices are shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.invoice_queue import PostgresInvoiceQueue
from tallygate.adapters.postgres.late_places import PostgresLatePlaces
from tallygate.adapters.postgres.plan_history import PostgresPlanHistory
from tallygate.adapters.postgres.pool import Postgres
from tallygate.flow.invoice import InvoiceParts, Invoicing
from tallygate.flow.issue_invoices import IssueInvoices, IssuingParts, ReconciledFirst
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.trail import Trail
from tallygate.ports import Clock
from tallygate.ports.billing import ExchangeRates, InvoiceBooks
from tallygate.settings import Settings
from tallygate.wiring.auditing import postgres_of
from tallygate.wiring.host import Host
from tallygate.wiring.reconciling import REDIS_TIMEOUT_MS, around_invoices, reconciling_of

# A period that is closed by hand is invoiced while somebody waits.
ISSUE_MS: Final = 1_000


@asynccontextmanager
async def invoicing(settings: Settings) -> AsyncIterator[Invoicing]:
    """Lend what works out, issues and explains invoices."""
    async with _lent(settings) as postgres:
        yield invoicing_of(postgres)


@asynccontextmanager
async def invoice_books(settings: Settings) -> AsyncIterator[InvoiceBooks]:
    """Lend the issued invoices."""
    async with _lent(settings) as postgres:
        yield PostgresInvoiceBooks(postgres)


@asynccontextmanager
async def exchange_rates(settings: Settings) -> AsyncIterator[ExchangeRates]:
    """Lend the rates of exchange."""
    async with _lent(settings) as postgres:
        yield PostgresExchangeRates(postgres)


def invoicing_of(postgres: Postgres, clock: Clock | None = None) -> Invoicing:
    """Return what works out, issues and explains the invoices of a ledger."""
    usage = PostgresBilledUsage(postgres)
    return Invoicing(
        InvoiceParts(
            usage=usage,
            evidence=usage,
            history=PostgresPlanHistory(postgres),
            rates=PostgresExchangeRates(postgres),
            books=PostgresInvoiceBooks(postgres),
            late=PostgresLatePlaces(postgres),
            clock=clock or SystemClock(),
        )
    )


def start_issuing(host: Host, trail: Trail) -> None:
    """Start issuing invoices of closed periods, beside the other loops of control."""
    settings = host.settings
    if not settings.invoice_issuing:
        return
    postgres = host.postgres()
    drifts = None
    if settings.invoice_hold_on_drift:
        client = host.redis(REDIS_TIMEOUT_MS)
        made = reconciling_of(settings, postgres, client, told=False)
        drifts = ReconciledFirst(around_invoices(made, host.metrics.insight))
    parts = IssuingParts(
        PostgresInvoiceQueue(postgres),
        *(invoicing_of(postgres), trail, host.clock, drifts, host.metrics.invoices),
    )
    pace = LoopOptions(idle_ms=ISSUE_MS)
    host.spawn(Loop("invoices", IssueInvoices(parts), host.clock, host.observer, pace))


@asynccontextmanager
async def _lent(settings: Settings) -> AsyncIterator[Postgres]:
    postgres = postgres_of(settings)
    try:
        yield postgres
    finally:
        await postgres.close()
