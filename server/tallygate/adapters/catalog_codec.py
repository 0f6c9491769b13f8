"""The compiled catalog: JSON that sidecars read and Postgres keeps.

Guarantees: what is written reads back equal; fields that a later version adds are ignored by this
one, so that old sidecars live with a new control process.
Refuses to know: where snapshots lie.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Final

from tallygate.adapters.envoy_codec import envoy_from_json, envoy_to_json
from tallygate.adapters.event_rules_codec import event_rules_from_json, event_rules_to_json
from tallygate.adapters.price_codec import (
    price_from_json,
    price_to_json,
    terms_from_json,
    terms_to_json,
)
from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Destination,
    LatePolicy,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    OnOutage,
    Override,
    Plan,
    Tenant,
    Weight,
)
from tallygate.domain.envoy import NO_RULES
from tallygate.domain.event_rules import NO_EVENT_RULES
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.price import TERMS
from tallygate.domain.stripe_sync import Mode, Proration, StripeAccount, StripeSync, SyncWindow, Way
from tallygate.domain.window import Billing, BillingKind, Calendar, Period

# JSON is untyped; what is read from it is checked by building the domain's own types.
Json = Mapping[str, Any]

FORMAT: Final = 1


def catalog_to_json(catalog: Catalog) -> bytes:
    """Return the catalog as JSON."""
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": catalog.version,
        "meters": [asdict(meter) for meter in catalog.meters.values()],
        "plans": [_plan_to_json(plan) for plan in catalog.plans.values()],
        "default_plan": catalog.default_plan,
        "destinations": [asdict(destination) for destination in catalog.destinations],
    }
    if catalog.envoy != NO_RULES:
        found["envoy"] = envoy_to_json(catalog.envoy)
    if catalog.ingest != NO_EVENT_RULES:
        found["ingest"] = event_rules_to_json(catalog.ingest)
    return _dump(found)


def catalog_from_json(data: bytes | str) -> Catalog:
    """Return the catalog. Raises ValueError, KeyError or TypeError for what is none."""
    found = _object(json.loads(data))
    meters = [_meter(each) for each in found["meters"]]
    plans = [_plan(each) for each in found["plans"]]
    return Catalog(
        version=int(found["version"]),
        meters={meter.name: meter for meter in meters},
        plans={plan.name: plan for plan in plans},
        default_plan=found.get("default_plan"),
        destinations=tuple(_destination(each) for each in found.get("destinations", ())),
        envoy=envoy_from_json(found.get("envoy")),
        ingest=event_rules_from_json(found.get("ingest")),
    )


def tenant_to_json(tenant: Tenant) -> bytes:
    """Return the tenant as JSON, without what is as usual: there may be millions."""
    usual = asdict(Tenant(tenant.tenant_id, tenant.plan))
    found = _unusual(asdict(tenant), usual, ("tenant_id", "plan"))
    if tenant.calendar.billing is None:
        found.get("calendar", {}).pop("billing", None)
    if tenant.overrides:
        plain = asdict(Override(LimitId(""), 0))
        found["overrides"] = [
            _unusual(asdict(each), plain, ("limit_id", "limit")) for each in tenant.overrides
        ]
    return _dump(found)


def tenant_from_json(data: bytes | str) -> Tenant:
    """Return the tenant. Raises ValueError, KeyError or TypeError for what is none."""
    found = _object(json.loads(data))
    calendar = _object(found.get("calendar", {}))
    usual = Tenant(TenantId(found["tenant_id"]), PlanName(found["plan"]))
    return Tenant(
        tenant_id=usual.tenant_id,
        plan=usual.plan,
        calendar=Calendar(
            calendar.get("time_zone", usual.calendar.time_zone),
            int(calendar.get("anchor_us", usual.calendar.anchor_us)),
            int(calendar.get("fiscal_month", usual.calendar.fiscal_month)),
            _billing(_object(calendar["billing"])) if "billing" in calendar else None,
        ),
        currency=found.get("currency", usual.currency),
        stripe_customer_id=found.get("stripe_customer_id", ""),
        parent=found.get("parent"),
        overrides=tuple(_override(each) for each in found.get("overrides", ())),
        suspended=bool(found.get("suspended", False)),
    )


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise TypeError("is not an object")
    return value


def _unusual(found: Json, usual: Json, always: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in always or value != usual[name]}


def _meter(found: Json) -> Meter:
    return Meter(
        name=MeterName(found["name"]),
        aggregation=Aggregation(found["aggregation"]),
        unit=found.get("unit", ""),
        description=found.get("description", ""),
        late_horizon_us=int(found["late_horizon_us"]),
        weights=tuple(_weight(each) for each in found.get("weights", ())),
        unique_by=found.get("unique_by", ""),
        percentile_ppm=int(found.get("percentile_ppm", 0)),
        group_by=tuple(str(name) for name in found.get("group_by", ())),
        late_policy=LatePolicy(found.get("late_policy", LatePolicy.NEXT_PERIOD)),
        stripe=_sync(found["stripe"]) if found.get("stripe") is not None else None,
    )


def _sync(found: Json) -> StripeSync:
    usual = StripeSync(Way(found["way"]))
    return StripeSync(
        way=usual.way,
        event_name=found.get("event_name", ""),
        since_us=int(found.get("since_us", 0)),
        window=SyncWindow(found.get("window", usual.window)),
        scale=found.get("scale", usual.scale),
        settle_us=int(found.get("settle_us", usual.settle_us)),
        early=bool(found.get("early", False)),
        overwrite=bool(found.get("overwrite", False)),
        v2_stream=bool(found.get("v2_stream", False)),
        dimensions=tuple((str(key), str(name)) for key, name in found.get("dimensions", ())),
        price=found.get("price", ""),
        destination=found.get("destination", ""),
        proration=Proration(found.get("proration", usual.proration)),
    )


def _billing(found: Json) -> Billing:
    return Billing(
        kind=BillingKind(found["kind"]),
        every_us=int(found.get("every_us", 0)),
        starts_us=tuple(int(start) for start in found.get("starts_us", ())),
        grace_us=int(found.get("grace_us", 0)),
    )


def _weight(found: Json) -> Weight:
    return Weight(
        meter=MeterName(found["meter"]),
        units=int(found["units"]),
        by=found.get("by", ""),
        values=tuple((str(value), int(units)) for value, units in found.get("values", ())),
    )


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": plan.name,
        "limits": [asdict(limit) for limit in plan.limits],
        "description": plan.description,
    }
    # Most plans of most sidecars have none: nothing is written of what is not there.
    if plan.prices:
        found["prices"] = [price_to_json(price) for price in plan.prices]
    if plan.terms != TERMS:
        found["terms"] = terms_to_json(plan.terms)
    return found


def _plan(found: Json) -> Plan:
    return Plan(
        name=PlanName(found["name"]),
        limits=tuple(_limit(each) for each in found["limits"]),
        description=found.get("description", ""),
        prices=tuple(price_from_json(each) for each in found.get("prices", ())),
        terms=terms_from_json(found.get("terms", {})),
    )


def _limit(found: Json) -> Limit:
    return Limit(
        limit_id=LimitId(found["limit_id"]),
        meter=MeterName(found["meter"]),
        kind=LimitKind(found["kind"]),
        period=Period(found["period"]) if found["period"] is not None else None,
        limit=int(found["limit"]),
        burst=int(found.get("burst", 0)),
        on_exceed=OnExceed(found.get("on_exceed", OnExceed.REFUSE)),
        warn_at_ppm=tuple(int(ratio) for ratio in found.get("warn_at_ppm", ())),
        duration_us=int(found.get("duration_us", 0)),
        overdraft=int(found.get("overdraft", 0)),
        low_at=tuple(int(units) for units in found.get("low_at", ())),
        per=found.get("per", ""),
        where=tuple((str(key), tuple(values)) for key, values in found.get("where", ())),
        on_outage=OnOutage(found.get("on_outage", OnOutage.REFUSE)),
        local_budget=int(found.get("local_budget", 0)),
        exact=bool(found.get("exact", False)),
    )


def _override(found: Json) -> Override:
    return Override(
        limit_id=LimitId(found["limit_id"]),
        limit=int(found["limit"]),
        burst=int(found.get("burst", 0)),
        expires_at_us=int(found.get("expires_at_us", 0)),
        reason=found.get("reason", ""),
    )


def _destination(found: Json) -> Destination:
    return Destination(
        name=found["name"],
        kind=found["kind"],
        url=found["url"],
        types=tuple(found["types"]),
        secret_env=found.get("secret_env", ""),
        secret_file=found.get("secret_file", ""),
        stripe=_account(found["stripe"]) if found.get("stripe") is not None else None,
    )


def _account(found: Json) -> StripeAccount:
    return StripeAccount(
        mode=Mode(found.get("mode", Mode.SANDBOX)),
        shadow=bool(found.get("shadow", False)),
        account=found.get("account", ""),
        calls_per_s=int(found.get("calls_per_s", 0)),
        reports_env=found.get("reports_env", ""),
        reports_file=found.get("reports_file", ""),
        fees=bool(found.get("fees", False)),
    )


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
