"""catalog ─▶ [ bind ] ─▶ admit: which limits a call meets, with the windows around now.

If we die here, nothing has happened yet.

Guarantees: a call's charges come in the order of the lineage and its plans; a counter is met once
however many items it covers; an override counts until the very instant it expires.
Refuses to know: counters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Limit,
    Override,
    Tenant,
    limits_of,
)
from tallygate.domain.decision import Charge, WindowRule
from tallygate.domain.errors import CounterOverflow, TooManyLimits, UnknownMeter
from tallygate.domain.event import EventContext
from tallygate.domain.ids import AMOUNT_MAX, AccountId, MeterName, PlanName, TenantId, account_of
from tallygate.domain.limit import charge, in_reach
from tallygate.domain.request import LIMITS_MAX, Item
from tallygate.domain.window import Calendar
from tallygate.flow.scope import (
    Scope,
    Weighings,
    matches,
    scope_of,
    value_of,
    weighings_of,
    weight_of,
)

# Tenants that share plan, calendar and overrides share an entry: most of them do.
SHAPES_MAX: Final = 20_000
NEVER_US: Final = 2**63

# What decides a tenant's charges but for its name and the time.
_Shape = tuple[PlanName, Calendar, tuple[Override, ...]]


@dataclass(slots=True)
class _Bound:
    """A limit with a charge that is made anew when its windows have passed.

    Without a scope, it counts all items of its meter in the tenant's own counter.
    """

    limit: Limit
    template: Charge
    scope: Scope | None


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The limits of a shape, as they are from `from_us` to before `until_us`."""

    limits: tuple[_Bound, ...]
    from_us: int
    until_us: int


@dataclass(slots=True)
class _Use:
    """A call's items with the units that each counts as on its own meter, and these per meter."""

    items: list[tuple[Item, int]]
    amounts: dict[MeterName, int]
    context: EventContext


class Binder:
    """Turns a lineage and the items of a call into charges."""

    def __init__(self) -> None:
        self._version = -1
        self._weighings: Weighings = {}
        self._shapes: dict[_Shape, _Bounds] = {}
        # Whether a plan has limits that look at more than amounts.
        self._scoped: dict[PlanName, bool] = {}

    def charges(
        self,
        catalog: Catalog,
        lineage: Sequence[Tenant],
        items: Sequence[Item],
        context: EventContext,
        now_us: int,
    ) -> tuple[Charge, ...]:
        """Return the charges of a call with these items; an amount of 0 is a charge of 0.

        Raises `UnknownMeter` naming the item, `CounterOverflow` and `TooManyLimits`.
        """
        if catalog.version != self._version:
            self._renew(catalog)
        use = _use(catalog, items, context)
        amounts = use.amounts
        charges: list[Charge] = []
        for tenant in lineage:
            # A tenant's own account has its name.
            own = AccountId(tenant.tenant_id)
            for bound in self._bounds(catalog, tenant, now_us).limits:
                scope = bound.scope
                if scope is not None:
                    for account, amount in _accounts(scope, tenant.tenant_id, use):
                        template = _current(bound, own, tenant.calendar, now_us)
                        charges.append(_charged(template, account, amount))
                elif bound.limit.meter in amounts:
                    template = _current(bound, own, tenant.calendar, now_us)
                    charges.append(_charged(template, own, amounts[bound.limit.meter]))
        if len(charges) > LIMITS_MAX:
            raise TooManyLimits(f"{len(charges)} limits apply, at most {LIMITS_MAX} may")
        return tuple(charges)

    def scoped(self, catalog: Catalog, lineage: Sequence[Tenant]) -> bool:
        """Say whether a call's dimensions or context matter to a limit of the lineage, ever."""
        if catalog.version != self._version:
            self._renew(catalog)
        if self._weighings:
            return True
        for tenant in lineage:
            found = self._scoped.get(tenant.plan)
            if found is None:
                plan = catalog.plans.get(tenant.plan)
                limits = plan.limits if plan is not None else ()
                found = any(limit.per or limit.where for limit in limits)
                self._scoped[tenant.plan] = found
            if found:
                return True
        return False

    def span(self, catalog: Catalog, lineage: Sequence[Tenant], now_us: int) -> tuple[int, int]:
        """Return from when to before when the lineage has the limits that it has now."""
        if catalog.version != self._version:
            self._renew(catalog)
        bounds = [self._bounds(catalog, tenant, now_us) for tenant in lineage]
        return max(each.from_us for each in bounds), min(each.until_us for each in bounds)

    def _renew(self, catalog: Catalog) -> None:
        self._version = catalog.version
        self._shapes.clear()
        self._scoped.clear()
        self._weighings = weighings_of(catalog)

    def _bounds(self, catalog: Catalog, tenant: Tenant, now_us: int) -> _Bounds:
        shape = (tenant.plan, tenant.calendar, tenant.overrides)
        found = self._shapes.get(shape)
        if found is None or not found.from_us <= now_us < found.until_us:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = self._shapes[shape] = self._fresh(catalog, tenant, now_us)
        return found

    def _fresh(self, catalog: Catalog, tenant: Tenant, now_us: int) -> _Bounds:
        own = AccountId(tenant.tenant_id)
        ends = [each.expires_at_us for each in tenant.overrides if each.expires_at_us]
        return _Bounds(
            tuple(
                _Bound(
                    limit,
                    charge(limit, own, tenant.calendar, 0, now_us),
                    scope_of(limit, self._weighings),
                )
                for limit in limits_of(catalog, tenant, now_us)
            ),
            # Our time follows the store's, and may be set back over an expiry.
            max((end for end in ends if end <= now_us), default=-NEVER_US),
            min((end for end in ends if end > now_us), default=NEVER_US),
        )


