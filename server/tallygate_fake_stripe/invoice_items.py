"""Invoice items over v1: amounts that were computed elsewhere.

Guarantees: an item is either an amount, or a quantity of an exact unit amount, rounded once; what
is on a finalized invoice is changed no more.
Refuses to know: what the amounts are for.
"""

from decimal import Decimal
from typing import Final

from .calls import Call, Route
from .customers import merged
from .errors import StripeFault, invalid, missing
from .fields import Fields
from .invoices import InvoiceItem
from .pricing import Price, rounded
from .tables import Json, listed
from .world import World

PATH: Final = "/v1/invoiceitems"


def create(call: Call) -> Json:
    """Make an invoice item: pending, or on a draft."""
    fields, world = call.fields, call.world
    customer = fields.needed("customer")
    world.customers.named(customer, "customer")
    draft, subscription = fields.text("invoice"), fields.text("subscription")
    if draft is not None and world.invoices.named(draft, "invoice").status != "draft":
        raise _not_editable()
    if subscription is not None:
        world.subscriptions.named(subscription, "subscription")
    item = InvoiceItem("", customer, "", 0, call.now_s, world.livemode, call.now_s, call.now_s)
    _read_amount(fields, item, world)
    period = fields.below("period")
    if fields.has("period"):
        item.start_s, item.end_s = period.needed_integer("start"), period.needed_integer("end")
        period.done()
    item.invoice, item.subscription = draft, subscription
    item.description = fields.text("description", longest=500)
    item.discountable = fields.flag("discountable") is not False
    item.metadata = fields.strings("metadata")
    fields.done()
    if draft is not None and world.invoices.get(draft).currency != item.currency:
        raise fields.fault("currency", "differs from that of the invoice")
    item.id = world.mint("ii")
    return world.invoice_items.add(item.id, item).render()


def retrieve(call: Call) -> Json:
    """Return an invoice item."""
    item = call.world.invoice_items.get(call.ids[0])
    call.fields.done()
    return item.render()


def update(call: Call) -> Json:
    """Change an invoice item that is on no finalized invoice."""
    item, fields = _editable(call), call.fields
    amount, description = fields.integer("amount"), fields.text("description", longest=500)
    metadata = merged(item.metadata, fields)
    fields.done()
    if amount is not None:
        item.amount, item.quantity, item.unit_amount = amount, Decimal(1), Decimal(amount)
    item.description = item.description if description is None else description
    item.metadata = metadata
    return item.render()


def delete(call: Call) -> Json:
    """Delete an invoice item that is on no finalized invoice."""
    item = _editable(call)
    call.fields.done()
    call.world.invoice_items.remove(item.id)
    return {"id": item.id, "object": "invoiceitem", "deleted": True}


def list_all(call: Call) -> Json:
    """Return a page of invoice items, newest first."""
    fields = call.fields
    customer, invoice = fields.text("customer"), fields.text("invoice")
    pending = fields.flag("pending")
    rows = [
        item
        for item in call.world.invoice_items
        if customer in (None, item.customer)
        and invoice in (None, item.invoice)
        and pending in (None, item.invoice is None)
    ]
    page = listed(PATH, rows, fields, InvoiceItem.render)
    fields.done()
    return page


def _read_amount(fields: Fields, item: InvoiceItem, world: World) -> None:
    """Read what an item costs. Raises `StripeFault`."""
    currency, amount = fields.text("currency", longest=3), fields.integer("amount")
    quantity, exact = fields.integer("quantity"), fields.decimal("quantity_decimal")
    unit, price = fields.decimal("unit_amount_decimal"), _price(fields, world)
    if quantity is not None and exact is not None:
        raise fields.fault("quantity", "excludes quantity_decimal")
    if price is not None:
        item.price, item.product = price.id, price.product
        currency, unit = price.currency, price.unit_amount
    beside = fields.below("price_data")
    if fields.has("price_data"):
        currency, item.product = beside.needed("currency"), beside.needed("product")
        world.products.named(item.product, "price_data[product]")
        whole, unit = beside.integer("unit_amount"), beside.decimal("unit_amount_decimal")
        unit = Decimal(whole) if whole is not None else unit
        beside.text("tax_behavior")
        beside.done()
    if currency is None:
        raise missing("currency")
    item.currency = currency.lower()
    if amount is not None:
        if unit is not None or quantity is not None or exact is not None:
            raise fields.fault("amount", "excludes a quantity and a unit amount")
        item.amount, item.unit_amount = amount, Decimal(amount)
        return
    if unit is None:
        raise missing("amount")
    item.quantity = exact if exact is not None else Decimal(1 if quantity is None else quantity)
    item.unit_amount, item.amount = unit, rounded(unit * item.quantity)


def _price(fields: Fields, world: World) -> Price | None:
    pricing = fields.below("pricing")
    name = pricing.text("price")
    pricing.done()
    if name is None:
        return None
    price = world.prices.named(name, "pricing[price]")
    if price.interval is not None or price.unit_amount is None:
        raise invalid("Only one-time prices per unit can be invoiced.", param="pricing[price]")
    return price


def _editable(call: Call) -> InvoiceItem:
    item = call.world.invoice_items.get(call.ids[0])
    if item.invoice is not None and call.world.invoices.get(item.invoice).status != "draft":
        raise _not_editable()
    return item


def _not_editable() -> StripeFault:
    return invalid("The invoice is finalized: its items are fixed.", code="invoice_not_editable")


_READ: Final = "invoice_read"
_WRITE: Final = "invoice_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("DELETE", f"{PATH}/{{}}", delete, _WRITE),
)
