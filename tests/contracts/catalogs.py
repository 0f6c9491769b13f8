"""Builders of catalogs and tenants for tests."""

from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Destination,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    Override,
    Plan,
    Tenant,
)
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.window import Calendar, Period

REQUESTS = MeterName("requests")
FREE = PlanName("free")
PRO = PlanName("pro")
ACME = TenantId("acme")
ORG = TenantId("org")
HOOKS = Destination("hooks", "webhook", "https://example.com", ("usage.batch",), "SECRET")


def limit(number: int, limit_id: str = "per-day") -> Limit:
    """Return a window limit on requests."""
    return Limit(
        LimitId(limit_id),
        REQUESTS,
        LimitKind.WINDOW,
        Period.DAY,
        number,
        on_exceed=OnExceed.ALLOW,
        warn_at_ppm=(800_000, 1_000_000),
    )


def catalog(
    version: int = 0,
    *,
    plans: tuple[PlanName, ...] = (FREE, PRO),
    default_plan: PlanName | None = None,
    destinations: tuple[Destination, ...] = (),
) -> Catalog:
    """Return a catalog with one meter, and plans of one limit each."""
    return Catalog(
        version=version,
        meters={REQUESTS: Meter(REQUESTS, Aggregation.COUNT, "request")},
        plans={name: Plan(name, (limit(10 * (place + 1)),)) for place, name in enumerate(plans)},
        default_plan=default_plan,
        destinations=destinations,
    )


def tenant(
    tenant_id: str, plan: PlanName = FREE, *, parent: str = "", override: int | None = None
) -> Tenant:
    """Return a tenant, in Berlin's time."""
    return Tenant(
        tenant_id=TenantId(tenant_id),
        plan=plan,
        calendar=Calendar("Europe/Berlin", 1_706_655_600_000_000),
        currency="EUR",
        stripe_customer_id="cus_1",
        parent=TenantId(parent) if parent else None,
        overrides=() if override is None else (Override(LimitId("per-day"), override),),
    )
