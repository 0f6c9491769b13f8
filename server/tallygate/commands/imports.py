"""`tallygate import`: what was captured elsewhere, metered as usage.

Guarantees: run again, nothing is counted twice.
Refuses to know: how a log is read and sent.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.channel import Target, channel
from tallygate.commands.import_access_log import AccessLogImport, ImportOptions
from tallygate.commands.import_calls import ImportReport
from tallygate.commands.import_events import EventsImport, EventsTried
from tallygate.commands.import_source import (
    Catalog,
    DryRun,
    EventForm,
    FromStart,
    RejectedTo,
    Resumed,
    Source,
    rejects_to,
)
from tallygate.commands.options import Config, DataDir, GrpcAddress, Json, settings_of
from tallygate.commands.other_file import (
    STDIN,
    Export,
    MeterColumn,
    Names,
    OnlyMeter,
    OnlyTenant,
    TenantColumn,
    TimeColumn,
    Times,
    Unit,
    dimensions_of,
    meters_of,
    number,
)
from tallygate.commands.output import EXIT_FAILED, Sheet, counting, progress, run, show
from tallygate.domain import access_log
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import Columns, TimeFormat
from tallygate.gen.v1 import usage_pb2_grpc

METERS = ("meter", "events", "units", "tenants", "first", "last")

imports = typer.Typer(no_args_is_help=True, help="Meter what was captured elsewhere.")


@imports.command("access-log")
def import_access_log(
    file: Annotated[Path, typer.Argument(help="A log in NCSA format.", exists=True)],
    *,
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move times so that the log ends now.")
    ] = False,
    grpc_address: GrpcAddress = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Meter a whole access log as usage; run it again and nothing is counted twice."""
    settings = settings_of(config, grpc_address=grpc_address, data_dir=data_dir)

    async def work() -> ImportReport:
        with file.open("rb") as head, progress() as bar:
            log = access_log.identity(head.readline()).hex()
            options = ImportOptions(
                log=file,
                progress=settings.data_dir / "imports" / f"{log}.json",
                now_us=time.time_ns() // 1000 if shift_to_now else 0,
            )
            task = bar.add_task(file.name, total=file.stat().st_size)
            async with channel(Target.data_plane(settings)) as lent:
                stub = usage_pb2_grpc.UsageServiceStub(lent)
                importing = AccessLogImport(
                    options, stub, lambda offset: bar.update(task, completed=offset)
                )
                return await importing.run()

    _show(run(work()), (), as_json=as_json)


@imports.command("events")
def import_events(
    file: Export,
    *,
    id_column: Annotated[str, typer.Option(help="What names an event, and stays.")] = "event_id",
    form: EventForm = "",
    tenant_column: TenantColumn = "tenant_id",
    meter_column: MeterColumn = "meter",
    time_column: TimeColumn = "event_time",
    amount_column: Annotated[
        str, typer.Option(help="How many units; empty if each row is one.")
    ] = "amount",
    time_format: Times = TimeFormat.ISO,
    names: Names = None,
    dimensions: Annotated[
        list[str] | None,
        typer.Option("--dimension", help="NAME=COLUMN, of a dimension; repeated."),
    ] = None,
    unit: Unit = "1",
    tenant: OnlyTenant = "",
    meter: OnlyMeter = "",
    catalog: Catalog = None,
    rejected: RejectedTo = None,
    dry_run: DryRun = False,
    from_start: FromStart = False,
    grpc_address: GrpcAddress = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Record usage that a file has, with its ids and times; known events change nothing."""
    settings = settings_of(config, grpc_address=grpc_address, data_dir=data_dir)

    async def work() -> tuple[ImportReport, list[Sheet]]:
        columns = Columns(
            *(tenant_column, meter_column, time_column, amount_column, id_column),
            only_tenant=tenant,
            only_meter=meter,
            time_format=time_format,
            meters=meters_of(names or ()),
            unit=number(unit, "--unit"),
            dimensions=dimensions_of(dimensions or ()),
        )
        source = Source(file, form, columns, catalog)
        if not source.cloud_events:
            _check(columns)
        progress = None if dry_run or file == STDIN else settings.data_dir / "imports"
        with counting("rows read") as note, Resumed(source, progress, from_start) as rows:
            rows.report.note = rejects_to(rejected, rows.stack, more=rows.skipped > 0)
            if dry_run:
                tried = EventsTried(note, rows.report)
                return tried.run(rows.rows()), [Sheet("meters", METERS, tried.by_meter())]
            async with channel(Target.data_plane(settings)) as lent:
                stub = usage_pb2_grpc.UsageServiceStub(lent)
                importing = EventsImport(stub, note, rows.confirm, rows.report)
                report = await importing.run(rows.rows())
            rows.done()
            return report, []

    report, more = run(work())
    _show(report, more, as_json=as_json)
    if report.rejected_count:
        raise typer.Exit(EXIT_FAILED)


def _check(columns: Columns) -> None:
    """Refuse options without which an event could not be told. Raises `InvalidField`."""
    if not columns.tenant and not columns.only_tenant:
        raise InvalidField("is needed where there is no column of tenants", field="--tenant")
    if not columns.meter and not columns.only_meter:
        raise InvalidField("is needed where there is no column of meters", field="--meter")
    for option, column in (("--id-column", columns.event_id), ("--time-column", columns.time)):
        if not column:
            raise InvalidField("is what makes a second run harmless", field=option)


def _show(report: ImportReport, more: Sequence[Sheet], *, as_json: bool) -> None:
    figures = [
        ("lines read", report.lines),
        ("lines imported before", report.skipped_lines),
        ("events accepted", report.accepted),
        ("events known already", report.known),
        ("lines rejected", report.rejected_count),
    ]
    sheets = [Sheet("import", ("what", "count"), figures), *more]
    if report.rejected:
        rejected = [(each.line, each.reason) for each in report.rejected]
        sheets.append(Sheet("rejected", ("line", "reason"), rejected))
    show(sheets, as_json=as_json)
