"""What events of other systems mean here: which meters a type feeds, and by how much.

Guarantees: pure; every event becomes the same usage, under the same ids, each time it comes.
Refuses to know: how events travel, and the catalog beyond its meters' names.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from tallygate.domain.cloudevent import CloudEvent, Json
from tallygate.domain.errors import InvalidField, UnknownMeter
from tallygate.domain.event import dimensions as checked_dimensions
from tallygate.domain.ids import AMOUNT_MAX, MeterName
from tallygate.domain.recording import Use

RULES_MAX: Final = 500
PATH_LENGTH_MAX: Final = 256
_STEP: Final = re.compile(
    r"\.(?P<name>[A-Za-z_][A-Za-z0-9_-]*)|\['(?P<quoted>[^'\]]+)'\]|\[(?P<index>\d{1,4})\]"
)
_DIGITS_MAX: Final = 40


class Unmatched(StrEnum):
    """What becomes of an event whose type is no rule's and no meter's name."""

    REFUSE = "refuse"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class EventRule:
    """Events of a type are usage of a meter.

    `value` is the path of how much, in data; empty counts each event as one. One of theirs is
    `unit` of our smallest units. `dimensions` are paths by the dimensions that they are.
    """

    type: str
    meter: MeterName
    value: str = ""
    unit: Decimal = Decimal(1)
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EventRules:
    """All rules, and what becomes of the rest."""

    rules: tuple[EventRule, ...] = ()
    unmatched: Unmatched = Unmatched.REFUSE


NO_EVENT_RULES: Final = EventRules()


@dataclass(frozen=True, slots=True)
class EventReader:
    """Reads events by rules; `meters` are the names of the catalog's."""

    rules: EventRules = NO_EVENT_RULES
    meters: Collection[str] = ()
    _by_type: dict[str, list[EventRule]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find rules by their type."""
        for rule in self.rules.rules:
            self._by_type.setdefault(rule.type, []).append(rule)

    def uses(self, event: CloudEvent) -> list[Use] | None:
        """Return the usage that an event is: none where all of it is 0, None where it is ignored.

        Raises `UnknownMeter`, and `InvalidField` naming what is wrong by its path.
        """
        found = self._by_type.get(event.type)
        if found is not None:
            return [use for rule in found if (use := _mapped(event, rule)) is not None]
        if event.type in self.meters:
            return [_plain(event)]
        if self.rules.unmatched is Unmatched.IGNORE:
            return None
        raise UnknownMeter(
            f"the catalog has neither a meter {event.type[:64]!r} nor a rule for the type",
            field="type",
        )


def path_fault(path: str) -> str:
    """Return what is wrong with a path such as `$.tokens`, `$['a b'].c` or `$.list[0]`; or ''."""
    if len(path) > PATH_LENGTH_MAX:
        return f"must be at most {PATH_LENGTH_MAX} characters"
    if not path.startswith("$") or _STEP.sub("", path[1:]):
        return "must be a path such as $.tokens, $['a b'].c or $.list[0]"
    return ""


def at(data: "Json", path: str) -> "Json":
    """Return what lies at a path, None where there is nothing."""
    found = data
    for step in _STEP.finditer(path[1:]):
        if step["index"] is not None:
            index = int(step["index"])
            found = found[index] if isinstance(found, list) and index < len(found) else None
        else:
            name = step["name"] or step["quoted"]
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _mapped(event: CloudEvent, rule: EventRule) -> Use | None:
    amount = rule.unit
    if rule.value:
        amount = _number(at(event.data, rule.value), f"data{rule.value[1:]}") * rule.unit
    units = _whole(amount, f"data{rule.value[1:]}")
    if units == 0:
        return None
    named = {name: at(event.data, path) for name, path in rule.dimensions}
    return _use(event, rule.meter, units, named)


def _plain(event: CloudEvent) -> Use:
    """Return the use that an event is whose type is a meter's name: its data are ours."""
    data = event.data
    if not isinstance(data, Mapping):
        raise InvalidField("must be an object with `amount`", field="data")
    units = _whole(_number(data.get("amount"), "data.amount"), "data.amount")
    if units == 0:
        raise InvalidField(f"must be from 1 to {AMOUNT_MAX}", field="data.amount")
    named = data.get("dimensions")
    if named is not None and not isinstance(named, Mapping):
        raise InvalidField("must be an object", field="data.dimensions")
    subject = data.get("subject_id")
    if subject is not None and not isinstance(subject, str):
        raise InvalidField("must be a text", field="data.subject_id")
    return _use(event, MeterName(event.type), units, named or {}, subject or "")


def _use(
    event: CloudEvent,
    meter: MeterName,
    units: int,
    named: Mapping[str, "Json"],
    subject_id: str = "",
) -> Use:
    dimensions = {
        name: _label(value, f"data dimension {name!r}")
        for name, value in named.items()
        if value is not None
    }
    return Use(
        # The meter is part of it, as one event may feed several.
        event_id=f"{event.digest()}-{meter}",
        tenant_id=event.subject,
        meter=meter,
        amount=units,
        time_us=event.time_us,
        dimensions=checked_dimensions(dimensions, "data.dimensions"),
        subject_id=subject_id,
        metadata_json=json.dumps(
            {"ce_id": event.id, "ce_source": event.source, "ce_type": event.type}
        ),
    )


def _number(value: "Json", place: str) -> Decimal:
    """Return a number, which a text may be too. Raises `InvalidField`."""
    if value is None:
        raise InvalidField("is missing", field=place)
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise InvalidField("must be a number", field=place)
    try:
        found = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise InvalidField("must be a number", field=place) from None
    if not found.is_finite():
        raise InvalidField("must be a number", field=place)
    if abs(found.adjusted()) > _DIGITS_MAX or len(found.as_tuple().digits) > _DIGITS_MAX:
        raise InvalidField("has too many digits", field=place)
    return found


def _whole(amount: Decimal, place: str) -> int:
    if amount < 0:
        raise InvalidField("must not be below 0", field=place)
    if amount > AMOUNT_MAX:
        raise InvalidField(f"must be at most {AMOUNT_MAX}", field=place)
    if amount != amount.to_integral_value():
        raise InvalidField("is no whole number of units: the rule's `unit` scales it", field=place)
    return int(amount)


def _label(value: "Json", place: str) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int() | Decimal():
            return str(value)
    raise InvalidField("must be a text, a number or true or false", field=place)


def rules_faults(rules: EventRules, meters: Collection[str]) -> Sequence[tuple[str, str]]:
    """Return what is wrong with rules beside their parts: each by its path."""
    faults = []
    seen: set[tuple[str, str]] = set()
    for place, rule in enumerate(rules.rules):
        at_rule = f"ingest.events[{place}]"
        if rule.meter and rule.meter not in meters:
            faults.append((f"{at_rule}.meter", f"there is no meter {rule.meter!r}"))
        if (rule.type, rule.meter) in seen:
            faults.append((at_rule, "the same type feeds the same meter above"))
        seen.add((rule.type, rule.meter))
    return faults
