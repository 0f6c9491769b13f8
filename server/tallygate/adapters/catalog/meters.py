"""The `meters` of a catalog document: what is counted, and what else counts as it.

Guarantees: a rate card keeps the document's order of meters, and its values in their own order.
Refuses to know: limits.
"""

import re
from decimal import Decimal
from typing import Final

from yaml.nodes import MappingNode, Node, ScalarNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.stripe import sync
from tallygate.domain.catalog import LATE_HORIZON_US, PPM, Aggregation, LatePolicy, Meter, Weight
from tallygate.domain.ids import MeterName

_METER: Final = (
    *("aggregation", "unit", "description", "late_horizon", "weights"),
    *("unique_by", "percentile", "group_by", "late_policy", "stripe"),
)
_WEIGHT: Final = ("units", "by", "values")
_PERCENTILE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?")


def meters(read: Reader, node: Node | None) -> dict[MeterName, Meter]:
    """Return the meters of a document; what is wrong is told to `read`."""
    return {
        MeterName(name): _meter(read, name, value)
        for name, value in read.mapping(node, "meters").items()
    }


def _meter(read: Reader, name: str, node: Node) -> Meter:
    path = f"meters.{name}"
    parts = read.mapping(node, path, _METER)
    return Meter(
        name=MeterName(name),
        aggregation=read.choice(
            parts.get("aggregation"),
            f"{path}.aggregation",
            Aggregation,
            default=Aggregation.SUM,
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
        unique_by=read.text(parts.get("unique_by"), f"{path}.unique_by"),
        percentile_ppm=_percentile_ppm(read, parts.get("percentile"), f"{path}.percentile"),
        group_by=tuple(
            read.text(item, at)
            for item, at in read.sequence(parts.get("group_by"), f"{path}.group_by")
        ),
        late_policy=read.choice(
            parts.get("late_policy"),
            f"{path}.late_policy",
            LatePolicy,
            default=LatePolicy.NEXT_PERIOD,
        ),
        stripe=sync(read, parts.get("stripe"), f"{path}.stripe"),
    )


def _percentile_ppm(read: Reader, node: Node | None, path: str) -> int:
    value = read.text(node, path)
    if _PERCENTILE.fullmatch(value) and 0 < (percent := Decimal(value)) <= 100:
        return int(percent * 10_000)
    if value and node is not None:
        message = f"must be above 0 and at most 100, with at most 4 decimals, not {value!r}"
        read.fault(node, path, message)
        # Something stands in for it, or there would be a second fault: that it is missing.
        return PPM
    return 0


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
