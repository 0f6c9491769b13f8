"""Usage over v1: meter events, adjustments, summaries.

Guarantees: shapes and refusals are those of the v1 API; a summary adds up exactly what was applied,
and is rounded to a JSON number at the end alone.
Refuses to know: how usage is kept.
"""

from decimal import Decimal
from typing import Final

from .calls import Call, Route
from .clock import US_PER_S
from .errors import invalid, missing
from .fields import Fields
from .limits import METER_EVENTS
from .objects import Meter
from .series import WINDOW_S
from .tables import Json, listed
from .usage import Draft

IDENTIFIER_MAX: Final = 100
CANCEL_S: Final = 86_400
MINUTE_S: Final = 60
# More windows than this are no page that anybody reads.
WINDOWS_MAX: Final = 10_000

EVENTS: Final = "/v1/billing/meter_events"
ADJUSTMENTS: Final = "/v1/billing/meter_event_adjustments"
SUMMARIES: Final = "/v1/billing/meters/{}/event_summaries"


def create_event(call: Call) -> Json:
    """Take a meter event."""
    fields = call.fields
    name = fields.needed("event_name", longest=IDENTIFIER_MAX)
    payload = fields.strings("payload")
    if not payload:
        raise missing("payload")
    identifier = fields.text("identifier", longest=IDENTIFIER_MAX)
    timestamp = fields.integer("timestamp")
    fields.done()
    draft = Draft(name, payload, identifier, timestamp, "v1")
    event = call.world.usage.take(draft, call.now_us, key=call.idempotency_key, fault=call.fault)
    return event.render()


def create_adjustment(call: Call) -> Json:
    """Cancel a meter event that was received within 24 hours."""
    name, identifier = cancelled(call.fields)
    adjustment: Json = {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": name,
        "livemode": call.world.livemode,
        "status": "pending",
        "type": "cancel",
    }
    return adjust(call, name, identifier, adjustment)


def cancelled(fields: Fields) -> tuple[str, str]:
    """Read an adjustment: the event's name and its identifier. Raises `StripeFault`."""
    name = fields.needed("event_name", longest=IDENTIFIER_MAX)
    fields.needed("type")
    fields.choice("type", ("cancel",))
    cancel = fields.below("cancel")
    identifier = cancel.needed("identifier", longest=IDENTIFIER_MAX)
    for each in (fields, cancel):
        each.done()
    return name, identifier


def adjust(call: Call, name: str, identifier: str, adjustment: Json) -> Json:
    """Have an event count no more, once the lag is over; the adjustment is pending until then.

    Raises `StripeFault`.
    """
    world = call.world
    event = world.usage.find(identifier, call.now_us)
    if event is None or event.event_name != name or event.error is not None:
        raise invalid(
            f"No meter event with identifier {identifier} was found for {name}.",
            param="cancel[identifier]",
            code="resource_missing",
        )
    if call.now_us - event.received_us > CANCEL_S * US_PER_S:
        raise invalid(
            "Only meter events that were received within the last 24 hours can be cancelled.",
            param="cancel[identifier]",
        )
    if event.cancelling:
        raise invalid(
            f"The meter event {identifier} was cancelled already.", param="cancel[identifier]"
        )
    event.cancelling = True
    world.adjustments.add(world.mint("adj"), adjustment)

    def complete(_: int) -> None:
        event.cancelled = True
        adjustment["status"] = "complete"

    world.schedule.at(call.now_us + round(world.behaviour.lag_s * US_PER_S), complete)
    return dict(adjustment)


def list_summaries(call: Call) -> Json:
    """Add up a customer's usage: in one sum, or by hour or day, newest first."""
    meter = call.world.meters.get(call.ids[0])
    fields = call.fields
    customer = fields.needed("customer")
    start_s, end_s = fields.needed_integer("start_time"), fields.needed_integer("end_time")
    grouping = fields.choice("value_grouping_window", ("hour", "day"))
    step_s = MINUTE_S if grouping is None else WINDOW_S[grouping]
    for name, at_s in (("start_time", start_s), ("end_time", end_s)):
        if at_s % step_s:
            unit = grouping or "minute"
            raise fields.fault(name, f"must be aligned with {unit} boundaries, in UTC")
    if end_s <= start_s:
        raise fields.fault("end_time", "must be after start_time")
    if grouping is not None and (end_s - start_s) // step_s > WINDOWS_MAX:
        raise fields.fault("end_time", f"is more than {WINDOWS_MAX} windows after start_time")
    spans = (
        [(start_s, end_s)]
        if grouping is None
        else [(at_s, at_s + step_s) for at_s in range(start_s, end_s, step_s)]
    )

    def summed(span: tuple[int, int]) -> Json:
        total = call.world.usage.total(meter, customer, *span)
        return _summary(meter, customer, span, total)

    url = SUMMARIES.format(meter.id)
    page = listed(url, spans, fields, summed)
    fields.done()
    return page


def _summary(meter: Meter, customer: str, span: tuple[int, int], total: Decimal) -> Json:
    # The id is that of the same summary whenever it is asked for, so that cursors hold.
    return {
        "id": f"mtrusg_{meter.id.removeprefix('mtr_')}_{customer}_{span[0]}_{span[1]}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(total),
        "end_time": span[1],
        "livemode": meter.livemode,
        "meter": meter.id,
        "start_time": span[0],
    }


ROUTES: Final = (
    Route(
        "POST",
        EVENTS,
        create_event,
        "billing_meter_event_write",
        limit=METER_EVENTS,
        exclusive=True,
    ),
    Route("POST", ADJUSTMENTS, create_adjustment, "billing_meter_event_adjustment_write"),
    Route("GET", SUMMARIES, list_summaries, "billing_meter_read"),
)
