"""The way of a meter event: taken, applied after a while, or told of in an error report.

Guarantees: an identifier that was taken is refused for the whole window, whoever sends it and
whatever it says; an event that was taken is applied once, when its lag is over, or reported once;
what is refused at once leaves nothing behind.
Refuses to know: how requests are written, and what invoices make of usage.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from .behaviour import UnknownCustomer
from .clock import US_PER_S
from .errors import StripeFault, full, invalid
from .faults import Fault, FaultKind
from .objects import Meter, MeterEvent
from .series import Series
from .tables import Json

if TYPE_CHECKING:
    from .world import World

PAST_S: Final = 35 * 86_400
FUTURE_S: Final = 300
_VALUE: Final = re.compile(r"^-?\d+(\.\d+)?$")

# What an error report says beside its code.
MESSAGES: Final = {
    "archived_meter": "The meter is inactive.",
    "meter_event_customer_not_found": "There is no customer of this id.",
    "meter_event_dimension_count_too_high": "There are too many values of the dimensions.",
    "meter_event_invalid_value": "The value is not a number.",
    "meter_event_no_customer_defined": "The payload names no customer.",
    "meter_event_value_not_found": "The payload has no value.",
    "meter_event_value_too_many_digits": "The value has too many digits.",
    "missing_dimension_payload_keys": "The payload lacks a dimension of the meter.",
    "no_meter": "There is no meter for this event name.",
    "timestamp_in_future": "The timestamp is more than 5 minutes ahead.",
    "timestamp_too_far_in_past": "The timestamp is more than 35 days back.",
}


@dataclass(slots=True)
class Draft:
    """A meter event, as it was sent."""

    event_name: str
    payload: dict[str, str]
    identifier: str | None
    timestamp: int | None
    source: str


class Identifiers:
    """Which identifiers were taken, for a rolling window."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[int, MeterEvent]] = {}

    def find(self, identifier: str, now_us: int, window_us: int) -> MeterEvent | None:
        """Return what was taken under an identifier within the window, None where nothing was."""
        taken = self._taken.get(identifier)
        if taken is None or now_us - taken[0] >= window_us:
            return None
        return taken[1]

    def take(self, identifier: str, event: MeterEvent, now_us: int) -> None:
        """Keep an identifier from now on."""
        self._taken[identifier] = (now_us, event)


