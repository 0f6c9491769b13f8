"""The segments of a billing period: stretches in which a tenant has the same prices.

Guarantees: segments follow each other without overlap, and no two that touch have the same prices;
where a tenant had no plan there is none.
Refuses to know: usage, and where versions are kept.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Meter,
    Plan,
    Tenant,
    default_tenant,
    limits_of,
)
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Selection
from tallygate.domain.price import TERMS, Price, PriceId, PriceModel, Terms
from tallygate.domain.window import Window

Stated = TypeVar("Stated", Tenant, Catalog)


@dataclass(frozen=True, slots=True)
class Version:
    """What was in effect for a tenant from an instant on; without a tenant, nothing was.

    `catalog` need hold no more than the tenant's plan and the meters of its prices.
    """

    at_us: int
    catalog: Catalog
    tenant: Tenant | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch with one plan at one set of prices. `included` is of a whole period, by price.

    `taken` is how each meter of its prices is taken, of all its usage.
    """

    window: Window
    plan: PlanName
    prices: tuple[Price, ...] = ()
    terms: Terms = TERMS
    included: tuple[tuple[PriceId, int], ...] = ()
    taken: tuple[Selection, ...] = ()
    catalogs: tuple[int, ...] = ()

    def included_in(self, price: Price) -> int:
        """Return the units that a whole period of a price includes."""
        return dict(self.included).get(price.price_id, 0)

    def selection(self, price: Price) -> Selection:
        """Return which usage a price is for."""
        found = {each.meter: each for each in self.taken}.get(price.meter)
        whole = found or Selection(price.meter, Aggregation.SUM)
        return replace(whole, where=price.where, per=price.per)

    def selections(self) -> tuple[Selection, ...]:
        """Return which usage its prices are for, each once."""
        priced = (each for each in self.prices if each.model is not PriceModel.FLAT)
        return tuple(dict.fromkeys(self.selection(each) for each in priced))


def segments(versions: Sequence[Version], period: Window) -> tuple[Segment, ...]:
    """Return the segments of a period under the versions, which are by time."""
    found: list[Segment] = []
    for window, version in _stretches(versions, period):
        segment = segment_of(version, window)
        if segment is None:
            continue
        last = found[-1] if found else None
        if last is not None and _goes_on(last, segment):
            found[-1] = replace(
                last,
                window=Window(last.window.start_us, window.end_us),
                catalogs=tuple(dict.fromkeys((*last.catalogs, *segment.catalogs))),
            )
        else:
            found.append(segment)
    return tuple(found)


def segment_of(version: Version, window: Window) -> Segment | None:
    """Return a stretch under a version, as it is at its start; None where no plan is in effect."""
    tenant = version.tenant
    plan = version.catalog.plans.get(tenant.plan) if tenant is not None else None
    if tenant is None or plan is None:
        return None
    return Segment(
        window=window,
        plan=plan.name,
        prices=plan.prices,
        terms=plan.terms,
        included=tuple(_included(version.catalog, tenant, plan, window.start_us)),
        taken=_taken(version.catalog.meters, plan),
        catalogs=(version.catalog.version,),
    )


def version_at(versions: Sequence[Version], instant_us: int) -> Version | None:
    """Return the version that is in effect at an instant."""
    found = [each for each in versions if each.at_us <= instant_us]
    return found[-1] if found else None


def versions_of(
    tenant_id: TenantId,
    tenants: Sequence[tuple[int, Tenant]],
    catalogs: Sequence[tuple[int, Catalog]],
) -> tuple[Version, ...]:
    """Return what was in effect when, out of both histories, each by time; of equals the last."""
    found: list[Version] = []
    for at_us in sorted({at_us for at_us, _ in (*tenants, *catalogs)}):
        catalog = _last(catalogs, at_us)
        if catalog is not None:
            tenant = _last(tenants, at_us) or default_tenant(catalog, tenant_id)
            found.append(Version(at_us, catalog, tenant))
    return tuple(found)


def _last(history: Sequence[tuple[int, Stated]], at_us: int) -> Stated | None:
    """Return what a history says of an instant."""
    place = bisect_right(history, at_us, key=lambda each: each[0])
    return history[place - 1][1] if place else None


def _stretches(versions: Sequence[Version], period: Window) -> Iterator[tuple[Window, Version]]:
    ends = [version.at_us for version in versions[1:]] + [period.end_us]
    for version, next_us in zip(versions, ends, strict=True):
        start_us = max(version.at_us, period.start_us)
        end_us = min(next_us, period.end_us)
        cuts = {each for each in _expiries(version.tenant) if start_us < each < end_us}
        edges = [start_us, *sorted(cuts), end_us]
        for start, end in pairwise(edges):
            if start < end:
                yield Window(start, end), version


def _expiries(tenant: Tenant | None) -> tuple[int, ...]:
    """Return when a tenant's overrides end: then a limit has its plan's number again."""
    return tuple(each.expires_at_us for each in tenant.overrides) if tenant is not None else ()


def _included(
    catalog: Catalog, tenant: Tenant, plan: Plan, at_us: int
) -> Iterator[tuple[PriceId, int]]:
    limits = {limit.limit_id: limit.limit for limit in limits_of(catalog, tenant, at_us)}
    for price in plan.prices:
        if price.above:
            # The rules of the catalog see to it that there is such a limit.
            yield price.price_id, limits[price.above]
        elif price.included:
            yield price.price_id, price.included


def selection_of(meter: Meter) -> Selection:
    """Return all usage of a meter, as it is taken."""
    levels = meter.aggregation is Aggregation.TIME_WEIGHTED
    return Selection(
        meter.name,
        meter.aggregation,
        unique_by=meter.unique_by,
        percentile_ppm=meter.percentile_ppm,
        series=meter.group_by if levels else (),
    )


def _taken(meters: Mapping[MeterName, Meter], plan: Plan) -> tuple[Selection, ...]:
    priced = dict.fromkeys(price.meter for price in plan.prices)
    return tuple(selection_of(meters[name]) for name in priced if name in meters)


def _goes_on(last: Segment, segment: Segment) -> bool:
    """Say whether a segment is more of the last one: whatever else an author changed."""
    return (
        last.window.end_us == segment.window.start_us
        and replace(segment, window=last.window, catalogs=last.catalogs) == last
    )
