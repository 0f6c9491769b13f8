"""What must hold of a catalog as a whole, whatever it was read from.

Guarantees: every fault is found, with its path and, for a misspelt reference, a guess.
Refuses to know: documents and lines; those are added by whoever read one.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from zoneinfo import ZoneInfoNotFoundError

from tallygate.domain.catalog import (
    LINEAGE_MAX,
    PPM,
    THRESHOLDS_MAX,
    Aggregation,
    Catalog,
    Limit,
    LimitKind,
    Override,
    Plan,
    Tenant,
    limits_of,
)
from tallygate.domain.currency import CURRENCIES
from tallygate.domain.ids import AMOUNT_MAX, TenantId, is_name
from tallygate.domain.limit import BRIM_MAX, RATE_PERIODS_US, rate_rule
from tallygate.domain.request import LIMITS_MAX
from tallygate.domain.window import zone_of

# Each guess compares with every known word: among many tenants it would take minutes.
GUESSED_AMONG_MAX: Final = 1_000

_LIMITED: Final = (Aggregation.SUM, Aggregation.COUNT)


@dataclass(frozen=True, slots=True)
class PathFault:
    """One fault: where, what is wrong, and what may have been meant."""

    path: str
    message: str
    suggestion: str = ""


def closest(value: str, known: Collection[str]) -> str:
    """Return which of the known words, if not too many, `value` may have meant; empty for none."""
    if len(known) > GUESSED_AMONG_MAX:
        return ""
    found = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    return found[0] if found else ""


def catalog_faults(catalog: Catalog) -> Iterator[PathFault]:
    """Iterate over the faults of meters, plans and the default plan."""
    for name in catalog.meters:
        if not is_name(name):
            yield PathFault(f"meters.{name}", "is not a name: a-z, 0-9, '_', '.', '-'")
    for plan in catalog.plans.values():
        yield from plan_faults(catalog, plan)
    yield from _meter_faults(catalog)
    if catalog.default_plan is not None and catalog.default_plan not in catalog.plans:
        yield _unknown("default_plan", "plan", catalog.default_plan, catalog.plans)


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
        yield from _limit_faults(catalog, limit, at)
    if len(plan.limits) > LIMITS_MAX:
        yield PathFault(f"{path}.limits", f"holds more than {LIMITS_MAX} limits")


def tenant_faults(
    catalog: Catalog, tenants: Sequence[Tenant], others: Mapping[TenantId, Tenant]
) -> Iterator[PathFault]:
    """Iterate over the faults of tenants. `others` holds what else their lineages need."""
    known = {**others, **{tenant.tenant_id: tenant for tenant in tenants}}
    for tenant in tenants:
        path = f"tenants.{tenant.tenant_id}"
        if tenant.plan not in catalog.plans:
            yield _unknown(f"{path}.plan", "plan", tenant.plan, catalog.plans)
        try:
            zone_of(tenant.calendar.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield PathFault(
                f"{path}.time_zone", f"{tenant.calendar.time_zone!r} is not an IANA time zone"
            )
        if tenant.currency not in CURRENCIES:
            yield PathFault(
                f"{path}.currency",
                f"{tenant.currency!r} is not an ISO 4217 code",
                closest(tenant.currency.upper(), CURRENCIES),
            )
        yield from _lineage_faults(catalog, tenant, known)
        yield from _override_faults(catalog, tenant)


def _meter_faults(catalog: Catalog) -> Iterator[PathFault]:
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


def _limit_faults(catalog: Catalog, limit: Limit, path: str) -> Iterator[PathFault]:
    if not is_name(limit.limit_id):
        yield PathFault(f"{path}.id", "is not a name: a-z, 0-9, '_', '.', '-'")
    meter = catalog.meters.get(limit.meter)
    if meter is None:
        yield _unknown(f"{path}.meter", "meter", limit.meter, catalog.meters)
    elif meter.aggregation not in _LIMITED:
        yield PathFault(
            f"{path}.meter",
            f"a limit needs a meter that adds up, {limit.meter} takes the {meter.aggregation}",
        )
    if not 0 <= limit.limit <= AMOUNT_MAX:
        yield PathFault(f"{path}.limit", f"must be from 0 to {AMOUNT_MAX}")
    elif limit.kind is LimitKind.RATE:
        yield from _rate_faults(limit, path)
    elif limit.burst:
        yield PathFault(f"{path}.burst", "is for limits of kind rate")
    yield from _warning_faults(limit, path)


def _rate_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    if limit.period not in RATE_PERIODS_US:
        periods = ", ".join(RATE_PERIODS_US)
        yield PathFault(f"{path}.period", f"of a rate must be one of {periods}")
    elif limit.limit < 1:
        yield PathFault(f"{path}.limit", "of a rate must be at least 1")
    elif limit.burst < 1:
        yield PathFault(f"{path}.burst", "must be at least 1")
    elif limit.burst * rate_rule(limit).weight > BRIM_MAX:
        yield PathFault(f"{path}.burst", "is too large to be counted exactly at this rate")


def _warning_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    ratios = limit.warn_at_ppm
    if ratios and limit.kind is LimitKind.RATE:
        yield PathFault(f"{path}.warn_at", "is for limits of kind window")
    if any(not 0 < ratio <= PPM for ratio in ratios):
        yield PathFault(f"{path}.warn_at", "holds a ratio that is not above 0 and at most 1")
    if list(ratios) != sorted(set(ratios)):
        yield PathFault(f"{path}.warn_at", "must rise")
    if len(ratios) > THRESHOLDS_MAX:
        yield PathFault(f"{path}.warn_at", f"holds more than {THRESHOLDS_MAX} ratios")


def _lineage_faults(
    catalog: Catalog, tenant: Tenant, known: Mapping[TenantId, Tenant]
) -> Iterator[PathFault]:
    path = f"tenants.{tenant.tenant_id}.parent"
    lineage = [tenant]
    while (parent := lineage[-1].parent) is not None:
        if parent not in known:
            # A missing parent higher up is that tenant's own fault.
            if len(lineage) == 1:
                yield _unknown(path, "tenant", parent, known)
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
    for override in tenant.overrides:
        path = f"tenants.{tenant.tenant_id}.overrides.{override.limit_id}"
        limit = limits.get(override.limit_id)
        if limit is None:
            yield _unknown(path, f"limit of plan {tenant.plan}", override.limit_id, limits)
            continue
        yield from _override_number_faults(limit, override, path)


def _override_number_faults(limit: Limit, override: Override, path: str) -> Iterator[PathFault]:
    if not 0 <= override.limit <= AMOUNT_MAX:
        yield PathFault(f"{path}.limit", f"must be from 0 to {AMOUNT_MAX}")
        return
    if not 0 <= override.burst <= AMOUNT_MAX:
        yield PathFault(f"{path}.burst", f"must be from 1 to {AMOUNT_MAX}")
        return
    if limit.kind is not LimitKind.RATE:
        if override.burst:
            yield PathFault(f"{path}.burst", "is for limits of kind rate")
        return
    changed = replace(limit, limit=override.limit, burst=override.burst or limit.burst)
    if limit.period in RATE_PERIODS_US and changed.burst * rate_rule(changed).weight > BRIM_MAX:
        yield PathFault(path, "is too large to be counted exactly at this rate")


def _unknown(path: str, kind: str, name: str, known: Collection[str]) -> PathFault:
    return PathFault(path, f"there is no {kind} {name!r}", closest(name, known))
