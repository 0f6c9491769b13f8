"""catalog ─▶ [ place ] ─▶ draft: what is the same for all calls of a tenant for the same meters.

If we die here, nothing has happened yet.

Guarantees: what is remembered of a call's charges is what binding it anew would give, now.
Refuses to know: counters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import Charge, WindowRule
from tallygate.domain.event import NO_CONTEXT, EventContext
from tallygate.domain.ids import EventId, MeterName, OperationId, TenantId, shard_of
from tallygate.domain.request import Item
from tallygate.flow.bind import Binder
from tallygate.ports import EventEncoder

# Tenants times the sets of meters that they use together; each takes about a kilobyte.
PLACES_MAX: Final = 20_000
# Most callers ask for the same few amounts again and again.
AMOUNTS_MAX: Final = 8

_Key = tuple[TenantId, MeterName] | tuple[TenantId, tuple[MeterName, ...]]
EventBytes = Callable[[EventId, OperationId], bytes]
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
    # By the amount of the one item, what makes an event's bytes of its ids.
    events: dict[int, EventBytes] = field(default_factory=dict)


class Places:
    """Places by tenant and meters."""

    def __init__(self, binder: Binder, encoder: EventEncoder, shards: int) -> None:
        self._encoder = encoder
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

    def payload(
        self, place: Place, item: Item, event_id: EventId, operation_id: OperationId
    ) -> bytes:
        """Return the bytes of an event of one item, without dimensions and context."""
        make = place.events.get(item.amount)
        if make is None:
            if len(place.events) >= AMOUNTS_MAX:
                place.events.clear()
            tenant_id = place.lineage[0].tenant_id
            make = self._encoder.one_event(tenant_id, item.meter, item.amount)
            place.events[item.amount] = make
        return make(event_id, operation_id)

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
