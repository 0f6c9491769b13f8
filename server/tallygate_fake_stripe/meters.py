"""Meters: made, listed, renamed, deactivated and reactivated.

Guarantees: an event name belongs to one meter of an account for ever; only the display name can be
changed; an inactive meter takes no usage.
Refuses to know: usage.
"""

from typing import Final

from .calls import Call, Route
from .errors import invalid
from .objects import Meter
from .tables import Json, listed

EVENT_NAME_MAX: Final = 100
DISPLAY_NAME_MAX: Final = 250
KEY_MAX: Final = 100
FORMULAS: Final = ("count", "last", "sum")
PATH: Final = "/v1/billing/meters"


def create(call: Call) -> Json:
    """Make a meter."""
    fields, world = call.fields, call.world
    display_name = fields.needed("display_name", longest=DISPLAY_NAME_MAX)
    event_name = fields.needed("event_name", longest=EVENT_NAME_MAX)
    aggregation = fields.below("default_aggregation")
    aggregation.needed("formula")
    formula = aggregation.choice("formula", FORMULAS)
    window = fields.choice("event_time_window", ("hour", "day"))
    mapping, settings = fields.below("customer_mapping"), fields.below("value_settings")
    mapping.choice("type", ("by_id",))
    customer_key = mapping.text("event_payload_key", longest=KEY_MAX) or "stripe_customer_id"
    value_key = settings.text("event_payload_key", longest=KEY_MAX) or "value"
    for each in (fields, aggregation, mapping, settings):
        each.done()
    if event_name in world.meters_by_event:
        raise invalid(f"There is a meter with the event name {event_name}.", param="event_name")
    meter = Meter(
        id=world.mint("mtr"),
        display_name=display_name,
        event_name=event_name,
        formula=str(formula),
        window=window,
        customer_key=customer_key,
        value_key=value_key,
        created=call.now_s,
        updated=call.now_s,
        livemode=world.livemode,
    )
    world.meters.add(meter.id, meter)
    world.meters_by_event[event_name] = meter
    return _told(call, meter, "created")


def retrieve(call: Call) -> Json:
    """Return a meter."""
    meter = call.world.meters.get(call.ids[0])
    call.fields.done()
    return meter.render()


def update(call: Call) -> Json:
    """Rename a meter."""
    meter = call.world.meters.get(call.ids[0])
    display_name = call.fields.text("display_name", longest=DISPLAY_NAME_MAX)
    call.fields.done()
    if display_name is None:
        return meter.render()
    meter.display_name = display_name
    return _told(call, meter, "updated")


def deactivate(call: Call) -> Json:
    """Have a meter take no more usage."""
    meter = call.world.meters.get(call.ids[0])
    call.fields.done()
    if not meter.active:
        raise invalid(f"The meter {meter.id} is inactive already.")
    meter.deactivated_at = call.now_s
    return _told(call, meter, "deactivated")


def reactivate(call: Call) -> Json:
    """Have a meter take usage again."""
    meter = call.world.meters.get(call.ids[0])
    call.fields.done()
    if meter.active:
        raise invalid(f"The meter {meter.id} is active already.")
    meter.deactivated_at = None
    return _told(call, meter, "reactivated")


def list_all(call: Call) -> Json:
    """Return a page of meters, newest first."""
    status = call.fields.choice("status", ("active", "inactive"))
    wanted = {None: (True, False), "active": (True,), "inactive": (False,)}[status]
    rows = [meter for meter in call.world.meters if meter.active in wanted]
    page = listed(PATH, rows, call.fields, Meter.render)
    call.fields.done()
    return page


def _told(call: Call, meter: Meter, what: str) -> Json:
    meter.updated = call.now_s
    call.world.notices.tell(f"v1.billing.meter.{what}", call.now_us, meter=meter.id)
    return meter.render()


_READ: Final = "billing_meter_read"
_WRITE: Final = "billing_meter_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}", update, _WRITE),
    Route("POST", f"{PATH}/{{}}/deactivate", deactivate, _WRITE),
    Route("POST", f"{PATH}/{{}}/reactivate", reactivate, _WRITE),
)
