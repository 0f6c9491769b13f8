"""`tallygate export`: a tenant's usage as a file, event by event or by bucket.

Guarantees: the file is there whole or not at all, with every row of one moment, in one order; it is
in the audit log before the first row is read.
Refuses to know: how rows are read and written.
"""

from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import Sheet, progress, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.export import Subject
from tallygate.domain.ids import MeterName
from tallygate.flow.export import Exported
from tallygate.flow.export import export as export_rows
from tallygate.ports.export import ExportQuery
from tallygate.wiring.exporting import Format, exporting, row_file


def export(
    *,
    tenant: Annotated[str, typer.Argument(help="Whose usage.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file.", dir_okay=False, show_default=False)],
    what: Annotated[Subject, typer.Option(help="Events, or the rollup by minute …")] = (
        Subject.EVENTS
    ),
    form: Annotated[Format, typer.Option("--format", help="How it is written.")] = Format.CSV,
    meter: Annotated[str, typer.Option(help="Only this meter.")] = "",
    from_: Annotated[str, typer.Option("--from", help="From when it happened, ISO 8601.")] = "",
    to: Annotated[str, typer.Option(help="Until before when it happened.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a tenant's usage to a file, as of one moment."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    from_us, to_us = instant_us(from_, "--from"), instant_us(to, "--to")

    async def work() -> Exported:
        query = ExportQuery(
            subject=what,
            tenant_id=ids.tenant_id(tenant, "TENANT"),
            meter=MeterName(meter) if meter else None,
            from_us=from_us,
            to_us=to_us,
        )
        with progress() as bar:
            task = bar.add_task("rows", total=None)
            async with exporting(settings) as source:
                return await export_rows(
                    source,
                    query,
                    row_file(out, form, what, replace=force),
                    lambda done, total: bar.update(task, completed=done, total=total),
                )

    asked = {"out": str(out), "what": what.value, "format": form.value, "meter": meter}
    asked |= {"from": from_, "to": to}
    found = run_audited(settings, "export", work(), tenant_id=tenant, request=asked)
    file = found.file
    columns = ("tenant", "what", "rows", "file", "bytes", "sha256")
    row = (tenant, what.value, found.rows, file.path, file.size, file.sha256)
    show([Sheet("exported", columns, [row])], as_json=as_json)
