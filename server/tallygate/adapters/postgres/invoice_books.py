"""Issued invoices in Postgres, and what they have burned of grants.

Guarantees: revisions of a period are numbered without a gap, under a lock of the tenant's; a
document is stored once, and its hash is checked when it is read.
Refuses to know: how an invoice is worked out.
"""

import hashlib
from collections.abc import Sequence

import asyncpg

from tallygate.adapters.postgres.invoice_messages import tell_issued
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.credit import NEVER_US
from tallygate.domain.errors import StorageFault, TooManyItems
from tallygate.domain.ids import LimitId, TenantId
from tallygate.domain.invoice_document import from_bytes, to_bytes
from tallygate.domain.purse import GrantLeft
from tallygate.domain.window import Window
from tallygate.ports.billing import GRANTS_MAX, InvoiceSummary, Issuing, StoredInvoice


class PostgresInvoiceBooks:
    """The `InvoiceBooks` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def grants(
        self,
        tenant_id: TenantId,
        period: Window,
        balances: Sequence[LimitId],
        invoiced_us: int | None = None,
    ) -> list[GrantLeft]:
        """Return the grants of these balances that are valid at some instant of a period."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("invoice_grants"),
                *(tenant_id, period.start_us, period.end_us, list(balances)),
                *(GRANTS_MAX + 1, invoiced_us),
            )
        if len(rows) > GRANTS_MAX:
            raise TooManyItems(f"more than {GRANTS_MAX} grants are valid", field="grants")
        return [_grant(row) for row in rows]

    async def newest(self, tenant_id: TenantId) -> int:
        """Return the number of the invoice that was written last of a tenant, 0 for none."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("invoice_newest"), tenant_id))

    async def write(self, issuing: Issuing, newest: int) -> StoredInvoice | None:
        """Write the next revision of a period, or return the newest one where it says the same."""
        invoice, document = issuing.invoice, to_bytes(issuing.invoice)
        place = (invoice.tenant_id, invoice.period.start_us)
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("invoice_lock"), invoice.tenant_id)
            if await connection.fetchval(query("invoice_newest"), invoice.tenant_id) != newest:
                return None
            last = await _read(connection, *place, 0)
            if last is not None and last.invoice == invoice:
                return last
            await connection.execute(
                query("invoice_insert"),
                *(*place, invoice.period.end_us, invoice.currency, list(invoice.catalogs)),
                *(invoice.subtotal, invoice.discounts, invoice.credits, invoice.total),
                *(document, issuing.reason, issuing.actor),
            )
            stored = await _read(connection, *place, 0)
            if stored is not None:
                before = last.invoice.total if last is not None else None
                await tell_issued(connection, stored, before)
            return stored

    async def read(
        self, tenant_id: TenantId, period_start_us: int, revision: int
    ) -> StoredInvoice | None:
        """Return a revision, the newest for 0; None when there is none. Raises `StorageFault`."""
        async with self._postgres.connection() as connection:
            return await _read(connection, tenant_id, period_start_us, revision)

    async def page(
        self, tenant_id: TenantId | None, before: int, count: int
    ) -> list[InvoiceSummary]:
        """Return up to `count` invoices, the newest first, below a number unless that is 0."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("invoice_page"), tenant_id, before, count)
        return [
            InvoiceSummary(
                number=row["number"],
                tenant_id=TenantId(row["tenant_id"]),
                period=Window(row["period_start_us"], row["period_end_us"]),
                revision=row["revision"],
                currency=row["currency"],
                total=row["total"],
                sha256=row["document_sha256"],
                reason=row["reason"],
                actor=row["actor"],
                created_at_us=row["created_at_us"],
            )
            for row in rows
        ]


async def _read(
    connection: Lent, tenant_id: TenantId, period_start_us: int, revision: int
) -> StoredInvoice | None:
    row = await connection.fetchrow(query("invoice_read"), tenant_id, period_start_us, revision)
    if row is None:
        return None
    if hashlib.sha256(row["document"]).digest() != row["document_sha256"]:
        raise StorageFault(f"the invoice of {tenant_id} is not what its hash is of")
    try:
        invoice = from_bytes(row["document"])
    except (ValueError, KeyError, TypeError, ArithmeticError):
        raise StorageFault(f"the invoice of {tenant_id} cannot be read") from None
    return StoredInvoice(
        invoice=invoice,
        revision=row["revision"],
        sha256=row["document_sha256"],
        reason=row["reason"],
        actor=row["actor"],
        created_at_us=row["created_at_us"],
    )


def _grant(row: asyncpg.Record) -> GrantLeft:
    return GrantLeft(
        limit_id=LimitId(row["limit_id"]),
        seq=row["seq"],
        grant_id=row["grant_id"],
        left=row["left_units"],
        priority=row["priority"],
        starts_us=row["starts_us"],
        expires_us=NEVER_US if row["expires_us"] is None else row["expires_us"],
    )
