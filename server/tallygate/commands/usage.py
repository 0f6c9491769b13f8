"""`tallygate usage` and `tallygate apply`: what operators ask of control.

Guarantees: totals cover all that was asked for, also where rows are cut off.
Refuses to know: storage.
"""

from dataclasses import dataclass

from tallygate.api.convert_catalog import CHANGE_KINDS
from tallygate.commands.channel import Target, channel
from tallygate.commands.output import Sheet
from tallygate.domain.catalog_diff import ChangeKind
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc

CALL_TIMEOUT_S = 30.0
_SIGNS = {ChangeKind.ADDED: "+", ChangeKind.CHANGED: "~", ChangeKind.REMOVED: "-"}


@dataclass(frozen=True, slots=True)
class UsageAsked:
    """Which usage: empty strings mean all. `by` is total, day, hour or minute."""

    tenant: str = ""
    meter: str = ""
    by: str = "total"
    rows: int = 20


async def usage(control: Target, asked: UsageAsked) -> list[Sheet]:
    """Return totals by meter, and the first rows by tenant."""
    granularity = admin_pb2.Granularity.Value(f"GRANULARITY_{asked.by.upper()}")
    request = admin_pb2.QueryUsageRequest(
        tenant_id=asked.tenant,
        meter=asked.meter,
        granularity=granularity,
        page_size=asked.rows,
    )
    async with channel(control) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        reply = await admin.QueryUsage(request, timeout=CALL_TIMEOUT_S)
    totals = [(total.meter, total.tenants, total.count, int(total.sum)) for total in reply.totals]
    rows = [
        (
            row.tenant_id,
            row.meter,
            row.bucket.ToDatetime().isoformat() + "Z" if row.HasField("bucket") else "all",
            row.count,
            int(row.sum),
            row.max,
            row.min,
        )
        for row in reply.rows
    ]
    columns = ("tenant", "meter", "bucket", "events", "sum", "max", "min")
    return [
        Sheet("totals", ("meter", "tenants", "events", "sum"), totals),
        Sheet("usage", columns, rows),
    ]


async def apply(
    control: Target, document: str, *, dry_run: bool = False, effective_at_us: int | None = None
) -> admin_pb2.ApplyCatalogResponse:
    """Apply a catalog document, or only show what it would change."""
    request = admin_pb2.ApplyCatalogRequest(document=document, dry_run=dry_run)
    if effective_at_us is not None:
        request.effective_at.FromMicroseconds(effective_at_us)
    async with channel(control) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        return await admin.ApplyCatalog(request, timeout=CALL_TIMEOUT_S)


def fault_sheet(reply: admin_pb2.ApplyCatalogResponse) -> Sheet:
    """Return the faults of a document as a table."""
    rows = [
        (fault.line, fault.path, fault.message, fault.suggestion and f"{fault.suggestion}?")
        for fault in reply.faults
    ]
    return Sheet("faults", ("line", "path", "fault", "did you mean"), rows)


def change_sheet(reply: admin_pb2.ApplyCatalogResponse) -> Sheet:
    """Return the changes of a document as a table."""
    signs = {number: _SIGNS[kind] for kind, number in CHANGE_KINDS.items()}
    rows = [
        (signs[change.kind], change.path, change.before, change.after) for change in reply.changes
    ]
    return Sheet("changes", ("", "path", "before", "after"), rows)
