"""What closed periods and their invoices came to, as Postgres keeps it.

Guarantees: what was noted is never edited.
Refuses to know: figures, and who issues invoices.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window
from tallygate.ports.reconcile_invoicing import DueAsked, InvoicedPeriod, InvoicingNote, Kind

_DUE: Final = {Kind.BEFORE: "reconcile_due_before", Kind.AFTER: "reconcile_due_after"}


class PostgresInvoicingStore:
    """The `InvoicingStore` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def due(self, kind: Kind, asked: DueAsked) -> Sequence[InvoicedPeriod]:
        """Return what was not reconciled yet, or drifted then, the oldest first."""
        scope = (asked.since_us, asked.again_us, asked.tenant_id, asked.count)
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query(_DUE[kind]), *scope)
        return [
            InvoicedPeriod(
                TenantId(row["tenant_id"]), Window(row["start_us"], row["end_us"]), row["revision"]
            )
            for row in rows
        ]

    async def note(self, found: InvoicingNote) -> None:
        """Keep what was found, once for each run."""
        of = found.of
        async with self._postgres.connection() as connection:
            await connection.execute(
                query("reconcile_note"),
                *(of.tenant_id, of.period.start_us, of.period.end_us),
                *(found.kind.value, of.revision, found.run_id, found.verdict.value),
                *(found.pairs, found.exact, found.at_us),
            )

    async def accuracy(self, since_us: int) -> Mapping[Kind, tuple[int, int]]:
        """Return how many pairs there were since an instant, and how many of them exact."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("reconcile_accuracy"), since_us)
        return {Kind(row["kind"]): (row["pairs"], row["exact"]) for row in rows}
