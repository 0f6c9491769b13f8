"""Invoices of closed periods of a real ledger are a naive rater's, whatever came late for them."""

from typing import Final

from hypothesis import HealthCheck, given, settings

from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.invoice import Invoice
from tallygate.ports import LedgerBatch
from tallygate.wiring.invoicing import invoicing_of
from tests.property.test_invoices import ACME, EMPTIED, emptied, fill
from tests.rating.late_chain import PERIODS, WHOLE, Chain, chains, naive, stored
from tests.rating.naive import in_decimal
from tests.rating.test_differential import SLOW
from tests.rating.test_invoice_flow import Clock
from tests.servers import connection

LATE: Final = ("late_event", "billing_period", "invoice")


async def close(dsn: str, postgres: Postgres, chain: Chain) -> None:
    """Have a chain's usage be stored, its periods be closed, and what came late be noted."""
    await fill(postgres, chain.story)
    events = tuple(stored(number, each.use) for number, each in enumerate(chain.arrivals, 1))
    await PostgresLedger(postgres).persist(LedgerBatch(events))
    async with connection(dsn) as admin:
        for period in PERIODS:
            await admin.execute(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, state,"
                " revision, due_at, created_at) values ($1, tallygate.instant($2),"
                " tallygate.instant($3), 'closed', 1, now(), now())",
                *(ACME, period.start_us, period.end_us),
            )
        for each in chain.arrivals:
            if each.billed != each.own:
                starts = PERIODS[each.own].start_us, PERIODS[each.billed].start_us
                await admin.execute(
                    "insert into tallygate.late_event select tenant_id, event_id, meter, amount,"
                    " event_time, refund_of, tallygate.instant($2), 1, 'next_period',"
                    " tallygate.instant($3), 1 from tallygate.usage_event where event_id = $1",
                    *(each.use.name, *starts),
                )


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, *SLOW],
)
@given(chains())
async def test_all_invoices_together_are_what_all_usage_costs(
    postgres_dsn: str, chain: Chain
) -> None:
    """Rollups less what came late, and events without it, come to what they come to one by one."""
    async with emptied(postgres_dsn, (*EMPTIED, *LATE)) as postgres:
        await close(postgres_dsn, postgres, chain)
        made = invoicing_of(postgres, Clock(WHOLE.end_us))
        invoices: list[Invoice] = []
        for period in PERIODS:
            issued = await made.issue(ACME, period, reason="", actor="")
            invoices.append(issued.invoice)
        currency = chain.story.currency
        wanted = [in_decimal(each, currency) for each in naive(chain)]
        assert [each.total for each in invoices] == wanted
        for period, invoice in zip(PERIODS, invoices, strict=True):
            again = await made.issue(ACME, period, reason="again", actor="")
            assert (again.revision, again.invoice) == (1, invoice)
        assert len(await PostgresInvoiceBooks(postgres).page(ACME, 0, 9)) == len(PERIODS)
