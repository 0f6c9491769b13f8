"""The admin service over a real channel: the catalog and usage, as operators meet them."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.domain.ids import MeterName, TenantId
from tallygate.gen.v1 import admin_pb2, catalog_pb2
from tallygate.ports import UsageRow
from tests.api.control import MINUTE, NOW, Control, controlled
from tests.catalog.documents import changed
from tests.sidecar import failure

Code = grpc.StatusCode


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control with the good document applied."""
    async with controlled() as found:
        yield found


async def test_a_document_is_applied_and_shown(control: Control) -> None:
    """Each difference comes with its kind, path and values; the version is the new one."""
    reply = await control.apply(changed("limit: 5_000", "limit: 6_000"))
    (change,) = reply.changes
    assert (change.kind, change.path) == (
        admin_pb2.CHANGE_KIND_CHANGED,
        "plans.free.limits.egress.limit",
    )
    assert (change.before, change.after) == ("5000", "6000")
    assert (reply.version, reply.applied, reply.change_count) == (2, True, 1)


async def test_faults_are_an_answer(control: Control) -> None:
    """A document with faults is answered with all of them, and nothing is applied."""
    text = changed("limit: 5_000", "limit: many").replace("currency: EUR", "currency: EURO")
    reply = await control.apply(text)
    assert [(fault.path, fault.suggestion) for fault in reply.faults] == [
        ("plans.free.limits[1].limit", ""),
        ("tenants.acme.currency", "EUR"),
    ]
    assert all(text.splitlines()[fault.line - 1] for fault in reply.faults)
    assert (reply.version, reply.applied) == (1, False)


async def test_a_dry_run_writes_nothing(control: Control) -> None:
    """A dry run shows what would change."""
    reply = await control.apply(changed("limit: 5_000", "limit: 6_000"), dry_run=True)
    assert (reply.version, reply.applied, reply.change_count) == (1, False, 1)
    assert (await control.store.newest()).version == 1


async def test_a_document_may_take_effect_later(control: Control) -> None:
    """A version with a time to come waits for it."""
    later = Timestamp()
    later.FromMicroseconds(NOW + MINUTE)
    text = changed("limit: 5_000", "limit: 6_000")
    assert (await control.apply(text, effective_at=later)).version == 2
    assert (await control.store.effective(NOW)).version == 1


async def test_another_version_than_expected_is_refused(control: Control) -> None:
    """Who expects another version is told to look again."""
    failed = await failure(control.apply(changed("5_000", "6"), expected_version=7))
    assert (failed.code, failed.reason) == (Code.ABORTED, "CATALOG_CONFLICT")


async def test_an_outage_of_the_store_is_told(control: Control) -> None:
    """Without Postgres, a call says that it may be tried again."""
    control.store.down = True
    failed = await failure(control.stub.ListMeters(admin_pb2.ListMetersRequest()))
    assert (failed.code, failed.reason) == (Code.UNAVAILABLE, "BACKEND_UNAVAILABLE")


async def test_meters_come_back_as_they_went(control: Control) -> None:
    """A meter is applied, read and listed by name."""
    meter = catalog_pb2.Meter(
        name="seats",
        aggregation=catalog_pb2.AGGREGATION_MAX,
        unit="seat",
        description="Seats taken.",
        late_horizon=Duration(seconds=3600),
        late_policy=catalog_pb2.LATE_POLICY_NEXT_PERIOD,
    )
    reply = await control.stub.ApplyMeter(admin_pb2.ApplyMeterRequest(meter=meter))
    assert reply.version == 2
    found = await control.stub.GetMeter(admin_pb2.GetMeterRequest(name="seats"))
    assert found.meter == meter
    listed = await control.stub.ListMeters(admin_pb2.ListMetersRequest())
    assert [each.name for each in listed.meters] == ["egress_bytes", "requests", "seats"]


async def test_plans_come_back_as_they_went(control: Control) -> None:
    """A plan is applied, read and listed by name; what was left to follow is spelt out."""
    plan = catalog_pb2.Plan(
        name="team",
        description="For teams.",
        limits=[
            catalog_pb2.Limit(
                limit_id="egress",
                meter="egress_bytes",
                kind=catalog_pb2.LIMIT_KIND_WINDOW,
                period=catalog_pb2.PERIOD_BILLING_PERIOD,
                limit=2**53 - 1,
                on_exceed=catalog_pb2.ON_EXCEED_SHADOW,
                warn_at=["0.000001", "0.8", "1"],
            ),
            catalog_pb2.Limit(
                limit_id="rate",
                meter="requests",
                kind=catalog_pb2.LIMIT_KIND_RATE,
                period=catalog_pb2.PERIOD_SECOND,
                limit=5,
                on_exceed=catalog_pb2.ON_EXCEED_REFUSE,
            ),
        ],
    )
    await control.stub.ApplyPlan(admin_pb2.ApplyPlanRequest(plan=plan))
    found = (await control.stub.GetPlan(admin_pb2.GetPlanRequest(name="team"))).plan
    plan.limits[0].unlimited = True
    plan.limits[1].burst = 5
    for each in plan.limits:
        each.on_outage = catalog_pb2.ON_OUTAGE_REFUSE
    assert found == plan
    listed = await control.stub.ListPlans(admin_pb2.ListPlansRequest())
    assert [each.name for each in listed.plans] == ["free", "pro", "team"]


