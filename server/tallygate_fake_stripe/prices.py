"""Prices: made, renamed, listed.

Guarantees: a metered price has a meter, and only it; the old recipes (`aggregate_usage`, metered
prices without a meter) are refused as they have been since 2025-03-31.basil; amounts never change.
Refuses to know: who is billed by them.
"""

from decimal import Decimal
from itertools import pairwise
from typing import Final

from .calls import Call, Route
from .customers import merged
from .errors import StripeFault, invalid, missing
from .fields import Fields
from .periods import INTERVALS
from .pricing import Price, Tier
from .products import make as make_product
from .tables import Json, listed
from .world import World

PATH: Final = "/v1/prices"
TIERS_MAX: Final = 100
LOOKUP_KEY_MAX: Final = 200


def create(call: Call) -> Json:
    """Make a price, and a product of its own where it comes with one."""
    fields, world = call.fields, call.world
    currency = fields.needed("currency", longest=3).lower()
    product, beside = fields.text("product"), fields.below("product_data")
    if (product is None) == (not fields.has("product_data")):
        raise invalid("Send one of product and product_data.", param="product")
    if product is not None:
        world.products.named(product, "product")
    price = Price("", "", currency, call.now_s, world.livemode)
    _read_amounts(fields, price)
    _read_recurring(fields.below("recurring"), price, world, sent=fields.has("recurring"))
    active = fields.flag("active")
    price.active = active is not False
    price.nickname = fields.text("nickname")
    price.metadata = fields.strings("metadata")
    fields.text("tax_behavior")
    lookup_key, owner = _lookup_key(call)
    fields.done()
    price.product = product or str(make_product(world, beside, call.now_s)["id"])
    if owner is not None:
        owner.lookup_key = None
    price.lookup_key = lookup_key
    price.id = world.mint("price")
    return _shown(world.prices.add(price.id, price), fields)


def retrieve(call: Call) -> Json:
    """Return a price."""
    price = call.world.prices.get(call.ids[0])
    call.fields.done()
    return _shown(price, call.fields)


def update(call: Call) -> Json:
    """Change what may be changed of a price."""
    price, fields = call.world.prices.get(call.ids[0]), call.fields
    active, nickname = fields.flag("active"), fields.text("nickname")
    renamed = fields.has("nickname")
    metadata = merged(price.metadata, fields)
    wanted = fields.has("lookup_key")
    lookup_key, owner = _lookup_key(call)
    fields.done()
    if owner is not None:
        owner.lookup_key = None
    price.active = price.active if active is None else active
    price.nickname = nickname if renamed else price.nickname
    price.lookup_key = lookup_key if wanted else price.lookup_key
    price.metadata = metadata
    return _shown(price, fields)


def list_all(call: Call) -> Json:
    """Return a page of prices, newest first."""
    fields = call.fields
    active, product = fields.flag("active"), fields.text("product")
    currency, kind = fields.text("currency"), fields.choice("type", ("one_time", "recurring"))
    keys, recurring = fields.texts("lookup_keys"), fields.below("recurring")
    meter, usage_type = recurring.text("meter"), recurring.text("usage_type")
    interval = recurring.text("interval")
    recurring.done()
    rows = [
        each
        for each in call.world.prices
        if active in (None, each.active)
        and product in (None, each.product)
        and currency in (None, each.currency)
        and kind in (None, "one_time" if each.interval is None else "recurring")
        and (not keys or each.lookup_key in keys)
        and meter in (None, each.meter)
        and usage_type in (None, "metered" if each.metered else "licensed")
        and interval in (None, each.interval)
    ]
    page = listed(PATH, rows, fields, lambda each: _shown(each, fields))
    fields.done()
    return page