def quota_items(
    catalog: Catalog,
    meters: Sequence[MeterName],
    dimensions: Mapping[str, str] | None = None,
) -> tuple[Item, ...]:
    """Return items of amount 0 that meet the limits of these meters; none given means all.

    Raises `UnknownMeter`.
    """
    for meter in meters:
        if meter not in catalog.meters:
            raise UnknownMeter(f"the catalog has no meter {meter!r}", field="meters")
    asked = dict.fromkeys(meters or catalog.meters)
    return tuple(Item(meter, 0, dimensions or {}) for meter in asked)


def suspended_in(lineage: Sequence[Tenant]) -> TenantId | None:
    """Return the lowest tenant of the lineage that is suspended, None where none is."""
    for tenant in lineage:
        if tenant.suspended:
            return tenant.tenant_id
    return None


def _use(catalog: Catalog, items: Sequence[Item], context: EventContext) -> _Use:
    use = _Use([], {}, context)
    for index, item in enumerate(items):
        meter = catalog.meters.get(item.meter)
        if meter is None:
            raise UnknownMeter(
                f"the catalog has no meter {item.meter!r}", field=f"items[{index}].meter"
            )
        units = item.amount
        if units and meter.aggregation is Aggregation.COUNT:
            units = 1
        use.items.append((item, units))
        use.amounts[item.meter] = use.amounts.get(item.meter, 0) + units
    return use


def _accounts(scope: Scope, tenant_id: TenantId, use: _Use) -> Iterator[tuple[AccountId, int]]:
    """Iterate over the accounts that the items meet, in their order, with the units for each."""
    amounts: dict[str, int] = {}
    for item, units in use.items:
        weight = weight_of(scope, item, use.context)
        if weight is None or not matches(scope, item, use.context):
            continue
        value = value_of(scope.per, item, use.context) if scope.per else ""
        amounts[value] = amounts.get(value, 0) + units * weight
    for value, amount in amounts.items():
        yield account_of(tenant_id, scope.per, value), amount


def _current(bound: _Bound, account: AccountId, of: Calendar, now_us: int) -> Charge:
    rule = bound.template.rule
    # The second window is there for the store's clock: ours must lie in the first.
    if isinstance(rule, WindowRule) and not (in_reach(rule, now_us) and now_us < rule.turns_us):
        bound.template = charge(bound.limit, account, of, 0, now_us)
    return bound.template


def _charged(template: Charge, account: AccountId, amount: int) -> Charge:
    if amount > AMOUNT_MAX:
        raise CounterOverflow(f"the call counts as more than 2^53 - 1 of {template.meter}")
    # Spelt out, as `replace` costs three times as much, and every call comes through here.
    return Charge(
        account=account,
        field=template.field,
        limit_id=template.limit_id,
        meter=template.meter,
        amount=amount,
        limit=template.limit,
        on_exceed=template.on_exceed,
        rule=template.rule,
    )
