"""`tallygate import`: what was captured elsewhere, metered as usage.

Guarantees: run again, nothing is counted twice.
Refuses to know: how a log is read and sent.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.channel import Target, channel
from tallygate.commands.import_access_log import AccessLogImport, ImportOptions, ImportReport
from tallygate.commands.options import Config, DataDir, GrpcAddress, Json, settings_of
from tallygate.commands.output import Sheet, progress, run, show
from tallygate.domain import access_log
from tallygate.gen.v1 import usage_pb2_grpc

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

    report = run(work())
    figures = [
        ("lines read", report.lines),
        ("lines imported before", report.skipped_lines),
        ("events accepted", report.accepted),
        ("events known already", report.known),
        ("lines rejected", report.rejected_count),
    ]
    sheets = [Sheet("import", ("what", "count"), figures)]
    if report.rejected:
        rejected = [(each.line, each.reason) for each in report.rejected]
        sheets.append(Sheet("rejected", ("line", "reason"), rejected))
    show(sheets, as_json=as_json)
