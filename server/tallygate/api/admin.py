"""The AdminService: the catalog and usage, for operators and finance.

Guarantees: lists come in pages; a page token is checked like any other input.
Refuses to know: rules, storage, and how errors are told.
"""

from dataclasses import dataclass
from typing import Any, Final

import grpc

from tallygate.api import convert_catalog as convert
from tallygate.api import convert_times as times
from tallygate.api.admin_credits import CreditCalls
from tallygate.api.admin_invoices import InvoiceCalls
from tallygate.api.admin_periods import PeriodCalls
from tallygate.api.admin_usage import UsageCalls
from tallygate.api.paging import decoded, encoded, foreign_token, name, page_size
from tallygate.domain import ids
from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import CatalogInvalid, InvalidField, NotFound
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.window import MINUTE_US
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.grant import Granting
from tallygate.flow.invoice import Invoicing
from tallygate.flow.period_orders import PeriodOrders
from tallygate.flow.reset import Resetting
from tallygate.flow.usage_windows import UsageWindows
from tallygate.gen.v1 import admin_pb2
from tallygate.ports import CatalogStore, UsageQuery, UsageReader, UsageRow

Context = grpc.aio.ServicerContext

TENANTS_PAGE_MAX: Final = 1_000
USAGE_PAGE_MAX: Final = 10_000
_BUCKETS: Final = {
    admin_pb2.GRANULARITY_UNSPECIFIED: "total",
    admin_pb2.GRANULARITY_TOTAL: "total",
    admin_pb2.GRANULARITY_DAY: "day",
    admin_pb2.GRANULARITY_HOUR: "hour",
    admin_pb2.GRANULARITY_MINUTE: "minute",
}


@dataclass(frozen=True, slots=True)
class AdminParts:
    """What the service works with."""

    apply: Apply
    store: CatalogStore
    usage: UsageReader
    windows: UsageWindows
    granting: Granting
    resetting: Resetting
    periods: PeriodOrders
    invoicing: Invoicing


