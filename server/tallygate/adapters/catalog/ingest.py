"""The `ingest` of a catalog document: what events of other systems are usage of.

Guarantees: a path or a unit that is none is a fault of its own line.
Refuses to know: whether meters exist; that is for the catalog's rules.
"""

import re
from decimal import Decimal
from typing import Final

from yaml.nodes import Node

from tallygate.adapters.catalog.nodes import Reader
from tallygate.domain.cloudevent import TYPE_LENGTH_MAX
from tallygate.domain.event import DIMENSION_KEY_LENGTH_MAX, DIMENSIONS_MAX
from tallygate.domain.event_rules import (
    NO_EVENT_RULES,
    RULES_MAX,
    EventRule,
    EventRules,
    Unmatched,
    path_fault,
)
from tallygate.domain.ids import MeterName

_INGEST: Final = ("unmatched", "events")
_EVENT: Final = ("type", "meter", "value", "unit", "dimensions")
_UNIT: Final = re.compile(r"\d{1,16}(\.\d{1,12})?")


def ingest(read: Reader, node: Node | None) -> EventRules:
    """Return what a document says of events; what is wrong is told to `read`."""
    if node is None:
        return NO_EVENT_RULES
    parts = read.mapping(node, "ingest", _INGEST)
    events = [*read.sequence(parts.get("events"), "ingest.events")]
    if len(events) > RULES_MAX:
        read.fault(node, "ingest.events", f"holds more than {RULES_MAX} rules")
    return EventRules(
        tuple(_rule(read, each, at) for each, at in events[:RULES_MAX]),
        read.choice(
            parts.get("unmatched"), "ingest.unmatched", Unmatched, default=Unmatched.REFUSE
        ),
    )


def _rule(read: Reader, node: Node, path: str) -> EventRule:
    parts = read.mapping(node, path, _EVENT)
    named = read.mapping(parts.get("dimensions"), f"{path}.dimensions")
    if len(named) > DIMENSIONS_MAX:
        read.fault(node, f"{path}.dimensions", f"holds more than {DIMENSIONS_MAX} dimensions")
    for name in named:
        if len(name) > DIMENSION_KEY_LENGTH_MAX:
            message = f"must be at most {DIMENSION_KEY_LENGTH_MAX} characters"
            read.fault(named[name], f"{path}.dimensions.{name}", message)
    return EventRule(
        type=read.text(read.needed(parts, "type", node, path), f"{path}.type", TYPE_LENGTH_MAX),
        meter=MeterName(read.text(read.needed(parts, "meter", node, path), f"{path}.meter")),
        value=_path(read, parts.get("value"), f"{path}.value"),
        unit=_unit(read, parts.get("unit"), f"{path}.unit"),
        dimensions=tuple(
            (name, _path(read, each, f"{path}.dimensions.{name}"))
            for name, each in sorted(named.items())
        ),
    )


def _path(read: Reader, node: Node | None, path: str) -> str:
    value = read.text(node, path)
    fault = path_fault(value) if value else ""
    if fault and node is not None:
        read.fault(node, path, fault)
        return ""
    return value


def _unit(read: Reader, node: Node | None, path: str) -> Decimal:
    value = read.text(node, path)
    if node is None or not value:
        return Decimal(1)
    if not _UNIT.fullmatch(value) or not Decimal(value):
        read.fault(node, path, f"must be a number above 0, not {value!r}")
        return Decimal(1)
    return Decimal(value)
