"""Invoices: drafted, finalized, paid, voided.

Guarantees: a draft's usage is what was applied by now, a finalized invoice's what was applied when
it was finalized, for ever: usage after that is on no invoice; an invoice finalizes itself once its
grace is over; credits are taken before anything is due.
Refuses to know: when a period ends, and who asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from .clock import US_PER_S
from .errors import invalid
from .pricing import Price, plain
from .tables import Json

if TYPE_CHECKING:
    from .world import World

GRACE_MAX_S: Final = 72 * 3_600
CREDIT: Final = "credit_balance_transaction"


@dataclass(frozen=True, slots=True)
class Span:
    """What a subscription's item is billed for: usage of a time, or a quantity of a time."""

    subscription: str
    item: str
    price: Price
    start_s: int
    end_s: int
    # None where it is usage.
    quantity: Decimal | None = None
    # Of a period that is billed in part, which part.
    share: Decimal = Decimal(1)


@dataclass(slots=True)
class InvoiceItem:
    """An amount that goes onto the customer's next invoice, or onto a chosen draft."""

    id: str
    customer: str
    currency: str
    amount: int
    created: int
    livemode: bool
    start_s: int
    end_s: int
    quantity: Decimal = Decimal(1)
    unit_amount: Decimal = Decimal(0)
    description: str | None = None
    discountable: bool = True
    invoice: str | None = None
    subscription: str | None = None
    subscription_item: str | None = None
    price: str | None = None
    product: str | None = None
    proration: bool = False
    metadata: dict[str, str] = field(default_factory=dict)

    def render(self) -> Json:
        """Return it as the v1 API does."""
        parent = None
        if self.subscription is not None:
            details = {
                "subscription": self.subscription,
                "subscription_item": self.subscription_item,
            }
            parent = {"type": "subscription_details", "subscription_details": details}
        return {
            "id": self.id,
            "object": "invoiceitem",
            "amount": self.amount,
            "currency": self.currency,
            "customer": self.customer,
            "date": self.created,
            "description": self.description,
            "discountable": self.discountable,
            "discounts": [],
            "invoice": self.invoice,
            "livemode": self.livemode,
            "metadata": self.metadata,
            "net_amount": self.amount,
            "parent": parent,
            "period": {"start": self.start_s, "end": self.end_s},
            "pricing": priced(self.price, self.product, self.unit_amount),
            "proration": self.proration,
            "quantity": int(self.quantity),
            "quantity_decimal": plain(self.quantity),
            "tax_rates": [],
        }


@dataclass(slots=True)
class Line:
    """One line of an invoice."""

    amount: int
    description: str
    start_s: int
    end_s: int
    quantity: Decimal
    unit_amount: Decimal
    subscription: str | None = None
    item: str | None = None
    invoice_item: InvoiceItem | None = None
    price: Price | None = None
    # What credit grants paid of it, by the entry that says so.
    credits: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Invoice:
    """What a customer is billed."""

    id: str
    customer: str
    currency: str
    created: int
    start_s: int
    end_s: int
    livemode: bool
    billing_reason: str
    subscription: str | None = None
    status: str = "draft"
    auto_advance: bool = True
    collection_method: str = "charge_automatically"
    finalizes_at: int | None = None
    finalized_at: int | None = None
    paid_at: int | None = None
    voided_at: int | None = None
    number: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    # Filled when it is finalized; a draft's are made whenever they are asked for.
    lines: list[Line] | None = None


