"""What invoices and rates of exchange are put together with, for commands and for control.

Guarantees: nothing that is lent outlives its `async with`.
Refuses to know: how invoices are shown.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.late_places import PostgresLatePlaces
from tallygate.adapters.postgres.plan_history import PostgresPlanHistory
from tallygate.adapters.postgres.pool import Postgres
from tallygate.flow.invoice import InvoiceParts, Invoicing
from tallygate.ports import Clock
from tallygate.ports.billing import ExchangeRates, InvoiceBooks
from tallygate.settings import Settings
from tallygate.wiring.auditing import postgres_of


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


@asynccontextmanager
async def _lent(settings: Settings) -> AsyncIterator[Postgres]:
    postgres = postgres_of(settings)
    try:
        yield postgres
    finally:
        await postgres.close()
