"""What an issued invoice has to do with others: where late usage went, what a revision changed.

Guarantees: what is shown for people is what the document has.
Refuses to know: how it was found.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tallygate.commands.output import Sheet
from tallygate.domain import invoice_words as words
from tallygate.domain.drift import spelled
from tallygate.domain.invoice import InvoiceLine
from tallygate.domain.invoice_change import differences
from tallygate.domain.invoice_document import line_json
from tallygate.domain.window import Window
from tallygate.flow.invoice import Invoicing
from tallygate.ports.billing import LateShare, StoredInvoice


@dataclass(frozen=True, slots=True)
class Links:
    """Where late usage of the period is billed, and by how much the revision before was another."""

    shares: Sequence[LateShare] = ()
    changes: Sequence[InvoiceLine] = ()


NO_LINKS = Links()


async def links_of(lent: Invoicing, stored: StoredInvoice) -> Links:
    """Return what an issued invoice has to do with others."""
    invoice = stored.invoice
    changes: Sequence[InvoiceLine] = ()
    if stored.revision > 1:
        before = await lent.stored(invoice.tenant_id, invoice.period, stored.revision - 1)
        changes = differences(before.invoice.lines, invoice.lines)
    return Links(await lent.shares(invoice.tenant_id, invoice.period), changes)


def document(links: Links) -> dict[str, Any]:
    """Return it as plain values, what there is nothing of left out."""
    found: dict[str, Any] = {}
    if links.shares:
        found["late_usage"] = [
            {
                "billed_start_us": each.billed_us,
                "events": each.events,
                "invoice": each.invoice,
                "revision": each.revision,
                "amount": format(each.amount, "f"),
                "currency": each.currency,
            }
            for each in links.shares
        ]
    if links.changes:
        found["changed"] = [line_json(each) for each in links.changes]
    return found


def sheets(links: Links, period: Window, time_zone: str) -> list[Sheet]:
    """Return it as tables."""
    found: list[Sheet] = []
    if links.shares:
        columns = ("billed by the period from", "events", "invoice", "revision", "amount")
        rows = [
            (
                *(spelled(each.billed_us), each.events, each.invoice or "not issued yet"),
                *(each.revision or "", f"{each.amount:,f} {each.currency}".strip()),
            )
            for each in links.shares
        ]
        heading = f"late usage of {words.stretch(period, time_zone)}"
        found.append(Sheet(heading, columns, rows))
    if links.changes:
        changed = [
            (words.whose(each, time_zone), words.quantity(each), f"{each.amount:,f}")
            for each in links.changes
        ]
        found.append(Sheet("changed since the revision before", ("for", "quantity", "by"), changed))
    return found
