"""Meters and meter events, as the fake keeps them and as they go over the wire.

Guarantees: the field sets are those of the API version 2026-10-28.
Refuses to know: what is done with them.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from .tables import Json

US_PER_S: Final = 1_000_000


@dataclass(slots=True)
class Meter:
    """What usage is added up by."""

    id: str
    display_name: str
    event_name: str
    formula: str
    window: str | None
    customer_key: str
    value_key: str
    created: int
    updated: int
    livemode: bool
    deactivated_at: int | None = None

    @property
    def active(self) -> bool:
        """Whether it takes usage."""
        return self.deactivated_at is None

    def render(self) -> Json:
        """Return it as the v1 API does."""
        return {
            "id": self.id,
            "object": "billing.meter",
            "created": self.created,
            "customer_mapping": {"event_payload_key": self.customer_key, "type": "by_id"},
            "default_aggregation": {"formula": self.formula},
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": self.window,
            "livemode": self.livemode,
            "status": "active" if self.active else "inactive",
            "status_transitions": {"deactivated_at": self.deactivated_at},
            "updated": self.updated,
            "value_settings": {"event_payload_key": self.value_key},
        }


@dataclass(eq=False, slots=True)
class MeterEvent:
    """One event that was taken, and what became of it."""

    event_name: str
    identifier: str
    payload: dict[str, str]
    timestamp: int
    received_us: int
    # The order of receipt, which breaks ties.
    number: int
    # v1, v2 or stream.
    source: str
    livemode: bool
    idempotency_key: str | None = None
    meter: str | None = None
    customer: str | None = None
    value: Decimal = Decimal(0)
    applied_us: int | None = None
    cancelling: bool = False
    cancelled: bool = False
    error: str | None = None

    @property
    def created(self) -> int:
        """When it was received, in seconds since the Unix epoch."""
        return self.received_us // US_PER_S

    def render(self) -> Json:
        """Return it as the v1 API does."""
        return {
            "object": "billing.meter_event",
            "created": self.created,
            "event_name": self.event_name,
            "identifier": self.identifier,
            "livemode": self.livemode,
            "payload": self.payload,
            "timestamp": self.timestamp,
        }

    def dump(self) -> Json:
        """Return all that is known of it, for the control surface."""
        return self.render() | {
            "number": self.number,
            "source": self.source,
            "idempotency_key": self.idempotency_key,
            "meter": self.meter,
            "customer": self.customer,
            "value": str(self.value),
            "applied": self.applied_us is not None,
            "cancelled": self.cancelled,
            "error": self.error,
        }
