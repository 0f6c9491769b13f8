"""What Postgres has of usage on its way to money: intents, their sends, and invoices.

Guarantees: usage and what was made of it are read in one statement, so of one instant.
Refuses to know: what figures come to, and what Stripe has.
"""

from collections.abc import Sequence
from decimal import Decimal

import asyncpg

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.reconcile import PATIENCE_S
from tallygate.domain.ids import MeterName
from tallygate.ports.reconcile import IntendedUsage, IntentsAsked, InvoicedUsage, PeriodAsked


class PostgresMoneyReads:
    """The `MoneyReads` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def intended(self, asked: Sequence[IntentsAsked]) -> Sequence[IntendedUsage]:
        """Return what is intended and due, for each ask with usage or intents, by its place."""
        columns = (
            list(range(len(asked))),
            [each.tenant_id for each in asked],
            [each.meter for each in asked],
            [each.destination for each in asked],
            [each.period.start_us for each in asked],
            [each.period.end_us for each in asked],
            [each.start_us for each in asked],
            [each.end_us for each in asked],
            [each.since_us for each in asked],
            [each.window_us for each in asked],
            [each.settled_us for each in asked],
            [each.fresh_us for each in asked],
            [each.counts for each in asked],
            [each.totals for each in asked],
        )
        rows = await self._fetch("reconcile_intents", *columns)
        return [
            IntendedUsage(
                place=row["place"],
                intended=int(row["intended"]),
                due=int(row["due"]),
                aside=int(row["aside"]),
                late=int(row["late"]),
                taken=int(row["taken"]),
                waiting=int(row["waiting"]),
                refused=int(row["refused"]),
                shadow=int(row["shadow"]),
                lacks=int(row["lacks"]),
                exceeds=int(row["exceeds"]),
                customers=tuple(row["customers"]),
                shared=row["shared"],
            )
            for row in rows
        ]

    async def invoiced(
        self, asked: Sequence[PeriodAsked], counted: Sequence[MeterName]
    ) -> Sequence[InvoicedUsage]:
        """Return what newest invoices have of meters; of those in `counted` events count."""
        rows = await self._fetch(
            "reconcile_invoices",
            list(range(len(asked))),
            [each.tenant.tenant_id for each in asked],
            [each.period.start_us for each in asked],
            [each.period.end_us for each in asked],
            list(counted),
        )
        return [
            InvoicedUsage(
                ask=row["number"],
                meter=MeterName(row["meter"]),
                units=Decimal(row["units"]),
                late=int(row["late"]),
                aside=int(row["aside"]),
            )
            for row in rows
        ]

    async def _fetch(self, name: str, *columns: object) -> Sequence[asyncpg.Record]:
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            return await connection.fetch(query(name), *columns, timeout=PATIENCE_S)
