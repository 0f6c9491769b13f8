"""Usage by group, value, slot and level: what a ledger transaction adds for meters that ask for it.

Guarantees: a transaction follows the shapes that are in effect when it commits: it asks which
change is the newest where it adds to all meters' rollups, and reads shapes again after a change.
Meters without a shape cost a look at their names.
Refuses to know: who changes shapes.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Aggregation
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName
from tallygate.domain.rollup import Rollup, Shape, group_of
from tallygate.domain.window import MINUTE_US

_NONE: Final = (None, None, None)


@dataclass(frozen=True, slots=True)
class KnownShapes:
    """The shapes as of the change `newest`, by meter, each with its number."""

    newest: int = 0
    of: Mapping[MeterName, tuple[int, Shape]] = field(default_factory=dict)


def definition_of(shape: Shape) -> str:
    """Return the shape as its row has it."""
    found: dict[str, object] = {"aggregation": shape.aggregation, "group_by": list(shape.group_by)}
    if shape.unique_by:
        found["unique_by"] = shape.unique_by
    return json.dumps(found, ensure_ascii=False)


def shape_from(definition: str) -> Shape:
    """Return the shape that a row has."""
    found = json.loads(definition)
    return Shape(
        Aggregation(found["aggregation"]), found.get("unique_by", ""), tuple(found["group_by"])
    )


async def read_shapes(connection: Lent, newest: int) -> KnownShapes:
    """Read the shapes there are."""
    rows = await connection.fetch(query("ledger_shapes"))
    return KnownShapes(
        newest,
        {MeterName(row["meter"]): (row["shape_id"], shape_from(row["definition"])) for row in rows},
    )


async def add(
    connection: Lent, events: Iterable[UsageEvent], meters: Collection[str], shapes: KnownShapes
) -> None:
    """Add events, which are of these meters, to the rollups of those that have a shape."""
    if shapes.of.keys().isdisjoint(meters):
        return
    added = _Added()
    for event in events:
        found = shapes.of.get(event.meter)
        if found is not None:
            added.add(*found, event)
    await connection.fetchval(query("ledger_add_groups"), *added.columns())


class _Added:
    """What events add, by group and minute."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, str, tuple[str, ...]], int] = {}
        self._states: dict[tuple[int, int], tuple[Shape, Rollup]] = {}

    def add(self, number: int, shape: Shape, event: UsageEvent) -> None:
        group = (number, event.tenant_id, group_of(shape, event))
        place = self._places.setdefault(group, len(self._places))
        at_us = event.event_time_us
        key = (place, at_us - at_us % MINUTE_US)
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = (shape, Rollup())
        found[1].add(shape, event)

    def columns(self) -> tuple[str, str, str, str]:
        """Return the arguments of the statement."""
        figures: list[object] = []
        parts: list[object] = []
        levels: list[object] = []
        for (place, minute_us), (_, state) in self._states.items():
            shown = (state.count, state.sum, state.max, state.min)
            figures.append((place, minute_us, *shown, *(state.latest or _NONE)))
            parts += [(place, minute_us, key, units) for key, units in state.parts.items()]
            levels += [
                (place, at_us, event_id, level.amount, level.arrived)
                for (at_us, event_id), level in state.levels.items()
            ]
        return _json(list(self._places)), _json(figures), _json(parts), _json(levels)


def _json(rows: list[object]) -> str:
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
