"""Alerts: told of once, when a customer's usage on a meter reaches a threshold.

Guarantees: an alert tells of each customer once; one that is not active tells of nothing.
Refuses to know: how usage is kept.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from .calls import Call, Route
from .errors import invalid
from .objects import Meter
from .tables import Json, listed

if TYPE_CHECKING:
    from .world import World

PATH: Final = "/v1/billing/alerts"
TRIGGERED: Final = "billing.alert.triggered"
ALWAYS: Final = (-(2**62), 2**62)


@dataclass(slots=True)
class Alert:
    """A threshold of usage."""

    id: str
    title: str
    meter: str
    gte: int
    livemode: bool
    # None where it is for every customer.
    customer: str | None = None
    status: str = "active"
    told: set[str] = field(default_factory=set)

    def render(self) -> Json:
        """Return it as the v1 API does."""
        filters = None
        if self.customer is not None:
            filters = [{"customer": self.customer, "type": "customer"}]
        return {
            "id": self.id,
            "object": "billing.alert",
            "alert_type": "usage_threshold",
            "livemode": self.livemode,
            "status": self.status,
            "title": self.title,
            "usage_threshold": {
                "filters": filters,
                "gte": self.gte,
                "meter": self.meter,
                "recurrence": "one_time",
            },
        }


class Alerts:
    """The alerts of one account."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def look(self, meter: Meter, customer: str, now_us: int) -> None:
        """Tell of what a customer's usage has reached."""
        world = self._world
        for alert in world.alerts:
            ours = alert.meter == meter.id and alert.customer in (None, customer)
            if not ours or alert.status != "active" or customer in alert.told:
                continue
            total = world.usage.total(meter, customer, *ALWAYS)
            if total >= Decimal(alert.gte):
                alert.told.add(customer)
                told = {
                    "object": TRIGGERED,
                    "alert": alert.render(),
                    "created": now_us // 1_000_000,
                    "customer": customer,
                    "livemode": alert.livemode,
                    "value": float(total),
                }
                world.notices.snapshot(TRIGGERED, now_us, told)


def create(call: Call) -> Json:
    """Make an alert."""
    fields, world = call.fields, call.world
    fields.needed("alert_type")
    fields.choice("alert_type", ("usage_threshold",))
    title, threshold = fields.needed("title", longest=256), fields.below("usage_threshold")
    meter, gte = threshold.needed("meter"), threshold.needed_integer("gte")
    threshold.needed("recurrence")
    threshold.choice("recurrence", ("one_time",))
    world.meters.named(meter, threshold.name("meter"))
    customer = None
    for row in threshold.rows("filters", most=1):
        row.choice("type", ("customer",))
        customer = row.needed("customer")
        row.done()
    for each in (fields, threshold):
        each.done()
    alert = Alert(world.mint("alrt"), title, meter, gte, world.livemode, customer)
    return world.alerts.add(alert.id, alert).render()


def retrieve(call: Call) -> Json:
    """Return an alert."""
    alert = call.world.alerts.get(call.ids[0])
    call.fields.done()
    return alert.render()


def activate(call: Call) -> Json:
    """Have an alert tell again."""
    return _become(call, "active")


def deactivate(call: Call) -> Json:
    """Have an alert tell nothing for now."""
    return _become(call, "inactive")


def archive(call: Call) -> Json:
    """Have an alert tell nothing for ever."""
    return _become(call, "archived")


def list_all(call: Call) -> Json:
    """Return a page of alerts, newest first."""
    meter = call.fields.text("meter")
    rows = [each for each in call.world.alerts if meter in (None, each.meter)]
    page = listed(PATH, rows, call.fields, Alert.render)
    call.fields.done()
    return page


def _become(call: Call, status: str) -> Json:
    alert = call.world.alerts.get(call.ids[0])
    call.fields.done()
    if alert.status == "archived":
        raise invalid("The alert is archived.")
    alert.status = status
    return alert.render()


_READ: Final = "billing_alert_read"
_WRITE: Final = "billing_alert_write"

ROUTES: Final = (
    Route("POST", PATH, create, _WRITE),
    Route("GET", PATH, list_all, _READ),
    Route("GET", f"{PATH}/{{}}", retrieve, _READ),
    Route("POST", f"{PATH}/{{}}/activate", activate, _WRITE),
    Route("POST", f"{PATH}/{{}}/deactivate", deactivate, _WRITE),
    Route("POST", f"{PATH}/{{}}/archive", archive, _WRITE),
)
