"""What must hold of a catalog as a whole, whatever it was read from.

Guarantees: every fault is found, with its path and, for a misspelt reference, a guess.
Refuses to know: documents and lines; those are added by whoever read one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from zoneinfo import ZoneInfoNotFoundError

from tallygate.domain.billing_rules import billing_faults
from tallygate.domain.catalog import (
    LINEAGE_MAX,
    PPM,
    Aggregation,
    Catalog,
    Meter,
    Plan,
    Tenant,
    Weight,
    limits_of,
)
from tallygate.domain.currency import CURRENCIES
from tallygate.domain.envoy_rules import envoy_faults
from tallygate.domain.event import DIMENSION_VALUE_LENGTH_MAX
from tallygate.domain.event_rules import rules_faults
from tallygate.domain.ids import AMOUNT_MAX, MeterName, TenantId, is_name
from tallygate.domain.limit_rules import (
    ADDING,
    is_key,
    key_message,
    limit_faults,
    override_faults,
)
from tallygate.domain.path_fault import PathFault, closest, unknown
from tallygate.domain.price_rules import prices_faults
from tallygate.domain.request import LIMITS_MAX
from tallygate.domain.stripe_rules import stripe_faults
from tallygate.domain.window import zone_of

# A rate card: so many meters, and of each so many skus. All of it is in every sidecar's memory.
WEIGHTS_MAX: Final = 64
WEIGHT_VALUES_MAX: Final = 1_000
# Groups multiply: each name more has every minute's rollup divided once more.
GROUP_NAMES_MAX: Final = 4


def catalog_faults(catalog: Catalog) -> Iterator[PathFault]:
    """Iterate over the faults of all but tenants."""
    for meter in catalog.meters.values():
        yield from meter_faults(catalog, meter)
    for plan in catalog.plans.values():
        yield from plan_faults(catalog, plan)
    yield from _identity_faults(catalog)
    yield from stripe_faults(catalog)
    yield from envoy_faults(catalog)
    for path, message in rules_faults(catalog.ingest, catalog.meters):
        yield PathFault(path, message)
    if catalog.default_plan is not None and catalog.default_plan not in catalog.plans:
        yield unknown("default_plan", "plan", catalog.default_plan, catalog.plans)


def meter_faults(catalog: Catalog, meter: Meter) -> Iterator[PathFault]:
    """Iterate over the faults of one meter."""
    path = f"meters.{meter.name}"
    if not is_name(meter.name):
        yield PathFault(path, "is not a name: a-z, 0-9, '_', '.', '-'")
    yield from _shape_faults(meter, path)
    if not meter.weights:
        return
    if meter.aggregation not in ADDING:
        message = f"needs a meter that adds up, {meter.name} takes the {meter.aggregation}"
        yield PathFault(f"{path}.weights", message)
    if len(meter.weights) > WEIGHTS_MAX:
        yield PathFault(f"{path}.weights", f"holds more than {WEIGHTS_MAX} meters")
    seen: set[str] = set()
    for weight in meter.weights:
        at = f"{path}.weights.{weight.meter}"
        if weight.meter in seen:
            yield PathFault(at, "is there twice")
        seen.add(weight.meter)
        yield from _source_faults(catalog, meter, weight.meter, at)
        yield from _weight_faults(weight, at)


def plan_faults(catalog: Catalog, plan: Plan) -> Iterator[PathFault]:
    """Iterate over the faults of one plan."""
    path = f"plans.{plan.name}"
    if not is_name(plan.name):
        yield PathFault(path, "is not a name: a-z, 0-9, '_', '.', '-'")
    seen: set[str] = set()
    for index, limit in enumerate(plan.limits):
        at = f"{path}.limits[{index}]"
        if limit.limit_id in seen:
            yield PathFault(f"{at}.id", f"{limit.limit_id} is there twice in this plan")
        seen.add(limit.limit_id)
        yield from limit_faults(limit, catalog.meters, at)
    if len(plan.limits) > LIMITS_MAX:
        yield PathFault(f"{path}.limits", f"holds more than {LIMITS_MAX} limits")
    yield from prices_faults(plan, catalog.meters, path)


def tenant_faults(
    catalog: Catalog, tenants: Sequence[Tenant], others: Mapping[TenantId, Tenant]
) -> Iterator[PathFault]:
    """Iterate over the faults of tenants. `others` holds what else their lineages need."""
    known = {**others, **{tenant.tenant_id: tenant for tenant in tenants}}
    for tenant in tenants:
        path = f"tenants.{tenant.tenant_id}"
        if tenant.plan not in catalog.plans:
            yield unknown(f"{path}.plan", "plan", tenant.plan, catalog.plans)
        try:
            zone_of(tenant.calendar.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield PathFault(
                f"{path}.time_zone", f"{tenant.calendar.time_zone!r} is not an IANA time zone"
            )
        if not 1 <= tenant.calendar.fiscal_month <= 12:
            yield PathFault(f"{path}.fiscal_month", "must be a month, from 1 to 12")
        yield from billing_faults(tenant, path)
        if tenant.currency not in CURRENCIES:
            yield PathFault(
                f"{path}.currency",
                f"{tenant.currency!r} is not an ISO 4217 code",
                closest(tenant.currency.upper(), CURRENCIES),
            )
        yield from _lineage_faults(catalog, tenant, known)
        yield from _override_faults(catalog, tenant)


def _shape_faults(meter: Meter, path: str) -> Iterator[PathFault]:
    """Iterate over the faults of what makes rollups of their own."""
    for field, value, of in (
        ("unique_by", meter.unique_by, Aggregation.UNIQUE),
        ("percentile", meter.percentile_ppm, Aggregation.PERCENTILE),
    ):
        if value and meter.aggregation is not of:
            yield PathFault(f"{path}.{field}", f"is for meters of aggregation {of}")
        elif not value and meter.aggregation is of:
            yield PathFault(f"{path}.{field}", f"is required: the aggregation is {of}")
    if meter.unique_by and not is_key(meter.unique_by):
        yield PathFault(f"{path}.unique_by", key_message())
    if not 0 <= meter.percentile_ppm <= PPM:
        yield PathFault(f"{path}.percentile", "must be above 0 and at most 100")
    if len(meter.group_by) > GROUP_NAMES_MAX:
        yield PathFault(f"{path}.group_by", f"holds more than {GROUP_NAMES_MAX} names")
    for index, name in enumerate(meter.group_by):
        if not is_key(name):
            yield PathFault(f"{path}.group_by[{index}]", key_message())
        elif name in meter.group_by[:index]:
            yield PathFault(f"{path}.group_by[{index}]", f"{name} is there twice")


def _source_faults(
    catalog: Catalog, meter: Meter, name: MeterName, path: str
) -> Iterator[PathFault]:
    """A source has no weights itself: what an item counts as is found in one step."""
    source = catalog.meters.get(name)
    if source is None:
        yield unknown(path, "meter", name, catalog.meters)
    elif name == meter.name:
        yield PathFault(path, "a meter cannot weigh itself: its own units count as they are")
    elif source.aggregation not in ADDING:
        yield PathFault(path, f"must add up, {name} takes the {source.aggregation}")
    elif source.weights:
        yield PathFault(path, f"{name} has weights itself: name the meters it weighs instead")


def _weight_faults(weight: Weight, path: str) -> Iterator[PathFault]:
    if not 0 <= weight.units <= AMOUNT_MAX:
        yield PathFault(f"{path}.units", f"must be from 0 to {AMOUNT_MAX}")
    if weight.by and not is_key(weight.by):
        yield PathFault(f"{path}.by", key_message())
    if weight.by and not weight.values:
        yield PathFault(f"{path}.values", "is required with `by`")
    if weight.values and not weight.by:
        yield PathFault(f"{path}.by", "is required with `values`: whose values they are")
    if len(weight.values) > WEIGHT_VALUES_MAX:
        yield PathFault(f"{path}.values", f"holds more than {WEIGHT_VALUES_MAX} values")
    for value, units in weight.values:
        at = f"{path}.values.{value}"
        if len(value) > DIMENSION_VALUE_LENGTH_MAX:
            yield PathFault(at, f"must be at most {DIMENSION_VALUE_LENGTH_MAX} characters")
        if not 0 <= units <= AMOUNT_MAX:
            yield PathFault(at, f"must be from 0 to {AMOUNT_MAX}")


def _identity_faults(catalog: Catalog) -> Iterator[PathFault]:
    """A limit's usage is kept when its tenant changes plans, so it must stay of one meter."""
    metered: dict[str, tuple[str, str]] = {}
    for plan in catalog.plans.values():
        for index, limit in enumerate(plan.limits):
            meter, first = metered.setdefault(limit.limit_id, (limit.meter, plan.name))
            if meter != limit.meter and first != plan.name:
                yield PathFault(
                    f"plans.{plan.name}.limits[{index}].meter",
                    f"is {limit.meter}, but {limit.limit_id} of plan {first} limits {meter}",
                )