async def test_tenants_come_back_as_they_went(control: Control) -> None:
    """A tenant is applied and read, with its calendar, money, parent and overrides."""
    tenant = catalog_pb2.Tenant(
        tenant_id="child",
        plan="pro",
        time_zone="Asia/Tokyo",
        anchor=Timestamp(seconds=1_706_655_600),
        currency="JPY",
        stripe_customer_id="cus_2",
        parent="acme",
        fiscal_month=4,
        suspended=True,
        overrides=[
            catalog_pb2.Override(
                tenant_id="child",
                limit_id="egress",
                limit=7,
                expires_at=Timestamp(seconds=1_800_000_000),
                reason="Launch week.",
            )
        ],
    )
    reply = await control.stub.ApplyTenant(admin_pb2.ApplyTenantRequest(tenant=tenant))
    assert reply.version == 2
    found = await control.stub.GetTenant(admin_pb2.GetTenantRequest(tenant_id="child"))
    assert found.tenant == tenant


async def test_a_tenant_without_an_anchor_has_calendar_months(control: Control) -> None:
    """Without an anchor, periods count from local midnight, as in a document."""
    request = admin_pb2.ApplyTenantRequest(
        tenant=catalog_pb2.Tenant(tenant_id="child", plan="pro", time_zone="Asia/Tokyo")
    )
    await control.stub.ApplyTenant(request)
    found = await control.store.tenant(TenantId("child"))
    assert found is not None
    assert found.calendar.anchor_us == -9 * 60 * MINUTE
    shown = await control.stub.GetTenant(admin_pb2.GetTenantRequest(tenant_id="child"))
    await control.stub.ApplyTenant(admin_pb2.ApplyTenantRequest(tenant=shown.tenant))
    assert await control.store.tenant(TenantId("child")) == found


async def test_overrides_come_back_as_they_went(control: Control) -> None:
    """An override of 0 is a limit; overrides are read and listed."""
    override = catalog_pb2.Override(tenant_id="org", limit_id="egress", limit=0)
    reply = await control.stub.ApplyOverride(admin_pb2.ApplyOverrideRequest(override=override))
    assert reply.version == 2
    found = await control.stub.GetOverride(
        admin_pb2.GetOverrideRequest(tenant_id="org", limit_id="egress")
    )
    assert found.override == override
    listed = await control.stub.ListOverrides(admin_pb2.ListOverridesRequest(tenant_id="org"))
    assert list(listed.overrides) == [override]


async def test_tenants_are_listed_in_pages(control: Control) -> None:
    """Pages follow each other to the end, over all tenants or those of one plan."""
    for plan, names in (("", ["10.0.0.1", "acme", "org"]), ("pro", ["acme", "org"])):
        found: list[str] = []
        token = ""
        while True:
            page = await control.stub.ListTenants(
                admin_pb2.ListTenantsRequest(page_size=1, page_token=token, plan=plan)
            )
            found += [tenant.tenant_id for tenant in page.tenants]
            token = page.next_page_token
            if not token:
                break
        assert found == names


async def test_usage_is_read_in_pages(control: Control) -> None:
    """Rows come in pages, totals with the first; sums may pass what an int64 holds."""
    control.books.rows = [
        UsageRow(TenantId(name), MeterName("requests"), NOW // MINUTE * MINUTE, 1, 2**70, 5, 3)
        for name in ("a", "b", "c")
    ]
    request = admin_pb2.QueryUsageRequest(page_size=2, granularity=admin_pb2.GRANULARITY_MINUTE)
    first = await control.stub.QueryUsage(request)
    assert [(row.tenant_id, row.sum, row.max) for row in first.rows] == [
        ("a", str(2**70), 5),
        ("b", str(2**70), 5),
    ]
    assert first.rows[0].bucket.ToMicroseconds() == NOW // MINUTE * MINUTE
    (total,) = first.totals
    assert (total.tenants, total.sum) == (3, str(3 * 2**70))
    request.page_token = first.next_page_token
    second = await control.stub.QueryUsage(request)
    assert [row.tenant_id for row in second.rows] == ["c"]
    assert (len(second.totals), second.next_page_token) == (0, "")


async def test_usage_is_asked_for_as_said(control: Control) -> None:
    """Tenant, meter, times and buckets reach the books."""
    request = admin_pb2.QueryUsageRequest(
        tenant_id="acme", meter="requests", granularity=admin_pb2.GRANULARITY_HOUR
    )
    getattr(request, "from").FromMicroseconds(MINUTE)
    request.to.FromMicroseconds(NOW // MINUTE * MINUTE)
    await control.stub.QueryUsage(request)
    (asked,) = control.books.asked
    assert (asked.tenant_id, asked.meter, asked.bucket) == ("acme", "requests", "hour")
    assert (asked.from_us, asked.to_us, asked.limit) == (MINUTE, NOW // MINUTE * MINUTE, 101)