class Usage:
    """All usage of one account."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._identifiers = Identifiers()
        self._series: dict[tuple[str, str], Series] = {}
        self.events: list[MeterEvent] = []

    def take(
        self, draft: Draft, now_us: int, *, key: str | None, fault: Fault | None = None
    ) -> MeterEvent:
        """Take an event from a single call. Raises `StripeFault`, and has then done nothing."""
        meter = self._checked(draft, now_us)
        identifier = draft.identifier
        if identifier is not None and self._known(identifier, now_us):
            raise _duplicate(draft)
        return self._taken(draft, now_us, meter=meter, key=key, fault=fault)

    def take_unchecked(
        self, draft: Draft, now_us: int, *, key: str | None, fault: Fault | None = None
    ) -> None:
        """Take an event of the stream: what is wrong with it comes out later, repeats never do."""
        if draft.identifier is None or not self._known(draft.identifier, now_us):
            self._taken(draft, now_us, meter=None, key=key, fault=fault)

    def find(self, identifier: str, now_us: int) -> MeterEvent | None:
        """Return the event that was taken under an identifier within the window."""
        window_us = round(self._world.behaviour.identifier_window_s * US_PER_S)
        return self._identifiers.find(identifier, now_us, window_us)

    def total(self, meter: Meter, customer: str, start_s: int, end_s: int) -> Decimal:
        """Return what was applied of a customer's usage from `start_s` to before `end_s`."""
        series = self._series.get((meter.id, customer))
        if series is None:
            return Decimal(0)
        return series.total(meter.formula, meter.window, start_s, end_s)

    def totals(self) -> list[Json]:
        """Return what was applied in all, exactly, by meter and customer."""
        ends = (-(2**62), 2**62)
        meters = self._world.meters
        return [
            {
                "meter": meter,
                "event_name": meters.get(meter).event_name,
                "customer": customer,
                "events": len(series),
                "total": str(self.total(meters.get(meter), customer, *ends)),
            }
            for (meter, customer), series in self._series.items()
        ]

    def _known(self, identifier: str, now_us: int) -> bool:
        return self.find(identifier, now_us) is not None

    def _checked(self, draft: Draft, now_us: int) -> Meter | None:
        """Refuse what is refused at once; return the meter where it is known by then."""
        at_once = draft.source == "v2" or self._world.behaviour.v1_checks_at_once
        if at_once and draft.timestamp is not None:
            _check_timestamp(draft, draft.timestamp, now_us // US_PER_S)
        meter = self._world.meters_by_event.get(draft.event_name)
        if meter is None or not meter.active:
            if at_once:
                raise _no_meter(draft, meter)
            return None
        if draft.source == "v2":
            self._check_payload(draft, meter)
        customer = draft.payload.get(meter.customer_key)
        refuses = self._world.behaviour.unknown_customer is UnknownCustomer.REFUSE
        if refuses and customer and customer not in self._world.customers:
            raise invalid(
                f"No such customer: '{customer}'",
                param=f"payload[{meter.customer_key}]",
                code="resource_missing",
            )
        return meter

    def _check_payload(self, draft: Draft, meter: Meter) -> None:
        if not draft.payload.get(meter.customer_key):
            raise invalid(
                MESSAGES["meter_event_no_customer_defined"], code="payload_no_customer_defined"
            )
        if meter.formula == "count":
            return
        if not draft.payload.get(meter.value_key):
            raise invalid(MESSAGES["meter_event_value_not_found"], code="payload_no_value_defined")
        if self._value_fault(draft.payload[meter.value_key]) is not None:
            raise invalid(MESSAGES["meter_event_invalid_value"], code="payload_invalid_value")

    def _taken(
        self,
        draft: Draft,
        now_us: int,
        *,
        meter: Meter | None,
        key: str | None,
        fault: Fault | None,
    ) -> MeterEvent:
        world = self._world
        event = MeterEvent(
            event_name=draft.event_name,
            identifier=draft.identifier or world.mint("evtid"),
            payload=draft.payload,
            timestamp=now_us // US_PER_S if draft.timestamp is None else draft.timestamp,
            received_us=now_us,
            number=len(self.events) + 1,
            source=draft.source,
            livemode=world.livemode,
            idempotency_key=key,
            meter=meter.id if meter else None,
        )
        if len(self.events) >= world.caps.meter_events:
            raise full("meter events", world.caps.meter_events)
        if fault is None or fault.kind is not FaultKind.SWALLOW:
            due_us = now_us + round(world.behaviour.lag_s * US_PER_S)
            world.schedule.at(due_us, lambda at_us: self._apply(event, at_us, fault))
        self.events.append(event)
        self._identifiers.take(event.identifier, event, now_us)
        return event

    def _apply(self, event: MeterEvent, now_us: int, fault: Fault | None) -> None:
        """Count an event, or report what is wrong with it."""
        meter = self._world.meters_by_event.get(event.event_name)
        event.error = self._late_fault(event, meter, fault)
        if event.error is not None or meter is None:
            code = event.error or "no_meter"
            self._world.reports.add(event, meter, code, MESSAGES.get(code, code), now_us)
            return
        event.meter, event.customer = meter.id, event.payload[meter.customer_key]
        if meter.formula != "count":
            event.value = Decimal(event.payload[meter.value_key])
        event.applied_us = now_us
        series = self._series.setdefault((meter.id, event.customer), Series())
        series.add(event)
        if fault is not None and fault.kind is FaultKind.DOUBLE:
            series.add(event)
        self._world.alerting.look(meter, event.customer, now_us)

    def _late_fault(
        self, event: MeterEvent, meter: Meter | None, fault: Fault | None
    ) -> str | None:
        """Return the code of what is wrong with an event that was taken, None where nothing is."""
        received_s = event.received_us // US_PER_S
        if fault is not None and fault.kind is FaultKind.ASYNC_ERROR:
            return fault.code
        if meter is None:
            return "no_meter"
        # One that was active when it took the event has taken it.
        if not meter.active and event.meter is None:
            return "archived_meter"
        if event.timestamp < received_s - PAST_S:
            return "timestamp_too_far_in_past"
        if event.timestamp > received_s + FUTURE_S:
            return "timestamp_in_future"
        customer = event.payload.get(meter.customer_key)
        if not customer:
            return "meter_event_no_customer_defined"
        accepts = self._world.behaviour.unknown_customer is UnknownCustomer.ACCEPT
        if not accepts and customer not in self._world.customers:
            return "meter_event_customer_not_found"
        if meter.formula == "count":
            return None
        value = event.payload.get(meter.value_key)
        return "meter_event_value_not_found" if not value else self._value_fault(value)

    def _value_fault(self, value: str) -> str | None:
        behaviour = self._world.behaviour
        if not _VALUE.match(value) or (behaviour.whole_values_only and "." in value):
            return "meter_event_invalid_value"
        digits = sum(each.isdigit() for each in value)
        return "meter_event_value_too_many_digits" if digits > behaviour.value_digits_max else None


def _check_timestamp(draft: Draft, timestamp: int, now_s: int) -> None:
    """Refuse what is out of bounds: v1 is known to say so in words, v2 has a code."""
    v2 = draft.source == "v2"
    if timestamp < now_s - PAST_S:
        raise invalid(
            "The event timestamp cannot be more than 35 days in past. Expected a timestamp greater "
            f"than or equal to {now_s - PAST_S}.",
            param="timestamp",
            code="timestamp_too_far_in_past" if v2 else None,
        )
    if timestamp > now_s + FUTURE_S:
        raise invalid(
            "The event timestamp cannot be more than 5 minutes in future. Expected a timestamp "
            f"less than or equal to {now_s + FUTURE_S}.",
            param="timestamp",
            code="timestamp_in_future" if v2 else None,
        )


def _no_meter(draft: Draft, meter: Meter | None) -> StripeFault:
    code = None
    if draft.source == "v2":
        code = "no_meter" if meter is None else "archived_meter"
    name = draft.event_name
    return invalid(
        f"Invalid event_name: {name}. No active meter found with this event name.",
        param="event_name",
        code=code,
    )


def _duplicate(draft: Draft) -> StripeFault:
    """Return the 400 for an identifier that was taken: v1 gives it no code, v2 does."""
    return invalid(
        f"An event already exists with identifier {draft.identifier}.",
        code="duplicate_meter_event" if draft.source == "v2" else None,
        began=True,
    )
