"""Invoices of a real ledger are those of a naive rater, whatever happened in the period."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.exchange_rates import PostgresExchangeRates
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.credit import GrantAsked, GrantId
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import Window, from_datetime
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.wiring.invoicing import invoicing_of
from tests.rating.naive import Story, in_decimal, total_due
from tests.rating.naive_usage import Use
from tests.rating.test_differential import METERS, PREPAID, SLOW, stories
from tests.servers import connection
from tests.usage_events import event

# The month before it is as long: the naive rater takes every period to be.
JANUARY: Final = Window(
    from_datetime(datetime(2026, 1, 1, tzinfo=UTC)), from_datetime(datetime(2026, 2, 1, tzinfo=UTC))
)
ACME: Final = TenantId("acme")
EMPTIED: Final = (
    *("catalog_version", "tenant_history", "tenant", "exchange_rate", "event_key", "usage_event"),
    *("usage_minute", "usage_hour", "usage_day", "source_progress"),
    *("credit_grant", "credit_posting", "credit_account", "credit_balance"),
)


@asynccontextmanager
async def emptied(dsn: str, tables: Sequence[str] = EMPTIED) -> AsyncIterator[Postgres]:
    """Lend a pool of a database in which nothing is left of the example before."""
    async with connection(dsn) as admin:
        # Tables that nobody may truncate are truncated by who is above their triggers.
        await admin.execute("set session_replication_role = replica")
        await admin.execute("truncate " + ", ".join(f"tallygate.{name}" for name in tables))
    postgres = Postgres(dsn)
    try:
        yield postgres
    finally:
        await postgres.close()


async def fill(postgres: Postgres, story: Story) -> None:
    """Have all of a story happen."""
    meters = {meter.name: meter for meter in METERS.values()}
    store = PostgresCatalogStore(postgres)
    for version, (at_us, plan) in enumerate(story.plans):
        tenant = Tenant(ACME, plan.name, currency=story.currency)
        change = CatalogChange(Catalog(0, meters, {plan.name: plan}), (tenant,), "", at_us)
        await store.write(change, version)
    await PostgresExchangeRates(postgres).write(
        [
            ExchangeRate(
                base, story.currency, at_us, _decimal(rate.numerator, rate.denominator), "x"
            )
            for (base, at_us), rate in story.rates.items()
            if base != story.currency
        ]
    )
    credits_ = PostgresCreditLedger(postgres)
    for grant in story.grants:
        asked = GrantAsked(
            *(ACME, PREPAID, GrantId(f"g{grant.seq}"), int(grant.left), grant.priority),
            starts_us=max(1, grant.starts_us),
            expires_us=grant.expires_us,
        )
        await credits_.grant(asked, 0, 1)
    events = tuple(_event(number, use) for number, use in enumerate(story.uses, 1))
    await PostgresLedger(postgres).persist(LedgerBatch(events))


def _decimal(numerator: int, denominator: int) -> Decimal:
    return Decimal(numerator) / Decimal(denominator)


def _event(number: int, use: Use) -> UsageEvent:
    return event(
        number,
        event_id=EventId(use.name),
        refund_of=EventId(use.refund_of),
        meter=MeterName(use.meter),
        amount=use.amount,
        event_time_us=use.at_us,
        dimensions=dict(use.dimensions),
        context=EventContext(),
    )


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, *SLOW],
)
@given(st.data())
async def test_the_naive_rater_agrees_with_a_real_ledger(
    postgres_dsn: str, data: st.DataObject
) -> None:
    """Plans, rates, grants and events from Postgres come to what they come to one by one."""
    story: Story = data.draw(stories(JANUARY))
    async with emptied(postgres_dsn) as postgres:
        await fill(postgres, story)
        if story.plans[0][0] < JANUARY.end_us:
            invoice = await invoicing_of(postgres).preview(ACME, JANUARY)
            assert invoice.total == in_decimal(total_due(story), story.currency)
            assert sum(line.amount for line in invoice.lines) == invoice.total
