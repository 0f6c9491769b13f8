"""Customers: made, changed, listed, deleted.

Guarantees: usage for a customer that was deleted is usage for one that is not there.
Refuses to know: what they owe.
"""

from typing import Final

from .calls import Call, Route
from .fields import Fields
from .tables import Json, listed

PATH: Final = "/v1/customers"
TEXTS: Final = ("name", "email", "description", "phone")


def create(call: Call) -> Json:
    """Make a customer."""
    said: Json = {name: call.fields.text(name) for name in TEXTS}
    said["metadata"] = call.fields.strings("metadata")
    call.fields.done()
    return call.world.add_customer(call.world.mint("cus"), call.now_s, **said)


def retrieve(call: Call) -> Json:
    """Return a customer."""
    customer = call.world.customers.get(call.ids[0])
    call.fields.done()
    return customer


def update(call: Call) -> Json:
    """Change what is said of a customer."""
    customer = call.world.customers.get(call.ids[0])
    change(customer, call.fields, TEXTS)
    return customer


def delete(call: Call) -> Json:
    """Delete a customer."""
    customer = call.world.customers.get(call.ids[0])
    call.fields.done()
    call.world.customers.remove(customer["id"])
    return {"id": customer["id"], "object": "customer", "deleted": True}


def list_all(call: Call) -> Json:
    """Return a page of customers, newest first."""
    email = call.fields.text("email")
    rows = [each for each in call.world.customers if email in (None, each["email"])]
    page = listed(PATH, rows, call.fields, dict)
    call.fields.done()
    return page


def change(thing: Json, fields: Fields, texts: tuple[str, ...]) -> None:
    """Set some texts of an object, and its metadata, from what was sent. Raises `StripeFault`."""
    wanted = {name: fields.text(name) for name in texts if fields.has(name)}
    metadata = merged(thing["metadata"], fields)
    fields.done()
    thing |= wanted
    thing["metadata"] = metadata


def merged(metadata: dict[str, str], fields: Fields) -> dict[str, str]:
    """Return metadata with what was sent; what is sent empty is deleted. Raises `StripeFault`."""
    if fields.raw("metadata") == "":
        return {}
    both = metadata | fields.strings("metadata")
    return {name: text for name, text in both.items() if text}


_READ: Final = "customer_read"
_WRITE: Final = "customer_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("DELETE", f"{PATH}/{{}}", delete, _WRITE),
)