class Invoices:
    """The invoices of one account."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._finalized = 0

    def draft(self, invoice: Invoice, *, take_pending: bool, now_us: int) -> Invoice:
        """Keep a new draft; it takes along what is pending, and will finalize itself."""
        world = self._world
        world.invoices.add(invoice.id, invoice)
        if take_pending:
            for item in self.pending(invoice.customer, invoice.currency, invoice.subscription):
                item.invoice = invoice.id
        if invoice.auto_advance:
            self.advance(invoice, now_us)
        world.notices.snapshot("invoice.created", now_us, self.render(invoice))
        return invoice

    def advance(self, invoice: Invoice, now_us: int) -> None:
        """Have a draft finalize itself once the grace is over."""
        grace_s = min(self._world.behaviour.finalization_grace_s, GRACE_MAX_S)
        due_us = now_us + round(grace_s * US_PER_S)
        invoice.auto_advance, invoice.finalizes_at = True, due_us // US_PER_S
        self._world.schedule.at(due_us, lambda at_us: self._finalize_due(invoice, at_us))

    def pending(self, customer: str, currency: str, subscription: str | None) -> list[InvoiceItem]:
        """Return what is on no invoice yet and may go onto this one."""
        return [
            item
            for item in self._world.invoice_items
            if item.invoice is None
            and (item.customer, item.currency) == (customer, currency)
            and item.subscription in (None, subscription)
        ]

    def finalize(self, invoice: Invoice, now_us: int) -> None:
        """Fix what a draft says. Raises `StripeFault`."""
        if invoice.status != "draft":
            raise invalid(
                "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
                code="invoice_not_editable",
            )
        world = self._world
        invoice.lines = self.lines(invoice)
        invoice.status, invoice.finalized_at = "open", now_us // US_PER_S
        invoice.finalizes_at = None
        self._finalized += 1
        invoice.number = f"FAKE-{self._finalized:06}"
        world.credits.apply(invoice, now_us)
        if due(invoice.lines) == 0:
            invoice.status, invoice.paid_at = "paid", now_us // US_PER_S
        world.notices.snapshot("invoice.finalized", now_us, self.render(invoice))
        if invoice.status == "paid":
            world.notices.snapshot("invoice.paid", now_us, self.render(invoice))

    def lines(self, invoice: Invoice) -> list[Line]:
        """Return what an invoice says; of a draft, as things stand."""
        if invoice.lines is not None:
            return invoice.lines
        attached = (item for item in self._world.invoice_items if item.invoice == invoice.id)
        spans = (line for span in invoice.spans for line in self._billed(invoice.customer, span))
        return [*item_lines(attached), *spans]

    def preview(self, invoice: Invoice) -> Json:
        """Return what an invoice would say, with what is pending, without keeping it."""
        pending = self.pending(invoice.customer, invoice.currency, invoice.subscription)
        lines = [*item_lines(pending), *self.lines(invoice)]
        return rendered(invoice, lines)

    def render(self, invoice: Invoice) -> Json:
        """Return an invoice as the v1 API does."""
        return rendered(invoice, self.lines(invoice))

    def _billed(self, customer: str, span: Span) -> Iterable[Line]:
        quantity = span.quantity
        if quantity is None and span.price.meter is not None:
            meter = self._world.meters.get(span.price.meter)
            quantity = self._world.usage.total(meter, customer, span.start_s, span.end_s)
        for part in span.price.parts((quantity or Decimal(0)) * span.share):
            yield Line(
                amount=part.amount,
                description=span.price.nickname or span.price.product,
                start_s=span.start_s,
                end_s=span.end_s,
                quantity=part.quantity,
                unit_amount=part.unit_amount,
                subscription=span.subscription,
                item=span.item,
                price=span.price,
            )

    def _finalize_due(self, invoice: Invoice, now_us: int) -> None:
        # It may have been finalized, deleted or told to wait meanwhile.
        if invoice.status == "draft" and invoice.finalizes_at == now_us // US_PER_S:
            self.finalize(invoice, now_us)


def item_lines(items: Iterable[InvoiceItem]) -> Iterable[Line]:
    """Yield the lines of invoice items."""
    for item in items:
        yield Line(
            amount=item.amount,
            description=item.description or "",
            start_s=item.start_s,
            end_s=item.end_s,
            quantity=item.quantity,
            unit_amount=item.unit_amount,
            subscription=item.subscription,
            item=item.subscription_item,
            invoice_item=item,
        )


def due(lines: Iterable[Line]) -> int:
    """Return what is to be paid for lines: what is negative in all is no debt of ours."""
    rows = list(lines)
    taken = sum(amount for line in rows for _, amount in line.credits)
    return max(0, sum(line.amount for line in rows) - taken)


def priced(price: str | None, product: str | None, unit_amount: Decimal) -> Json:
    """Return how a line is priced, as the v1 API does."""
    details = None if price is None else {"price": price, "product": product}
    return {
        "type": "price_details",
        "price_details": details,
        "unit_amount_decimal": plain(unit_amount),
    }


def rendered(invoice: Invoice, lines: list[Line]) -> Json:
    """Return an invoice with lines as the v1 API does."""
    subtotal, owed = sum(line.amount for line in lines), due(lines)
    paid = owed if invoice.status == "paid" else 0
    taken = [
        {
            "amount": amount,
            "credit_balance_transaction": entry,
            "type": CREDIT,
        }
        for line in lines
        for entry, amount in line.credits
    ]
    total = subtotal - sum(int(str(each["amount"])) for each in taken)
    parent = None
    if invoice.subscription is not None:
        details = {"subscription": invoice.subscription, "metadata": {}}
        parent = {"type": "subscription_details", "subscription_details": details}
    rows = [render_line(invoice, number, line) for number, line in enumerate(lines, 1)]
    url = f"/v1/invoices/{invoice.id}/lines"
    return {
        "id": invoice.id,
        "object": "invoice",
        "amount_due": owed,
        "amount_paid": paid,
        "amount_remaining": owed - paid,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": invoice.auto_advance and invoice.status == "draft",
        "automatically_finalizes_at": invoice.finalizes_at,
        "billing_reason": invoice.billing_reason,
        "collection_method": invoice.collection_method,
        "created": invoice.created,
        "currency": invoice.currency,
        "customer": invoice.customer,
        "description": invoice.description,
        "lines": {"object": "list", "data": rows, "has_more": False, "url": url},
        "livemode": invoice.livemode,
        "metadata": invoice.metadata,
        "number": invoice.number,
        "parent": parent,
        "period_end": invoice.end_s,
        "period_start": invoice.start_s,
        "status": invoice.status,
        "status_transitions": {
            "finalized_at": invoice.finalized_at,
            "marked_uncollectible_at": None,
            "paid_at": invoice.paid_at,
            "voided_at": invoice.voided_at,
        },
        "subtotal": subtotal,
        "total": total,
        "total_pretax_credit_amounts": taken,
    }


def render_line(invoice: Invoice, number: int, line: Line) -> Json:
    """Return a line as the v1 API does."""
    item = line.invoice_item
    if item is not None:
        kind, details = "invoice_item_details", {"invoice_item": item.id}
    else:
        kind, details = "subscription_item_details", {"subscription_item": str(line.item)}
    price = line.price.id if line.price is not None else item.price if item else None
    product = line.price.product if line.price is not None else item.product if item else None
    proration = item is not None and item.proration
    return {
        "id": f"il_{invoice.id.removeprefix('in_')}_{number}",
        "object": "line_item",
        "amount": line.amount,
        "currency": invoice.currency,
        "description": line.description,
        "discountable": True,
        "discounts": [],
        "invoice": invoice.id,
        "livemode": invoice.livemode,
        "metadata": {} if item is None else item.metadata,
        "parent": {
            "type": kind,
            kind: {**details, "proration": proration, "subscription": line.subscription},
        },
        "period": {"start": line.start_s, "end": line.end_s},
        "pretax_credit_amounts": [
            {"amount": amount, "credit_balance_transaction": entry, "type": CREDIT}
            for entry, amount in line.credits
        ],
        "pricing": priced(price, product, line.unit_amount),
        "quantity": int(line.quantity),
        "quantity_decimal": plain(line.quantity),
        "subscription": line.subscription,
        "subtotal": line.amount,
    }
