"""The verbs about billing periods: what each has come to, closing, opening again, verifying.

Guarantees: `close` ends with 0 once the period is closed, with 1 where something holds it; `verify`
ends with 0 where every closed revision is what the ledger gives.
Refuses to know: how periods are closed.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.commands.asking import caller, instant, number, shown
from tallygate.commands.channel import Target, channel
from tallygate.commands.options import Config, ControlAddress, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, counting, errors, run, show
from tallygate.domain import ids
from tallygate.domain.window import from_datetime
from tallygate.flow.verify_periods import PeriodFinding
from tallygate.gen.v1 import admin_pb2_grpc, period_pb2
from tallygate.wiring.periods import verifying_periods

CALL_TIMEOUT_S: Final = 30.0
PAGE: Final = 1_000
POLL_S: Final = 0.5
COLUMNS: Final = ("tenant", "start", "end", "state", "revision", "due", "held")
_STATES: Final = {"": period_pb2.PERIOD_STATE_UNSPECIFIED} | {
    name.removeprefix("PERIOD_STATE_").lower(): number
    for name, number in period_pb2.PeriodState.items()
    if number
}

period = typer.Typer(no_args_is_help=True, help="List, close, reopen and verify billing periods.")

TenantId = Annotated[str, typer.Argument(help="Whose.", show_default=False)]
Start = Annotated[str, typer.Argument(help="When it starts, ISO 8601.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why, kept in the audit.", show_default=False)]
Actor = Annotated[str, typer.Option(help="Who asks, for the record; by default who you are.")]


@period.command("list")
def list_periods(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    state: Annotated[str, typer.Option(help="open, grace, sealed or closed.")] = "",
    held: Annotated[bool, typer.Option("--held", help="Only those that are held.")] = False,
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=1)] = 100,
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List billing periods, by tenant and start."""
    if state not in _STATES:
        raise typer.BadParameter("must be open, grace, sealed or closed", param_hint="--state")
    settings = settings_of(config, control_address=control_address)
    request = period_pb2.ListPeriodsRequest(
        tenant_id=tenant, state=_STATES[state], held=held, page_size=min(rows, PAGE)
    )
    show([_sheet(run(_all(Target.control(settings), request, rows)))], as_json=as_json)


