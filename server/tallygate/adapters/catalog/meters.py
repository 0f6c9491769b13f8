"""The `meters` of a catalog document: what is counted, and what else counts as it.

Guarantees: a rate card keeps the document's order of meters, and its values in their own order.
Refuses to know: limits.
"""

from typing import Final

from yaml.nodes import MappingNode, Node, ScalarNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.stripe import sync
from tallygate.domain.catalog import LATE_HORIZON_US, Aggregation, Meter, Weight
from tallygate.domain.ids import MeterName

_METER: Final = ("aggregation", "unit", "description", "late_horizon", "weights", "stripe")
_WEIGHT: Final = ("units", "by", "values")

# What the format has room for: a document that says it is early, not misspelt.
_METER_PLANNED: Final = ("group_by", "late_policy")
_AGGREGATIONS_PLANNED: Final = ("latest", "unique", "percentile", "time_weighted")


def meters(read: Reader, node: Node | None) -> dict[MeterName, Meter]:
    """Return the meters of a document; what is wrong is told to `read`."""
    return {
        MeterName(name): _meter(read, name, value)
        for name, value in read.mapping(node, "meters").items()
    }


def _meter(read: Reader, name: str, node: Node) -> Meter:
    path = f"meters.{name}"
    parts = read.mapping(node, path, _METER, _METER_PLANNED)
    return Meter(
        name=MeterName(name),
        aggregation=read.choice(
            parts.get("aggregation"),
            f"{path}.aggregation",
            Aggregation,
            default=Aggregation.SUM,
            planned=_AGGREGATIONS_PLANNED,
        ),
        unit=read.text(parts.get("unit"), f"{path}.unit"),
        description=read.prose(parts.get("description"), f"{path}.description"),
        late_horizon_us=read.duration_us(
            parts.get("late_horizon"), f"{path}.late_horizon", LATE_HORIZON_US
        ),
        weights=tuple(
            _weight(read, source, value, f"{path}.weights.{source}")
            for source, value in read.mapping(parts.get("weights"), f"{path}.weights").items()
        ),
        stripe=sync(read, parts.get("stripe"), f"{path}.stripe"),
    )


def _weight(read: Reader, source: str, node: Node, path: str) -> Weight:
    if isinstance(node, ScalarNode):
        return Weight(MeterName(source), read.integer(node, path, 1))
    if not isinstance(node, MappingNode):
        read.fault(node, path, "must be a whole number, or a mapping with `units`")
        return Weight(MeterName(source), 1)
    parts = read.mapping(node, path, _WEIGHT)
    values = {
        value: read.integer(units, f"{path}.values.{value}", 1)
        for value, units in read.mapping(parts.get("values"), f"{path}.values").items()
    }
    return Weight(
        meter=MeterName(source),
        units=read.integer(read.needed(parts, "units", node, path), f"{path}.units", 1),
        by=read.text(parts.get("by"), f"{path}.by"),
        values=tuple(sorted(values.items())),
    )
