"""The rules of events as JSON, for the compiled catalog.

Guarantees: what is written reads back equal.
Refuses to know: where it lies.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tallygate.domain.event_rules import EventRule, EventRules, Unmatched
from tallygate.domain.ids import MeterName

# JSON is untyped; what is read from it is checked by building the domain's own types.
Json = Mapping[str, Any]


def event_rules_to_json(rules: EventRules) -> Json:
    """Return the rules as JSON."""
    return {
        "unmatched": rules.unmatched.value,
        "events": [
            {
                "type": rule.type,
                "meter": rule.meter,
                "value": rule.value,
                "unit": str(rule.unit),
                "dimensions": dict(rule.dimensions),
            }
            for rule in rules.rules
        ],
    }


def event_rules_from_json(found: Json | None) -> EventRules:
    """Return the rules. Raises ValueError, KeyError or TypeError for what is none."""
    if found is None:
        return EventRules()
    return EventRules(
        tuple(
            EventRule(
                type=str(each["type"]),
                meter=MeterName(each["meter"]),
                value=str(each["value"]),
                unit=Decimal(each["unit"]),
                dimensions=tuple(sorted(dict(each["dimensions"]).items())),
            )
            for each in found["events"]
        ),
        Unmatched(found["unmatched"]),
    )