@period.command("show")
def show_period(
    tenant: TenantId,
    *,
    start: Annotated[str, typer.Option(help="Its start; by default the newest closed.")] = "",
    revision: Annotated[int, typer.Option(help="Which; by default the newest.", min=0)] = 0,
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a period: totals, adjustments, revisions, what came late, who did what."""
    settings = settings_of(config, control_address=control_address)
    request = period_pb2.GetPeriodRequest(tenant_id=tenant, revision=revision)
    if start:
        request.start.FromDatetime(instant(start))
    show(_sheets(run(_get(Target.control(settings), request))), as_json=as_json)


@period.command()
def close(
    tenant: TenantId,
    start: Start,
    *,
    reason: Reason,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Close it whatever holds it.")
    ] = False,
    wait_s: Annotated[int, typer.Option(help="How long to wait until it is.", min=0)] = 60,
    actor: Actor = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Close a period that has ended now; exit 1 if something holds it."""
    settings = settings_of(config, control_address=control_address)
    request = period_pb2.ClosePeriodRequest(
        tenant_id=tenant, reason=reason, actor=actor or caller(), accept_missing=accept_missing
    )
    request.start.FromDatetime(instant(start))
    found = run(_close(Target.control(settings), request, wait_s))
    show([_sheet([found])], as_json=as_json)
    if found.state != period_pb2.PERIOD_STATE_CLOSED:
        errors.print(f"It is not closed: {found.held or 'it takes longer'}.")
        raise typer.Exit(EXIT_FAILED)


@period.command()
def reopen(
    tenant: TenantId,
    start: Start,
    *,
    reason: Reason,
    actor: Actor = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Open a closed period again; its next closing is another revision."""
    settings = settings_of(config, control_address=control_address)
    request = period_pb2.ReopenPeriodRequest(
        tenant_id=tenant, reason=reason, actor=actor or caller()
    )
    request.start.FromDatetime(instant(start))
    show([_sheet([run(_reopen(Target.control(settings), request))])], as_json=as_json)


@period.command()
def verify(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    start: Annotated[str, typer.Option(help="Only the period that starts then.")] = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hash, add up and fold the events of closed periods anew; exit 1 if anything differs."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")

    async def work() -> list[PeriodFinding]:
        asked = ids.tenant_id(tenant, "--tenant") if tenant else None
        start_us = from_datetime(instant(start)) if start else None
        found = []
        with counting("events hashed") as note:
            async with verifying_periods(settings) as verification:
                async for each in verification.run(asked, start_us):
                    note(each.events)
                    found.append(each)
        return found

    findings = run(work())
    rows = [
        (
            *(each.period.tenant_id, _text(each.period.start_us), each.revision.number),
            *(each.events, each.revision.digest),
            "archived" if each.archived else ", ".join(each.differs),
        )
        for each in findings
    ]
    columns = ("tenant", "start", "revision", "events", "sha256", "differs")
    show([Sheet("verified", columns, rows)], as_json=as_json)
    if any(each.differs for each in findings):
        raise typer.Exit(EXIT_FAILED)


async def _all(
    control: Target, request: period_pb2.ListPeriodsRequest, rows: int
) -> list[period_pb2.BillingPeriod]:
    found: list[period_pb2.BillingPeriod] = []
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        while True:
            page = await stub.ListPeriods(request, timeout=CALL_TIMEOUT_S)
            found += page.periods
            request.page_token = page.next_page_token
            if not page.next_page_token or len(found) >= rows:
                return found[:rows]


async def _get(
    control: Target, request: period_pb2.GetPeriodRequest
) -> period_pb2.GetPeriodResponse:
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        story = await stub.GetPeriod(request, timeout=CALL_TIMEOUT_S)
        request.page_token = story.next_page_token
        while request.page_token:
            more = await stub.GetPeriod(request, timeout=CALL_TIMEOUT_S)
            story.totals.extend(more.totals)
            story.adjustments.extend(more.adjustments)
            request.page_token = more.next_page_token
        return story


async def _close(
    control: Target, request: period_pb2.ClosePeriodRequest, wait_s: int
) -> period_pb2.BillingPeriod:
    until = time.monotonic() + wait_s
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        found = (await stub.ClosePeriod(request, timeout=CALL_TIMEOUT_S)).period
        asked = period_pb2.GetPeriodRequest(tenant_id=request.tenant_id, start=request.start)
        while found.state != period_pb2.PERIOD_STATE_CLOSED and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
            found = (await stub.GetPeriod(asked, timeout=CALL_TIMEOUT_S)).period
            # What is accepted is shown until the next run has seen that it is.
            if found.held and not request.accept_missing:
                break
    return found


async def _reopen(
    control: Target, request: period_pb2.ReopenPeriodRequest
) -> period_pb2.BillingPeriod:
    async with channel(control) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        return (await stub.ReopenPeriod(request, timeout=CALL_TIMEOUT_S)).period


def _sheets(story: period_pb2.GetPeriodResponse) -> list[Sheet]:
    return [
        _sheet([story.period]),
        Sheet(
            "totals",
            ("meter", "group", "quantity", "count"),
            [
                (each.meter, _group(each.group), number(each.quantity), each.count)
                for each in story.totals
            ],
        ),
        Sheet(
            "adjustments",
            ("meter", "group", "quantity", "count", "of"),
            [
                (
                    *(each.meter, _group(each.group), number(each.quantity), each.count),
                    shown(each.closed_start) if each.HasField("closed_start") else "before all",
                )
                for each in story.adjustments
            ],
        ),
        Sheet(
            "revisions",
            ("revision", "cause", "closed", "events", "sha256"),
            [
                (each.number, each.cause, shown(each.closed_at), each.events, each.digest)
                for each in story.revisions
            ],
        ),
        Sheet(
            "late",
            ("placed", "period", "revision", "events"),
            [
                (each.placed, shown(each.allocated_start), each.allocated_revision, each.events)
                for each in story.late
            ],
        ),
        Sheet(
            "actions",
            ("action", "at", "actor", "reason"),
            [(each.action, shown(each.at), each.actor, each.reason) for each in story.actions],
        ),
    ]


def _sheet(periods: Sequence[period_pb2.BillingPeriod]) -> Sheet:
    rows = [
        (
            each.tenant_id,
            shown(each.start),
            shown(each.end),
            period_pb2.PeriodState.Name(each.state).removeprefix("PERIOD_STATE_").lower(),
            each.revision,
            shown(each.due) if each.HasField("due") else "",
            each.held,
        )
        for each in periods
    ]
    return Sheet("periods", COLUMNS, rows)


def _group(group: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(group.items()))


def _text(instant_us: int) -> str:
    found = Timestamp()
    found.FromMicroseconds(instant_us)
    return shown(found)
