"""Invoices over v1.

Guarantees: a draft can be changed and deleted, what is finalized can be paid or voided.
Refuses to know: how lines come about.
"""

from typing import Final

from .calls import Call, Route
from .customers import merged
from .errors import invalid, missing
from .invoices import Invoice, render_line
from .tables import Json, listed

PATH: Final = "/v1/invoices"
STATUSES: Final = ("draft", "open", "paid", "uncollectible", "void")


def create(call: Call) -> Json:
    """Draft an invoice of what is pending, or an empty one."""
    fields, world = call.fields, call.world
    customer = fields.needed("customer")
    world.customers.named(customer, "customer")
    behaviour = fields.choice("pending_invoice_items_behavior", ("exclude", "include"))
    currency, subscription = fields.text("currency", longest=3), fields.text("subscription")
    if subscription is not None:
        world.subscriptions.named(subscription, "subscription")
    invoice = Invoice(
        id="",
        customer=customer,
        currency=(currency or _currency(call, customer)).lower(),
        created=call.now_s,
        start_s=call.now_s,
        end_s=call.now_s,
        livemode=world.livemode,
        billing_reason="manual",
        subscription=subscription,
        auto_advance=fields.flag("auto_advance") is True,
        description=fields.text("description"),
        metadata=fields.strings("metadata"),
    )
    method = fields.choice("collection_method", ("charge_automatically", "send_invoice"))
    invoice.collection_method = method or invoice.collection_method
    fields.integer("days_until_due")
    fields.done()
    invoice.id = world.mint("in")
    take = behaviour == "include"
    return world.billing.render(world.billing.draft(invoice, take_pending=take, now_us=call.now_us))


def retrieve(call: Call) -> Json:
    """Return an invoice."""
    invoice = call.world.invoices.get(call.ids[0])
    call.fields.done()
    return call.world.billing.render(invoice)


def update(call: Call) -> Json:
    """Change what is said of an invoice."""
    invoice, fields = call.world.invoices.get(call.ids[0]), call.fields
    advance, description = fields.flag("auto_advance"), fields.text("description")
    metadata = merged(invoice.metadata, fields)
    fields.done()
    if invoice.status == "draft" and advance is not None and advance != invoice.auto_advance:
        invoice.auto_advance, invoice.finalizes_at = advance, None
        if advance:
            call.world.billing.advance(invoice, call.now_us)
    invoice.description = invoice.description if description is None else description
    invoice.metadata = metadata
    return call.world.billing.render(invoice)


def finalize(call: Call) -> Json:
    """Finalize a draft now."""
    invoice = call.world.invoices.get(call.ids[0])
    call.fields.flag("auto_advance")
    call.fields.done()
    call.world.billing.finalize(invoice, call.now_us)
    return call.world.billing.render(invoice)


def pay(call: Call) -> Json:
    """Have an invoice be paid; a draft is finalized first."""
    invoice = call.world.invoices.get(call.ids[0])
    call.fields.flag("paid_out_of_band")
    call.fields.done()
    if invoice.status == "draft":
        call.world.billing.finalize(invoice, call.now_us)
    elif invoice.status != "open":
        raise invalid(f"The invoice is {invoice.status}.")
    if invoice.status == "open":
        invoice.status, invoice.paid_at = "paid", call.now_s
        shown = call.world.billing.render(invoice)
        call.world.notices.snapshot("invoice.paid", call.now_us, shown)
    return call.world.billing.render(invoice)


def void(call: Call) -> Json:
    """Have an invoice that is open be none."""
    invoice = call.world.invoices.get(call.ids[0])
    call.fields.done()
    if invoice.status != "open":
        raise invalid(f"Only open invoices can be voided; this one is {invoice.status}.")
    invoice.status, invoice.voided_at = "void", call.now_s
    shown = call.world.billing.render(invoice)
    call.world.notices.snapshot("invoice.voided", call.now_us, shown)
    return shown


def delete(call: Call) -> Json:
    """Delete a draft; its items are pending again."""
    invoice = call.world.invoices.get(call.ids[0])
    call.fields.done()
    if invoice.status != "draft":
        raise invalid("You can only delete draft invoices.", code="invoice_not_editable")
    for item in call.world.invoice_items:
        if item.invoice == invoice.id:
            item.invoice = None
    invoice.status = "deleted"
    call.world.invoices.remove(invoice.id)
    return {"id": invoice.id, "object": "invoice", "deleted": True}


def list_all(call: Call) -> Json:
    """Return a page of invoices, newest first."""
    fields = call.fields
    customer, subscription = fields.text("customer"), fields.text("subscription")
    status = fields.choice("status", STATUSES)
    rows = [
        each
        for each in call.world.invoices
        if customer in (None, each.customer)
        and subscription in (None, each.subscription)
        and status in (None, each.status)
    ]
    page = listed(PATH, rows, fields, call.world.billing.render)
    fields.done()
    return page


def list_lines(call: Call) -> Json:
    """Return a page of an invoice's lines."""
    invoice = call.world.invoices.get(call.ids[0])
    lines = call.world.billing.lines(invoice)
    # Lines are listed in the invoice's own order, so that the first has to be the newest here.
    rows = [render_line(invoice, number, line) for number, line in enumerate(lines, 1)]
    page = listed(f"{PATH}/{invoice.id}/lines", rows[::-1], call.fields, dict)
    call.fields.done()
    return page


def preview(call: Call) -> Json:
    """Return what a subscription's next invoice would say by now."""
    fields, world = call.fields, call.world
    customer, name = fields.text("customer"), fields.text("subscription")
    fields.done()
    if name is None:
        rows = [each for each in world.subscriptions if each.customer == customer]
        name = next((each.id for each in rows if each.status == "active"), None)
    if name is None:
        raise invalid(
            "No upcoming invoices for this customer.",
            code="invoice_upcoming_none",
            param="customer",
        )
    subscription = world.subscriptions.named(name, "subscription")
    return world.subscribing.upcoming(subscription, call.now_us)


def _currency(call: Call, customer: str) -> str:
    """Return the currency of what is pending, as none was sent. Raises `StripeFault`."""
    items = (item for item in call.world.invoice_items if item.invoice is None)
    found = next((item.currency for item in items if item.customer == customer), None)
    if found is None:
        raise missing("currency")
    return found


_READ: Final = "invoice_read"
_WRITE: Final = "invoice_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("POST", f"{PATH}/create_preview", preview, _READ),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("GET", f"{PATH}/{{}}/lines", list_lines, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("POST", f"{PATH}/{{}}/finalize", finalize, _WRITE),
    Route("POST", f"{PATH}/{{}}/pay", pay, _WRITE),
    Route("POST", f"{PATH}/{{}}/void", void, _WRITE),
    Route("DELETE", f"{PATH}/{{}}", delete, _WRITE),
)
