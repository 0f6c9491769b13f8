"""catalog ─▶ [ place ] ─▶ draft: what is the same for all calls of a tenant for the same meters.

If we die here, nothing has happened yet.

Guarantees: what is remembered of a call's charges is what binding it anew would give, now.
Refuses to know: counters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import Charge, WindowRule
from tallygate.domain.event import NO_CONTEXT, EventContext
from tallygate.domain.ids import MeterName, TenantId, shard_of
from tallygate.domain.request import Item
from tallygate.flow.bind import Binder

# Tenants times the sets of meters that they use together; each takes about a kilobyte.
PLACES_MAX: Final = 20_000
# Most callers ask for the same few amounts again and again.
AMOUNTS_MAX: Final = 8

_Key = tuple[TenantId, MeterName] | tuple[TenantId, tuple[MeterName, ...]]
_Amounts = int | tuple[int, ...]


@dataclass(slots=True, eq=False)
class Place:
    """A tenant in a catalog, and the charges of its calls for some meters while no window turns.

    `scoped` says that other things than amounts matter for the charges: then none are kept here.
    `hot` is for whoever grants from leases.
    """

    catalog: Catalog
    lineage: tuple[Tenant, ...]
    shard: int
    scoped: bool
    hot: object | None = None
    from_us: int = 0
    until_us: int = 0
    charges: dict[_Amounts, tuple[Charge, ...]] = field(default_factory=dict)


class Places:
    """Places by tenant and meters."""

    def __init__(self, binder: Binder, shards: int) -> None:
        self._binder = binder
        self._shards = shards
        self._places: dict[_Key, Place] = {}

    def of(self, catalog: Catalog, lineage: tuple[Tenant, ...], items: Sequence[Item]) -> Place:
        """Return the place of a tenant's calls for these items."""
        tenant_id = lineage[0].tenant_id
        key: _Key
        if len(items) == 1:
            key = (tenant_id, items[0].meter)
        else:
            key = (tenant_id, tuple([item.meter for item in items]))
        place = self._places.get(key)
        if place is None or place.catalog is not catalog or place.lineage is not lineage:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            shard = shard_of(lineage[-1].tenant_id, self._shards)
            scoped = self._binder.scoped(catalog, lineage)
            place = self._places[key] = Place(catalog, lineage, shard, scoped)
        return place

    def charges(
        self,
        place: Place,
        items: Sequence[Item],
        now_us: int,
        context: EventContext = NO_CONTEXT,
    ) -> tuple[Charge, ...]:
        """Return the charges of a call there. Raises what `Binder.charges` does."""
        if place.scoped:
            return self._binder.charges(place.catalog, place.lineage, items, context, now_us)
        if not place.from_us <= now_us < place.until_us:
            place.charges.clear()
        amounts: _Amounts
        amounts = items[0].amount if len(items) == 1 else tuple([item.amount for item in items])
        found = place.charges.get(amounts)
        if found is None:
            found = self._binder.charges(place.catalog, place.lineage, items, context, now_us)
            self._keep(place, amounts, found, now_us)
        return found

    def _keep(
        self, place: Place, amounts: _Amounts, charges: tuple[Charge, ...], now_us: int
    ) -> None:
        if len(place.charges) >= AMOUNTS_MAX:
            place.charges.clear()
        place.charges[amounts] = charges
        from_us, until_us = self._binder.span(place.catalog, place.lineage, now_us)
        for charge in charges:
            rule = charge.rule
            if isinstance(rule, WindowRule):
                from_us, until_us = max(from_us, rule.starts_us), min(until_us, rule.turns_us)
        place.from_us, place.until_us = from_us, until_us
