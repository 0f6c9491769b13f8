"""Issued invoices on their way to Stripe, in Postgres: the `StripeInvoices` port.

Guarantees: what was told of a revision is read from the intents themselves.
Refuses to know: what an invoice says, and how items are sent.
"""

from collections.abc import Mapping, Sequence

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_invoice import LineId
from tallygate.ports.stripe_invoice import IssuedRevision


class PostgresStripeInvoices:
    """The `StripeInvoices` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def issued(
        self, destination: str, after: int, since_us: int, count: int
    ) -> Sequence[IssuedRevision]:
        """Return up to `count` that were not noted, by number, those above `after`."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_invoices_issued"), destination, after, since_us, count
            )
        return [
            IssuedRevision(
                row["number"], TenantId(row["tenant_id"]), row["start_us"], row["revision"]
            )
            for row in rows
        ]

    async def told(
        self, destination: str, of: IssuedRevision, meters: Sequence[MeterName]
    ) -> Mapping[LineId, int]:
        """Return what the revisions before this one have as items, by line and currency."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("stripe_invoice_told"),
                *(destination, of.tenant_id, list(meters)),
                *(str(of.period_start_us), of.revision),
            )
        return {(row["line"], row["currency"]): int(row["amount"]) for row in rows}

    async def note(self, destination: str, number: int, items: int) -> None:
        """Note that all items of an invoice are intended."""
        async with self._postgres.connection() as connection:
            await connection.execute(query("stripe_invoice_note"), destination, number, items)
