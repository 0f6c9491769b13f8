"""The messages about invoices, built once.

Guarantees: `invoice.issued` is written in the transaction that writes a revision, once for each.
Refuses to know: how messages are sent.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from tallygate.adapters.postgres.messages import Message, as_json, shown_time, tell
from tallygate.adapters.postgres.pool import Lent
from tallygate.domain.ids import TenantId
from tallygate.domain.invoice import Invoice
from tallygate.domain.money import total
from tallygate.domain.window import Window
from tallygate.ports.billing import StoredInvoice
from tallygate.ports.invoice_due import DueInvoice, Hold

INVOICE_ISSUED: Final = "invoice.issued"
INVOICE_HELD: Final = "invoice.held"


async def tell_issued(connection: Lent, stored: StoredInvoice, before: Decimal | None) -> None:
    """Write that a revision was issued; `before` is the total of the one before it."""
    invoice = stored.invoice
    data: dict[str, object] = {
        **_named(invoice.tenant_id, invoice.period),
        "revision": stored.revision,
        "currency": invoice.currency,
        "subtotal": _plain(invoice.subtotal),
        "discounts": _plain(invoice.discounts),
        "credits": _plain(invoice.credits),
        "total": _plain(invoice.total),
        "lines": len(invoice.lines),
        "sha256": stored.sha256.hex(),
        "adjusts": [
            {"start": shown_time(start_us), "amount": _plain(amount)}
            for start_us, amount in sorted(_adjusted(invoice).items())
        ],
        "actor": stored.actor,
        "reason": stored.reason,
    }
    if before is not None:
        data["difference"] = _plain(total((invoice.total, -before)))
    await tell(connection, [_message(INVOICE_ISSUED, data, stored.created_at_us)])


async def tell_held(connection: Lent, due: DueInvoice, hold: Hold, now_us: int) -> None:
    """Write that a closed period is not invoiced, and why."""
    data: dict[str, object] = {
        **_named(due.tenant_id, due.period),
        "period_revision": due.revision,
        "reason": hold.reason.value,
        "detail": hold.detail,
    }
    await tell(connection, [_message(INVOICE_HELD, data, now_us)])


def _adjusted(invoice: Invoice) -> Mapping[int, Decimal]:
    found: dict[int, Decimal] = {}
    for line in invoice.lines:
        if line.adjusts is not None:
            start_us = line.adjusts.start_us
            found[start_us] = total((found.get(start_us, Decimal(0)), line.amount))
    return found


def _named(tenant_id: TenantId, period: Window) -> dict[str, object]:
    ends = {"start": shown_time(period.start_us), "end": shown_time(period.end_us)}
    return {"tenant_id": tenant_id, **ends}


def _plain(amount: Decimal) -> str:
    return format(amount, "f")


def _message(kind: str, data: Mapping[str, object], now_us: int) -> Message:
    payload = {"type": kind, "timestamp": shown_time(now_us), "data": data}
    return Message("tenant", str(data["tenant_id"]), kind, as_json(payload).encode())
