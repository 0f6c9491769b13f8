"""catalog ─▶ [ bind ] ─▶ admit: which limits a call meets, with the windows around now.

If we die here, nothing has happened yet.

Guarantees: a call's charges come in the order of the lineage and its plans; a limit is met once
however many items it covers.
Refuses to know: counters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog, Limit, Override, Tenant, limits_of
from tallygate.domain.decision import Charge, WindowRule
from tallygate.domain.errors import TooManyLimits, UnknownMeter
from tallygate.domain.ids import MeterName, PlanName
from tallygate.domain.limit import charge, in_reach
from tallygate.domain.request import LIMITS_MAX, Item
from tallygate.domain.window import Calendar

# Tenants that share plan, calendar and overrides share an entry: most of them do.
SHAPES_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Shape:
    """What decides a tenant's charges but for its name and the time."""

    plan: PlanName
    calendar: Calendar
    overrides: tuple[Override, ...]


@dataclass(slots=True)
class _Bound:
    """A limit with a charge that is made anew when its windows have passed."""

    limit: Limit
    template: Charge


class Binder:
    """Turns a lineage and amounts per meter into charges."""

    def __init__(self) -> None:
        self._version = -1
        self._shapes: dict[_Shape, tuple[_Bound, ...]] = {}

    def charges(
        self,
        catalog: Catalog,
        lineage: Sequence[Tenant],
        amounts: Mapping[MeterName, int],
        now_us: int,
    ) -> tuple[Charge, ...]:
        """Return the charges of a call that uses `amounts`, in units by meter.

        Raises `TooManyLimits`.
        """
        if catalog.version != self._version:
            self._version = catalog.version
            self._shapes.clear()
        charges = [
            _for_tenant(self._current(bound, tenant, now_us), tenant, amounts[bound.limit.meter])
            for tenant in lineage
            for bound in self._bounds(catalog, tenant, now_us)
            if bound.limit.meter in amounts
        ]
        if len(charges) > LIMITS_MAX:
            raise TooManyLimits(f"{len(charges)} limits apply, at most {LIMITS_MAX} may")
        return tuple(charges)

    def _bounds(self, catalog: Catalog, tenant: Tenant, now_us: int) -> tuple[_Bound, ...]:
        shape = _Shape(tenant.plan, tenant.calendar, tenant.overrides)
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = self._shapes[shape] = tuple(
                _Bound(limit, charge(limit, tenant.tenant_id, tenant.calendar, 0, now_us))
                for limit in limits_of(catalog, tenant)
            )
        return found

    def _current(self, bound: _Bound, tenant: Tenant, now_us: int) -> Charge:
        rule = bound.template.rule
        # The second window is there for the store's clock: ours must lie in the first.
        if isinstance(rule, WindowRule) and not (in_reach(rule, now_us) and now_us < rule.turns_us):
            bound.template = charge(bound.limit, tenant.tenant_id, tenant.calendar, 0, now_us)
        return bound.template


def _for_tenant(template: Charge, tenant: Tenant, amount: int) -> Charge:
    # Spelt out, as `replace` costs three times as much, and every call comes through here.
    return Charge(
        account=tenant.tenant_id,
        field=template.field,
        limit_id=template.limit_id,
        meter=template.meter,
        amount=amount,
        limit=template.limit,
        on_exceed=template.on_exceed,
        rule=template.rule,
    )


def amounts_by_meter(catalog: Catalog, items: Sequence[Item]) -> dict[MeterName, int]:
    """Return what the items weigh against limits: a counting meter counts items, not amounts.

    Raises `UnknownMeter` naming the item.
    """
    amounts: dict[MeterName, int] = {}
    for index, item in enumerate(items):
        meter = catalog.meters.get(item.meter)
        if meter is None:
            raise UnknownMeter(
                f"the catalog has no meter {item.meter!r}", field=f"items[{index}].meter"
            )
        units = 1 if meter.aggregation is Aggregation.COUNT else item.amount
        amounts[item.meter] = amounts.get(item.meter, 0) + units
    return amounts
