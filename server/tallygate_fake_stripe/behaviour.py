"""How the fake behaves where Stripe's own behaviour is disputed, undocumented or adjustable.

Guarantees: each switch has the documented behaviour as its default, and a name for the other one;
nothing is kept without a cap.
Refuses to know: who reads a switch.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from .errors import invalid

DAY_S: Final = 86_400


class UnknownCustomer(StrEnum):
    """What becomes of usage for a customer that is not there."""

    # As the documentation has it: taken, and told of in an error report.
    REPORT = "report"
    # As others have seen it: `No such customer`, at once.
    REFUSE = "refuse"
    # For tests that are about something else.
    ACCEPT = "accept"


@dataclass
class Behaviour:
    """The switches; the control surface sets them by their names."""

    # How long after its receipt usage shows in summaries and on invoices.
    lag_s: float = 0.0
    unknown_customer: UnknownCustomer = UnknownCustomer.REPORT
    # Whether v1 refuses timestamps that are out of bounds, and names without a meter, at once; else
    # an error report tells of them.
    v1_checks_at_once: bool = True
    # "At least 24 hours", says the documentation: exactly those, so that tests see the hole.
    identifier_window_s: float = DAY_S
    idempotency_window_s: float = DAY_S
    idempotency_v2_window_s: float = 30 * DAY_S
    # Older documentation takes whole numbers only.
    whole_values_only: bool = False
    value_digits_max: int = 15
    # Two calls at once for one customer and meter: 409, detected from requests that truly overlap.
    concurrency_checked: bool = True
    # How long each meter event is being worked on, in real time: what makes calls overlap.
    work_ms: float = 1.0
    stream_live_only: bool = True
    session_s: float = 15 * 60
    # Errors of one meter within this time make one report, which names a few of them only.
    report_every_s: float = 0.0
    report_samples_max: int = 10
    # An invoice stays a draft for so long: an hour, or what the account was set to, at most 72 h.
    finalization_grace_s: float = 3_600.0
    rate_limited: bool = True
    # Whether webhooks are signed with the fake's clock, or with the machine's.
    signed_by_system_clock: bool = False


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that is kept of each thing; past it, calls are refused with code `fake_full`."""

    # Some two kilobytes each, with their keys.
    meter_events: int = 500_000
    objects: int = 200_000
    idempotency_keys: int = 500_000
    worlds: int = 1_000
    faults: int = 1_000
    # Old ones are forgotten for new ones.
    requests: int = 20_000
    deliveries: int = 20_000
    body_bytes: int = 1_048_576


@dataclass(slots=True)
class Switches:
    """Reads and sets the switches of a `Behaviour` from outside, by name."""

    behaviour: Behaviour = field(default_factory=Behaviour)

    def read(self) -> dict[str, object]:
        """Return every switch with its value."""
        return {each.name: getattr(self.behaviour, each.name) for each in fields(Behaviour)}

    def set(self, wanted: dict[str, Any]) -> None:
        """Set some switches, all or none. Raises `StripeFault`."""
        now = self.read()
        checked = {}
        for name, value in wanted.items():
            if name not in now:
                raise invalid(f"There is no switch {name}.", param=name)
            checked[name] = _like(name, value, now[name])
        for name, each in checked.items():
            setattr(self.behaviour, name, each)


def _like(name: str, value: object, example: object) -> object:
    """Return a value of the kind that a switch has. Raises `StripeFault`."""
    match example:
        case UnknownCustomer():
            if value in list(UnknownCustomer):
                return UnknownCustomer(str(value))
        case bool():
            if isinstance(value, bool):
                return value
        case int() | float():
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                return type(example)(value)
        case _:
            pass
    raise invalid(f"The switch {name} cannot be {value!r}.", param=name)