def _lineage_faults(
    catalog: Catalog, tenant: Tenant, known: Mapping[TenantId, Tenant]
) -> Iterator[PathFault]:
    path = f"tenants.{tenant.tenant_id}.parent"
    lineage = [tenant]
    while (parent := lineage[-1].parent) is not None:
        if parent not in known:
            # A missing parent higher up is that tenant's own fault.
            if len(lineage) == 1:
                yield unknown(path, "tenant", parent, known)
            return
        if any(parent == member.tenant_id for member in lineage):
            yield PathFault(path, f"makes a circle over {parent}")
            return
        lineage.append(known[parent])
        if len(lineage) > LINEAGE_MAX:
            yield PathFault(path, f"makes a lineage of more than {LINEAGE_MAX} tenants")
            return
    limits = sum(len(limits_of(catalog, member)) for member in lineage)
    if limits > LIMITS_MAX:
        yield PathFault(path, f"makes {limits} limits apply at once, at most {LIMITS_MAX} may")


def _override_faults(catalog: Catalog, tenant: Tenant) -> Iterator[PathFault]:
    plan = catalog.plans.get(tenant.plan)
    if plan is None:
        return
    limits = {limit.limit_id: limit for limit in plan.limits}
    seen: set[str] = set()
    for override in tenant.overrides:
        path = f"tenants.{tenant.tenant_id}.overrides.{override.limit_id}"
        if override.limit_id in seen:
            yield PathFault(path, "is there twice")
        seen.add(override.limit_id)
        limit = limits.get(override.limit_id)
        if limit is None:
            yield unknown(path, f"limit of plan {tenant.plan}", override.limit_id, limits)
        else:
            yield from override_faults(limit, override, path)
