"""Subscriptions and their items over v1.

Guarantees: a metered price takes no quantity, a licensed one has 1 where none is sent; all prices
of a subscription share currency and interval; a wrong request changes nothing.
Refuses to know: what periods bill.
"""

from dataclasses import dataclass
from typing import Final

from .calls import Call, Route
from .customers import merged
from .errors import invalid, missing
from .fields import Fields
from .periods import period_of
from .pricing import Price
from .subscriptions import ITEMS_MAX, PRORATIONS, Change, Item, Subscription, render_item
from .tables import Json, listed
from .world import World

PATH: Final = "/v1/subscriptions"
ITEMS: Final = "/v1/subscription_items"
METHODS: Final = ("charge_automatically", "send_invoice")
# What says how a payment goes, which the fake takes none of.
PAYING: Final = ("default_payment_method", "off_session", "payment_behavior")


@dataclass(slots=True)
class _Wanted:
    """What was sent of one item."""

    price: Price | None
    quantity: int | None
    metadata: dict[str, str]
    id: str | None = None
    deleted: bool = False


def create(call: Call) -> Json:
    """Start a subscription."""
    fields, world = call.fields, call.world
    customer = fields.needed("customer")
    world.customers.named(customer, "customer")
    wanted = [_wanted(row, world) for row in fields.rows("items", most=ITEMS_MAX)]
    prices = [each.price for each in wanted if each.price is not None]
    if not wanted or len(prices) < len(wanted):
        raise missing("items[0][price]" if wanted else "items")
    first = prices[0]
    anchor = fields.integer("billing_cycle_anchor") or call.now_s
    if anchor < call.now_s:
        raise fields.fault("billing_cycle_anchor", "cannot be in the past")
    prorated = fields.choice("proration_behavior", PRORATIONS) != "none"
    currency = fields.text("currency", longest=3) or first.currency
    interval, count = str(first.interval), first.interval_count
    start_s, end_s = period_of(anchor, interval, count, call.now_s) if first.interval else (0, 0)
    subscription = Subscription(
        id="",
        customer=customer,
        currency=currency,
        created=call.now_s,
        anchor=anchor,
        livemode=world.livemode,
        start_s=max(start_s, call.now_s),
        end_s=end_s,
        interval=interval,
        interval_count=count,
        description=fields.text("description"),
        days_until_due=fields.integer("days_until_due"),
        cancel_at_period_end=fields.flag("cancel_at_period_end") is True,
        metadata=fields.strings("metadata"),
    )
    method = fields.choice("collection_method", METHODS)
    subscription.collection_method = method or subscription.collection_method
    for name in PAYING:
        fields.raw(name)
    fields.done()
    for each in wanted:
        _check_price(subscription, each)
    subscription.id = world.mint("sub")
    for each in wanted:
        item = _item(call, subscription, each)
        subscription.items[item.id] = item
    world.subscribing.begin(subscription, prorated=prorated, now_us=call.now_us)
    return subscription.render()


def retrieve(call: Call) -> Json:
    """Return a subscription."""
    subscription = call.world.subscriptions.get(call.ids[0])
    call.fields.done()
    return subscription.render()


def update(call: Call) -> Json:
    """Change a subscription and its items."""
    subscription, fields = _active(call, call.ids[0]), call.fields
    wanted = [_wanted(row, call.world) for row in fields.rows("items", most=ITEMS_MAX)]
    change = _change(call, subscription)
    ending, description = fields.flag("cancel_at_period_end"), fields.text("description")
    metadata = merged(subscription.metadata, fields)
    for name in PAYING:
        fields.raw(name)
    fields.done()
    for each in wanted:
        if each.id is not None and each.id not in subscription.items:
            raise invalid(f"No such subscription item: '{each.id}'", code="resource_missing")
        if each.id is None and each.price is None:
            raise missing("items[price]")
        _check_price(subscription, each)
    for each in wanted:
        _apply(call, subscription, each, change)
    subscription.metadata = metadata
    subscription.description = subscription.description if description is None else description
    if ending is not None:
        subscription.cancel_at_period_end = ending
        subscription.canceled_at = call.now_s if ending else None
    _changed(call, subscription, change)
    return subscription.render()


def cancel(call: Call) -> Json:
    """End a subscription now."""
    subscription, fields = _active(call, call.ids[0]), call.fields
    invoice_now, prorate = fields.flag("invoice_now") is True, fields.flag("prorate") is True
    fields.done()
    call.world.subscribing.cancel(
        subscription, invoice_now=invoice_now, prorate=prorate, now_us=call.now_us
    )
    return subscription.render()


def list_all(call: Call) -> Json:
    """Return a page of subscriptions, newest first; those that ended only where asked for."""
    fields = call.fields
    customer, price = fields.text("customer"), fields.text("price")
    status = fields.choice("status", ("active", "all", "canceled", "ended"))
    shown = {None: ("active",), "all": ("active", "canceled"), "ended": ("canceled",)}
    statuses = shown.get(status, (str(status),))
    rows = [
        each
        for each in call.world.subscriptions
        if customer in (None, each.customer)
        and each.status in statuses
        and (price is None or any(item.price.id == price for item in each.items.values()))
    ]
    page = listed(PATH, rows, fields, Subscription.render)
    fields.done()
    return page


def create_item(call: Call) -> Json:
    """Put another price on a subscription."""
    subscription = _active(call, call.fields.needed("subscription"), "subscription")
    each, change = _wanted(call.fields, call.world), _change(call, subscription)
    call.fields.raw("payment_behavior")
    call.fields.done()
    if each.price is None:
        raise missing("price")
    _check_price(subscription, each)
    item = _item(call, subscription, each)
    call.world.subscribing.add_item(subscription, item, change)
    _changed(call, subscription, change)
    return render_item(subscription, item)


