"""The admin service and bad input: each field at fault is named."""

import base64
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.gen.v1 import admin_pb2, catalog_pb2
from tests.api.control import Control, controlled
from tests.catalog.documents import GOOD
from tests.sidecar import failure

Code = grpc.StatusCode


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control with the good document applied."""
    async with controlled() as found:
        yield found


def token(position: object) -> str:
    """Return a page token that somebody made up."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def tenant(**fields: object) -> admin_pb2.ApplyTenantRequest:
    """Return a request to apply a tenant with something wrong."""
    found = {"tenant_id": "acme", "plan": "pro", **fields}
    message = catalog_pb2.Tenant(**found)  # type: ignore[arg-type]
    return admin_pb2.ApplyTenantRequest(tenant=message)


def limit(**fields: object) -> admin_pb2.ApplyPlanRequest:
    """Return a request to apply a plan whose limit has something wrong."""
    found = {
        "limit_id": "l",
        "meter": "requests",
        "kind": catalog_pb2.LIMIT_KIND_WINDOW,
        "period": catalog_pb2.PERIOD_DAY,
        "limit": 1,
        "on_exceed": catalog_pb2.ON_EXCEED_REFUSE,
        **fields,
    }
    limits = [catalog_pb2.Limit(**found)]  # type: ignore[arg-type]
    return admin_pb2.ApplyPlanRequest(plan=catalog_pb2.Plan(name="p", limits=limits))


def meter(**fields: object) -> admin_pb2.ApplyMeterRequest:
    """Return a request to apply a meter with something wrong."""
    found = {"name": "m", "aggregation": catalog_pb2.AGGREGATION_SUM, **fields}
    return admin_pb2.ApplyMeterRequest(meter=catalog_pb2.Meter(**found))  # type: ignore[arg-type]


def tenants(**fields: object) -> admin_pb2.ListTenantsRequest:
    """Return a request to list tenants."""
    return admin_pb2.ListTenantsRequest(**fields)  # type: ignore[arg-type]


def usage(**fields: object) -> admin_pb2.QueryUsageRequest:
    """Return a request to read usage."""
    return admin_pb2.QueryUsageRequest(**fields)  # type: ignore[arg-type]


