"""catalog ─▶ [ scope ] ─▶ bind, recount: which usage a limit counts, for whom, at what weight.

If we die here, nothing has happened yet.

Guarantees: usage is counted alike when it is decided and when it is recounted from the ledger.
Refuses to know: windows and counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from tallygate.domain.catalog import Catalog, Limit, Weight
from tallygate.domain.event import EventContext
from tallygate.domain.ids import MeterName
from tallygate.domain.request import Item

_CONTEXT_FIELDS: Final = frozenset(field.name for field in fields(EventContext))


@dataclass(frozen=True, slots=True)
class Weighing:
    """A weight whose values are found at once."""

    units: int
    by: str
    values: Mapping[str, int]


Weighings = Mapping[MeterName, Mapping[MeterName, Weighing]]
"""By the meter of a limit, the weights of other meters."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which items a limit counts, in whose counter, and what they weigh."""

    meter: MeterName
    per: str
    where: tuple[tuple[str, frozenset[str]], ...]
    weighings: Mapping[MeterName, Weighing]

    def fields(self, meter: MeterName) -> tuple[str, ...]:
        """Return what of an item of that meter has to be known beside its amount, sorted."""
        wanted = {key for key, _ in self.where}
        if self.per:
            wanted.add(self.per)
        weighing = self.weighings.get(meter)
        if meter != self.meter and weighing is not None and weighing.by:
            wanted.add(weighing.by)
        return tuple(sorted(wanted))


def weighings_of(catalog: Catalog) -> Weighings:
    """Return the weights of all meters that have some."""
    return {
        meter.name: {weight.meter: _weighing(weight) for weight in meter.weights}
        for meter in catalog.meters.values()
        if meter.weights
    }


def scope_of(limit: Limit, weighings: Weighings) -> Scope | None:
    """Return the scope of a limit; None where it counts all items of its meter for the tenant."""
    found = weighings.get(limit.meter, {})
    if not (limit.per or limit.where or found):
        return None
    where = tuple((key, frozenset(values)) for key, values in limit.where)
    return Scope(limit.meter, limit.per, where, found)


def weight_of(scope: Scope, item: Item, context: EventContext) -> int | None:
    """Return how many units of the limit's meter one of the item's is, None if it has no part."""
    if item.meter == scope.meter:
        return 1
    weighing = scope.weighings.get(item.meter)
    if weighing is None:
        return None
    if not weighing.by:
        return weighing.units
    return weighing.values.get(value_of(weighing.by, item, context), weighing.units)


def matches(scope: Scope, item: Item, context: EventContext) -> bool:
    """Say whether the limit counts items like this one."""
    return all(value_of(key, item, context) in values for key, values in scope.where)


def value_of(key: str, item: Item, context: EventContext) -> str:
    """Return the item's value of a dimension, else of a field of the context, else nothing."""
    found = item.dimensions.get(key)
    if found is None and key in _CONTEXT_FIELDS:
        found = getattr(context, key)
    return found or ""


def _weighing(weight: Weight) -> Weighing:
    return Weighing(weight.units, weight.by, dict(weight.values))
