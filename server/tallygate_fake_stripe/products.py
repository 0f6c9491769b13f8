"""Products: made, changed, listed, deleted.

Guarantees: an id may be chosen; a product with prices is not deleted.
Refuses to know: what they cost.
"""

from typing import Final

from .calls import Call, Route
from .customers import change
from .errors import invalid
from .fields import Fields
from .tables import Json, listed
from .world import World

PATH: Final = "/v1/products"
TEXTS: Final = ("name", "description", "unit_label", "statement_descriptor")


def create(call: Call) -> Json:
    """Make a product."""
    return make(call.world, call.fields, call.now_s)


def make(world: World, fields: Fields, now_s: int) -> Json:
    """Make a product of what was sent, also beside a price. Raises `StripeFault`."""
    id_ = fields.text("id") or world.mint("prod")
    fields.needed("name")
    said: Json = {name: fields.text(name) for name in TEXTS}
    active = fields.flag("active")
    metadata = fields.strings("metadata")
    fields.done()
    if id_ in world.products:
        raise invalid(f"Product already exists: {id_}", param="id", code="resource_already_exists")
    product: Json = {
        "id": id_,
        "object": "product",
        "active": active is not False,
        "created": now_s,
        "default_price": None,
        "images": [],
        "livemode": world.livemode,
        "marketing_features": [],
        "metadata": metadata,
        "type": "service",
        "updated": now_s,
        **said,
    }
    return world.products.add(id_, product)


def retrieve(call: Call) -> Json:
    """Return a product."""
    product = call.world.products.get(call.ids[0])
    call.fields.done()
    return product


def update(call: Call) -> Json:
    """Change a product."""
    product = call.world.products.get(call.ids[0])
    active, price = call.fields.flag("active"), call.fields.text("default_price")
    if price is not None:
        call.world.prices.named(price, "default_price")
    change(product, call.fields, TEXTS)
    product["active"] = product["active"] if active is None else active
    product["default_price"] = price or product["default_price"]
    product["updated"] = call.now_s
    return product


def delete(call: Call) -> Json:
    """Delete a product that has no price."""
    product = call.world.products.get(call.ids[0])
    call.fields.done()
    if any(price.product == product["id"] for price in call.world.prices):
        raise invalid("This product cannot be deleted because it has one or more prices.")
    call.world.products.remove(product["id"])
    return {"id": product["id"], "object": "product", "deleted": True}


def list_all(call: Call) -> Json:
    """Return a page of products, newest first."""
    active, ids = call.fields.flag("active"), call.fields.texts("ids")
    rows = [
        each
        for each in call.world.products
        if active in (None, each["active"]) and (not ids or each["id"] in ids)
    ]
    page = listed(PATH, rows, call.fields, dict)
    call.fields.done()
    return page


_READ: Final = "product_read"
_WRITE: Final = "product_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("DELETE", f"{PATH}/{{}}", delete, _WRITE),
)