def _read_amounts(fields: Fields, price: Price) -> None:
    """Read what it costs: one amount, or tiers. Raises `StripeFault`."""
    scheme = fields.choice("billing_scheme", ("per_unit", "tiered"))
    amount = either(fields, "unit_amount")
    price.tiers_mode = fields.choice("tiers_mode", ("graduated", "volume"))
    rows = fields.rows("tiers", most=TIERS_MAX)
    divided = fields.below("transform_quantity")
    if fields.has("transform_quantity"):
        price.divide_by = divided.needed_integer("divide_by")
        price.round = divided.choice("round", ("down", "up")) or "up"
        divided.done()
        if price.divide_by < 1:
            raise divided.fault("divide_by", "must be at least 1")
    if scheme != "tiered":
        if rows or price.tiers_mode:
            raise fields.fault("tiers", "are for the billing scheme tiered")
        if amount is None:
            raise missing("unit_amount")
        price.unit_amount = amount
        return
    if amount is not None or price.divide_by is not None:
        raise fields.fault("unit_amount", "is for the billing scheme per_unit")
    if price.tiers_mode is None:
        raise missing("tiers_mode")
    price.tiers = tuple(_tier(row) for row in rows)
    bounds = [tier.up_to for tier in price.tiers]
    ends = [bound for bound in bounds[:-1] if bound is not None]
    if not bounds or bounds[-1] is not None or len(ends) < len(bounds) - 1:
        raise fields.fault("tiers", "end with one, and only one, whose up_to is inf")
    if any(after <= before for before, after in pairwise([0, *ends])):
        raise fields.fault("tiers", "go up from one to the next")


def _tier(row: Fields) -> Tier:
    bound = row.raw("up_to")
    up_to = None if bound == "inf" else row.needed_integer("up_to")
    unit, flat = either(row, "unit_amount"), either(row, "flat_amount")
    row.done()
    if unit is None and flat is None:
        raise missing(row.name("unit_amount"))
    return Tier(up_to, unit or Decimal(0), flat or Decimal(0))


def either(fields: Fields, name: str) -> Decimal | None:
    """Return an amount that is sent whole or, as `…_decimal`, exactly. Raises `StripeFault`."""
    whole, exact = fields.integer(name), fields.decimal(f"{name}_decimal")
    if whole is not None and exact is not None:
        raise fields.fault(name, f"excludes {name}_decimal")
    amount = exact if whole is None else Decimal(whole)
    if amount is not None and amount < 0:
        raise fields.fault(name, "must be 0 or more")
    return amount


def _read_recurring(recurring: Fields, price: Price, world: World, *, sent: bool) -> None:
    """Read how often it is billed, and by what meter. Raises `StripeFault`."""
    if not sent:
        return
    interval = recurring.choice("interval", INTERVALS)
    price.interval = interval or recurring.needed("interval")
    price.interval_count = recurring.integer("interval_count") or 1
    price.metered = recurring.choice("usage_type", ("licensed", "metered")) == "metered"
    price.meter = recurring.text("meter")
    recurring.done()
    if not 1 <= price.interval_count <= 36:
        raise recurring.fault("interval_count", "must be from 1 to 36")
    if price.metered and price.meter is None:
        raise _without_meter(recurring)
    if price.meter is None:
        return
    if not price.metered:
        raise recurring.fault("meter", "is for the usage type metered")
    if not world.meters.named(price.meter, recurring.name("meter")).active:
        raise recurring.fault("meter", "is inactive")


def _without_meter(recurring: Fields) -> StripeFault:
    return invalid(
        "Since 2025-03-31.basil a metered price must be backed by a meter.",
        param=recurring.name("meter"),
        code="parameter_missing",
    )


def _lookup_key(call: Call) -> tuple[str | None, Price | None]:
    """Return a lookup key, and the price that gives it up for this one. Raises `StripeFault`."""
    key = call.fields.text("lookup_key", longest=LOOKUP_KEY_MAX)
    transfer = call.fields.flag("transfer_lookup_key")
    if key is None:
        return None, None
    owner = next((each for each in call.world.prices if each.lookup_key == key), None)
    if owner is None or call.ids == (owner.id,):
        return key, None
    if not transfer:
        raise call.fields.fault("lookup_key", f"belongs to the price {owner.id}")
    return key, owner


def _shown(price: Price, fields: Fields) -> Json:
    """Return a price; its tiers only where they are to be expanded, as Stripe does."""
    expanded = fields.raw("expand")
    if isinstance(expanded, list) and {"tiers", "data.tiers"} & set(map(str, expanded)):
        return price.render() | {"tiers": [tier.render() for tier in price.tiers] or None}
    return price.render()


_READ: Final = "plan_read"
_WRITE: Final = "plan_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
)