FAR = Timestamp(seconds=2**62)
BAD = [
    (tenants(page_size=-1), "page_size"),
    (tenants(page_size=1_001), "page_size"),
    (tenants(page_token="?"), "page_token"),
    (tenants(page_token="é"), "page_token"),
    (tenants(page_token=token([1])), "page_token"),
    (tenants(page_token=token(["a\0"])), "page_token"),
    (tenants(page_token=token(["\ud800"])), "page_token"),
    (tenants(page_token=token(["a", "b", 1])), "page_token"),
    (tenants(page_token=base64.urlsafe_b64encode(b"[" * 3_000).decode()), "page_token"),
    (tenants(page_token=base64.urlsafe_b64encode(b"[" * 100_000).decode()), "page_token"),
    (tenants(plan="a\0"), "plan"),
    (usage(page_size=10_001), "page_size"),
    (usage(granularity=99), "granularity"),
    (usage(tenant_id="a b"), "tenant_id"),
    (usage(meter="a\0"), "meter"),
    (usage(to=Timestamp(seconds=61)), "to"),
    (usage(to=FAR), "to"),
    (usage(to=Timestamp(seconds=-60)), "to"),
    (usage(page_token=token(["a", "b", "c"])), "page_token"),
    (usage(page_token=token(["a", "b", 2**80])), "page_token"),
    (usage(page_token=token(["a", "b", True])), "page_token"),
    (usage(page_token=token(["a", "\0", 1])), "page_token"),
    (admin_pb2.ApplyCatalogRequest(document=GOOD, effective_at=Timestamp(seconds=1)),
     "effective_at"),
    (admin_pb2.ApplyCatalogRequest(document=GOOD, effective_at=FAR), "effective_at"),
    (admin_pb2.GetTenantRequest(), "tenant_id"),
    (admin_pb2.ListOverridesRequest(tenant_id="a\0"), "tenant_id"),
    (admin_pb2.ApplyMeterRequest(), "meter.name"),
    (meter(name="A b"), "meter.name"),
    (meter(aggregation=0), "meter.aggregation"),
    (meter(aggregation=99), "meter.aggregation"),
    (meter(unit="a\0"), "meter.unit"),
    (meter(description="x" * 1_025), "meter.description"),
    (meter(late_horizon=Duration(seconds=0)), "meter.late_horizon"),
    (meter(late_horizon=Duration(seconds=2**62)), "meter.late_horizon"),
    (limit(limit_id=""), "plan.limits[0].limit_id"),
    (limit(kind=0), "plan.limits[0].kind"),
    (limit(period=0), "plan.limits[0].period"),
    (limit(on_exceed=0), "plan.limits[0].on_exceed"),
    (limit(warn_at=["nan"]), "plan.limits[0].warn_at"),
    (limit(warn_at=["1e400"]), "plan.limits[0].warn_at"),
    (limit(warn_at=["x"]), "plan.limits[0].warn_at"),
    (limit(warn_at=["1e999999999"]), "plan.limits[0].warn_at"),
    (limit(warn_at=["0.1234567"]), "plan.limits[0].warn_at"),
    (limit(warn_at=["2"]), "plans.p.limits[0].warn_at"),
    (limit(limit=-1), "plans.p.limits[0].limit"),
    (limit(limit=2**63 - 1), "plans.p.limits[0].limit"),
    (limit(meter="nope"), "plans.p.limits[0].meter"),
    (limit(kind=catalog_pb2.LIMIT_KIND_RATE, burst=-1), "plans.p.limits[0].burst"),
    (limit(duration=Duration(seconds=60)), "plans.p.limits[0].duration"),
    (limit(overdraft=1), "plans.p.limits[0].overdraft"),
    (limit(low_at=[1]), "plans.p.limits[0].low_at"),
    (limit(local_budget=5), "plans.p.limits[0].on_outage"),
    (limit(on_outage=catalog_pb2.ON_OUTAGE_LOCAL_BUDGET), "plans.p.limits[0].on_outage"),
    (limit(per="a=b"), "plans.p.limits[0].per"),
    (limit(where={"model": catalog_pb2.DimensionValues()}), "plans.p.limits[0].where.model"),
    (limit(kind=catalog_pb2.LIMIT_KIND_CONCURRENCY), "plans.p.limits[0].period"),
    (meter(weights=[catalog_pb2.Weight(meter="nope", units=1)]), "meters.m.weights.nope"),
    (
        meter(weights=[catalog_pb2.Weight(meter="requests", units=-1)]),
        "meters.m.weights.requests.units",
    ),
    (meter(weights=[catalog_pb2.Weight(meter="requests")] * 2), "meters.m.weights.requests"),
    (tenant(fiscal_month=13), "tenants.acme.fiscal_month"),
    (
        tenant(overrides=[catalog_pb2.Override(limit_id="egress")] * 2),
        "tenants.acme.overrides.egress",
    ),
    (tenant(tenant_id=""), "tenant.tenant_id"),
    (tenant(plan=""), "tenant.plan"),
    (tenant(parent="a b"), "tenant.parent"),
    (tenant(parent="acme"), "tenants.acme.parent"),
    (tenant(stripe_customer_id="\0"), "tenant.stripe_customer_id"),
    (tenant(anchor=FAR), "tenant.anchor"),
    (tenant(time_zone="Mars/Olympus"), "tenants.acme.time_zone"),
    (tenant(time_zone="/etc/passwd\0"), "tenants.acme.time_zone"),
    (tenant(currency="\0"), "tenants.acme.currency"),
    (tenant(overrides=[catalog_pb2.Override()]), "tenant.overrides[0].limit_id"),
    (admin_pb2.ApplyOverrideRequest(), "override.tenant_id"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        pytest.param(*row, id=f"{type(row[0]).__name__}-{row[1]}-{place}")
        for place, row in enumerate(BAD)
    ],
)
async def test_bad_input_is_refused_by_field(
    control: Control, request_: Message, path: str
) -> None:
    """What cannot be meant is refused, its field named."""
    failed = await failure(control.call(request_))
    assert (failed.code, list(failed.fields)[:1]) == (Code.INVALID_ARGUMENT, [path]), failed
    assert failed.reason in ("INVALID_FIELD", "CATALOG_INVALID")


ABSENT = [
    (admin_pb2.GetMeterRequest(name="nope"), "name"),
    (admin_pb2.GetPlanRequest(name="nope"), "name"),
    (admin_pb2.GetTenantRequest(tenant_id="nope"), "tenant_id"),
    (admin_pb2.ListOverridesRequest(tenant_id="nope"), "tenant_id"),
    (admin_pb2.GetOverrideRequest(tenant_id="nope", limit_id="egress"), "tenant_id"),
    (admin_pb2.GetOverrideRequest(tenant_id="org", limit_id="egress"), "limit_id"),
    (
        admin_pb2.ApplyOverrideRequest(
            override=catalog_pb2.Override(tenant_id="nope", limit_id="egress", limit=1)
        ),
        "override.tenant_id",
    ),
]


@pytest.mark.parametrize(
    ("request_", "path"), [pytest.param(*row, id=type(row[0]).__name__ + row[1]) for row in ABSENT]
)
async def test_what_is_not_there_is_not_found(
    control: Control, request_: Message, path: str
) -> None:
    """What is asked for by name and is not there is not found, the field named."""
    failed = await failure(control.call(request_))
    assert (failed.code, failed.reason, failed.fields) == (Code.NOT_FOUND, "NOT_FOUND", [path])