def retrieve_item(call: Call) -> Json:
    """Return an item."""
    subscription = call.world.subscription_items.get(call.ids[0])
    call.fields.done()
    return render_item(subscription, subscription.items[call.ids[0]])


def update_item(call: Call) -> Json:
    """Change an item's quantity or price."""
    subscription = _active(call, call.world.subscription_items.get(call.ids[0]).id)
    each, change = _wanted(call.fields, call.world), _change(call, subscription)
    for name in PAYING:
        call.fields.raw(name)
    call.fields.done()
    each.id = call.ids[0]
    _check_price(subscription, each)
    _apply(call, subscription, each, change)
    _changed(call, subscription, change)
    return render_item(subscription, subscription.items[each.id])


def delete_item(call: Call) -> Json:
    """Take an item off its subscription."""
    subscription = _active(call, call.world.subscription_items.get(call.ids[0]).id)
    change = _change(call, subscription)
    call.fields.done()
    item = subscription.items[call.ids[0]]
    call.world.subscribing.remove_item(subscription, item, change)
    _changed(call, subscription, change)
    return {"id": item.id, "object": "subscription_item", "deleted": True}


def list_items(call: Call) -> Json:
    """Return a page of a subscription's items."""
    name = call.fields.needed("subscription")
    subscription = call.world.subscriptions.named(name, "subscription")
    rows = list(subscription.items.values())
    page = listed(ITEMS, rows, call.fields, lambda item: render_item(subscription, item))
    call.fields.done()
    return page


def _wanted(fields: Fields, world: World) -> _Wanted:
    name = fields.text("price")
    price = None if name is None else world.prices.named(name, fields.name("price"))
    quantity, id_ = fields.integer("quantity"), fields.text("id")
    deleted = fields.flag("deleted") is True
    if quantity is not None and quantity < 0:
        raise fields.fault("quantity", "must be 0 or more")
    wanted = _Wanted(price, quantity, fields.strings("metadata"), id_, deleted)
    if fields.name("price") != "price":
        fields.done()
    return wanted


def _change(call: Call, subscription: Subscription) -> Change:
    """Read how a change is prorated. Raises `StripeFault`."""
    proration = call.fields.choice("proration_behavior", PRORATIONS) or "create_prorations"
    at_s = call.fields.integer("proration_date")
    at_s = call.now_s if at_s is None else at_s
    if not subscription.start_s <= at_s <= subscription.end_s:
        raise call.fields.fault("proration_date", "must lie within the current period")
    return Change(at_s, proration)


def _check_price(subscription: Subscription, wanted: _Wanted) -> None:
    """Refuse a price that does not fit, and a quantity of usage. Raises `StripeFault`."""
    price = wanted.price
    if price is None and wanted.id is not None and wanted.id in subscription.items:
        price = subscription.items[wanted.id].price
    if price is None:
        return
    if price.interval is None:
        raise invalid(f"The price {price.id} is one-time, not recurring.", param="items")
    each = subscription
    if (price.interval, price.interval_count) != (each.interval, each.interval_count):
        raise invalid("All prices of a subscription have the same interval.", param="items")
    if price.currency != each.currency:
        raise invalid("All prices of a subscription have the same currency.", param="items")
    if not price.active and wanted.id is None:
        raise invalid(f"The price {price.id} is inactive.", param="items")
    if price.metered and wanted.quantity is not None:
        raise invalid("A quantity is not allowed for a metered price.", param="quantity")


def _item(call: Call, subscription: Subscription, wanted: _Wanted) -> Item:
    assert wanted.price is not None
    quantity = 1 if wanted.quantity is None else wanted.quantity
    return Item(
        id=call.world.mint("si"),
        subscription=subscription.id,
        price=wanted.price,
        quantity=None if wanted.price.metered else quantity,
        created=call.now_s,
        since=call.now_s,
        metadata=wanted.metadata,
    )


def _apply(call: Call, subscription: Subscription, wanted: _Wanted, change: Change) -> None:
    subscribing = call.world.subscribing
    if wanted.id is None:
        item = _item(call, subscription, wanted)
        subscribing.add_item(subscription, item, change)
        return
    item = subscription.items[wanted.id]
    if wanted.deleted:
        subscribing.remove_item(subscription, item, change)
        return
    item.metadata = item.metadata | wanted.metadata
    quantity = item.quantity if wanted.quantity is None else wanted.quantity
    quantity = 1 if quantity is None else quantity
    changed = Change(change.at_s, change.proration, wanted.price or item.price, quantity)
    subscribing.change_item(subscription, item, changed)


def _changed(call: Call, subscription: Subscription, change: Change) -> None:
    if change.proration == "always_invoice":
        call.world.subscribing.invoice_changes(subscription, call.now_us)
    call.world.subscribing.tell("updated", subscription, call.now_us)


def _active(call: Call, id_: str, param: str | None = None) -> Subscription:
    rows = call.world.subscriptions
    subscription = rows.get(id_) if param is None else rows.named(id_, param)
    if subscription.status != "active":
        raise invalid(f"The subscription {id_} is {subscription.status}.", code="resource_missing")
    return subscription


_READ: Final = "subscription_read"
_WRITE: Final = "subscription_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("DELETE", f"{PATH}/{{}}", cancel, _WRITE),
    Route("POST", ITEMS, create_item, _WRITE),
    Route("GET", ITEMS, list_items, _READ),
    Route("GET", f"{ITEMS}/{{}}", retrieve_item, _READ),
    Route("POST", f"{ITEMS}/{{}}", update_item, _WRITE),
    Route("DELETE", f"{ITEMS}/{{}}", delete_item, _WRITE),
)
