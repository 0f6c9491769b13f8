"""Closed periods that are to be invoiced, in Postgres.

Guarantees: a period is taken under a lease; who comes back after it was taken over changes nothing.
Refuses to know: how an invoice is worked out.
"""

import uuid
from collections.abc import Sequence

from tallygate.adapters.postgres import invoice_messages
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window
from tallygate.ports.invoice_due import DueCount, DueInvoice, Hold, Withheld


class PostgresInvoiceQueue:
    """The `InvoiceQueue` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def claim(self, now_us: int, count: int, lease_us: int) -> Sequence[DueInvoice]:
        """Take up to `count` that are due, the first of each tenant; nobody else has them then."""
        token = uuid.uuid4()
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("invoice_claim"), now_us, count, lease_us, token)
        return [
            DueInvoice(
                TenantId(row["tenant_id"]),
                Window(row["start_us"], row["end_us"]),
                *(row["revision"], row["attempts"], str(token)),
            )
            for row in rows
        ]

    async def done(self, due: DueInvoice) -> bool:
        """Take one out, unless it was closed anew meanwhile; say whether it was still ours."""
        async with self._postgres.connection() as connection:
            return bool(
                await connection.fetchval(
                    query("invoice_done"),
                    *(due.tenant_id, due.period.start_us, due.revision, uuid.UUID(due.token)),
                )
            )

    async def hold(self, due: DueInvoice, hold: Hold, now_us: int) -> bool:
        """Note why one is not invoiced, and tell it where that is new; say whether it was told."""
        async with self._postgres.connection() as connection, connection.transaction():
            told = await connection.fetchval(
                query("invoice_hold"),
                *(due.tenant_id, due.period.start_us, uuid.UUID(due.token)),
                *(hold.reason.value, hold.detail, hold.next_us, now_us),
            )
            if told:
                await invoice_messages.tell_held(connection, due, hold, now_us)
        return bool(told)

    async def counts(self) -> Sequence[DueCount]:
        """Count what is to be invoiced, by why it is held."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("invoice_due_counts"))
        return [
            DueCount(
                Withheld(row["held"]) if row["held"] else None, row["periods"], row["since_us"]
            )
            for row in rows
        ]