class AdminServicer(PeriodCalls, InvoiceCalls, CreditCalls, UsageCalls):
    """Converts, asks the catalog's store or the rollups, converts back."""

    def __init__(self, parts: AdminParts) -> None:
        CreditCalls.__init__(self, parts.granting, parts.resetting)
        UsageCalls.__init__(self, parts.windows)
        self._orders = parts.periods
        self._invoicing = parts.invoicing
        self._apply = parts.apply
        self._store = parts.store
        self._usage = parts.usage

    async def ApplyCatalog(  # noqa: N802  the name is the proto's
        self, request: admin_pb2.ApplyCatalogRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ApplyCatalogResponse:
        """Validate a document, show what it would change, and apply it."""
        effective_at_us = 0
        if request.HasField("effective_at"):
            effective_at_us = times.instant_us(request.effective_at, "effective_at")
        options = ApplyOptions(request.dry_run, effective_at_us, request.expected_version)
        try:
            applied = await self._apply.document(request.document, options)
        except CatalogInvalid as error:
            newest = await self._store.newest()
            response = admin_pb2.ApplyCatalogResponse(version=newest.version)
            for fault in error.faults:
                response.faults.add(
                    line=fault.line,
                    path=fault.path,
                    message=fault.message,
                    suggestion=fault.suggestion,
                )
            return response
        return admin_pb2.ApplyCatalogResponse(
            changes=[convert.change_message(change) for change in applied.changes],
            version=applied.version,
            applied=applied.applied,
            change_count=applied.change_count,
        )

    async def GetMeter(  # noqa: N802
        self, request: admin_pb2.GetMeterRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.GetMeterResponse:
        """Read one meter."""
        meter = (await self._store.newest()).meters.get(MeterName(request.name))
        if meter is None:
            raise NotFound(f"there is no meter {request.name!r}", field="name")
        return admin_pb2.GetMeterResponse(meter=convert.meter_message(meter))

    async def ListMeters(  # noqa: N802
        self, request: admin_pb2.ListMetersRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ListMetersResponse:
        """List meters by name."""
        meters = (await self._store.newest()).meters
        return admin_pb2.ListMetersResponse(
            meters=[convert.meter_message(meters[name]) for name in sorted(meters)]
        )

    async def ApplyMeter(  # noqa: N802
        self, request: admin_pb2.ApplyMeterRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ApplyMeterResponse:
        """Create or replace one meter."""
        applied = await self._apply.meter(convert.meter(request.meter))
        return admin_pb2.ApplyMeterResponse(version=applied.version)

    async def GetPlan(  # noqa: N802
        self, request: admin_pb2.GetPlanRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.GetPlanResponse:
        """Read one plan."""
        plan = (await self._store.newest()).plans.get(PlanName(request.name))
        if plan is None:
            raise NotFound(f"there is no plan {request.name!r}", field="name")
        return admin_pb2.GetPlanResponse(plan=convert.plan_message(plan))

    async def ListPlans(  # noqa: N802
        self, request: admin_pb2.ListPlansRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ListPlansResponse:
        """List plans by name."""
        plans = (await self._store.newest()).plans
        return admin_pb2.ListPlansResponse(
            plans=[convert.plan_message(plans[name]) for name in sorted(plans)]
        )

    async def ApplyPlan(  # noqa: N802
        self, request: admin_pb2.ApplyPlanRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ApplyPlanResponse:
        """Create or replace one plan."""
        applied = await self._apply.plan(convert.plan(request.plan))
        return admin_pb2.ApplyPlanResponse(version=applied.version)

    async def GetTenant(  # noqa: N802
        self, request: admin_pb2.GetTenantRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.GetTenantResponse:
        """Read one tenant."""
        tenant = await self._tenant(request.tenant_id)
        return admin_pb2.GetTenantResponse(tenant=convert.tenant_message(tenant))

    async def ListTenants(  # noqa: N802
        self, request: admin_pb2.ListTenantsRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ListTenantsResponse:
        """List tenants by id, a page at a time."""
        count = page_size(request.page_size, TENANTS_PAGE_MAX)
        after = decoded(request.page_token, 1)
        found = await self._store.tenants_page(
            _tenant_of(after) if after else None,
            count + 1,
            PlanName(name(request.plan, "plan")) if request.plan else None,
        )
        page = found[:count]
        token = encoded([page[-1].tenant_id]) if len(found) > count else ""
        return admin_pb2.ListTenantsResponse(
            tenants=[convert.tenant_message(tenant) for tenant in page], next_page_token=token
        )

    async def ApplyTenant(  # noqa: N802
        self, request: admin_pb2.ApplyTenantRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ApplyTenantResponse:
        """Create or replace one tenant."""
        applied = await self._apply.tenant(convert.tenant(request.tenant))
        return admin_pb2.ApplyTenantResponse(version=applied.version)

    async def GetOverride(  # noqa: N802
        self, request: admin_pb2.GetOverrideRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.GetOverrideResponse:
        """Read one override."""
        tenant = await self._tenant(request.tenant_id)
        for override in tenant.overrides:
            if override.limit_id == request.limit_id:
                return admin_pb2.GetOverrideResponse(
                    override=convert.override_message(tenant.tenant_id, override)
                )
        raise NotFound(
            f"tenant {request.tenant_id!r} has no override of {request.limit_id!r}",
            field="limit_id",
        )

    async def ListOverrides(  # noqa: N802
        self, request: admin_pb2.ListOverridesRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ListOverridesResponse:
        """List the overrides of one tenant."""
        tenant = await self._tenant(request.tenant_id)
        found = sorted(tenant.overrides, key=lambda override: override.limit_id)
        return admin_pb2.ListOverridesResponse(
            overrides=[convert.override_message(tenant.tenant_id, each) for each in found]
        )

    async def ApplyOverride(  # noqa: N802
        self, request: admin_pb2.ApplyOverrideRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.ApplyOverrideResponse:
        """Create or replace one override."""
        tenant_id = ids.tenant_id(request.override.tenant_id, "override.tenant_id")
        applied = await self._apply.override(tenant_id, convert.override(request.override))
        return admin_pb2.ApplyOverrideResponse(version=applied.version)

    async def QueryUsage(  # noqa: N802
        self, request: admin_pb2.QueryUsageRequest, context: "Context[Any, Any]"
    ) -> admin_pb2.QueryUsageResponse:
        """Read usage from the ledger's rollups."""
        count = page_size(request.page_size, USAGE_PAGE_MAX)
        query = _usage_query(request, count + 1)
        found = await self._usage.usage(query)
        page = found[:count]
        response = admin_pb2.QueryUsageResponse(rows=[_row_message(row) for row in page])
        if len(found) > count:
            last = page[-1]
            response.next_page_token = encoded([last.tenant_id, last.meter, last.bucket_us])
        if query.after is None:
            for total in await self._usage.totals(query):
                response.totals.add(
                    meter=total.meter,
                    tenants=total.tenants,
                    count=total.count,
                    sum=str(total.sum),
                )
        return response

    async def _tenant(self, tenant_id: str) -> Tenant:
        tenant = await self._store.tenant(ids.tenant_id(tenant_id))
        if tenant is None:
            raise NotFound(f"there is no tenant {tenant_id!r}", field="tenant_id")
        return tenant


def _usage_query(request: admin_pb2.QueryUsageRequest, count: int) -> UsageQuery:
    if request.granularity not in _BUCKETS:
        raise InvalidField("is not a known granularity", field="granularity")
    after = decoded(request.page_token, 3)
    return UsageQuery(
        tenant_id=ids.tenant_id(request.tenant_id) if request.tenant_id else None,
        meter=MeterName(name(request.meter, "meter")) if request.meter else None,
        from_us=_minute(request, "from"),
        to_us=_minute(request, "to"),
        bucket=_BUCKETS[request.granularity],
        limit=count,
        after=_row_of(after) if after else None,
    )


def _minute(request: admin_pb2.QueryUsageRequest, field: str) -> int | None:
    if not request.HasField(field):  # type: ignore[arg-type]  # `from` is a keyword here
        return None
    instant_us = times.instant_us(getattr(request, field), field)
    if instant_us % MINUTE_US:
        raise InvalidField("must be a whole minute", field=field)
    return instant_us


def _row_message(row: UsageRow) -> admin_pb2.UsageRow:
    message = admin_pb2.UsageRow(
        tenant_id=row.tenant_id,
        meter=row.meter,
        count=row.count,
        sum=str(row.sum),
        max=row.max,
        min=row.min,
    )
    if row.bucket_us:
        message.bucket.FromMicroseconds(row.bucket_us)
    return message


def _tenant_of(position: list[object]) -> TenantId:
    if not isinstance(position[0], str):
        raise foreign_token()
    return ids.tenant_id(position[0], "page_token")


def _row_of(position: list[object]) -> tuple[str, str, int]:
    _, meter, bucket_us = position
    if not isinstance(meter, str) or type(bucket_us) is not int:
        raise foreign_token()
    if not 0 <= bucket_us < times.INSTANT_US_END:
        raise foreign_token()
    return _tenant_of(position), name(meter, "page_token"), bucket_us
