"""`tallygate apply` and `tallygate usage`: what is asked of a control process.

Guarantees: a catalog is applied whole or not at all; with `--json`, stdout is JSON.
Refuses to know: what is kept where.
"""

from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands import usage as usages
from tallygate.commands import watch as watches
from tallygate.commands.channel import Target
from tallygate.commands.options import (
    Config,
    ControlAddress,
    EffectiveAt,
    GrpcAddress,
    Json,
    settings_of,
)
from tallygate.commands.output import EXIT_FAILED, Sheet, run, show
from tallygate.commands.times import instant_us
from tallygate.commands.usage_windows import WindowsAsked, request_of, windows
from tallygate.wiring import tools


def apply(
    *,
    file: Annotated[Path, typer.Option("--file", "-f", help="The catalog.", dir_okay=False)],
    dry_run: Annotated[bool, typer.Option(help="Only validate and compare.")] = False,
    effective_at: EffectiveAt = "",
    control_address: ControlAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Validate a catalog, show what it changes, and apply it."""
    settings = settings_of(config, control_address=control_address)
    try:
        document = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot be read: {error}", param_hint="--file") from None
    at_us = instant_us(effective_at, "--effective-at")
    applying = usages.apply(
        Target.control(settings), document, dry_run=dry_run, effective_at_us=at_us
    )
    reply = run(applying)
    if reply.faults:
        show([usages.fault_sheet(reply)], as_json=as_json)
        raise typer.Exit(EXIT_FAILED)
    outcome = [(reply.version, reply.applied, reply.change_count)]
    sheets = [usages.change_sheet(reply)] if reply.changes else []
    sheets.append(Sheet("catalog", ("version", "applied", "changes"), outcome))
    show(sheets, as_json=as_json)


def usage(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    meter: Annotated[str, typer.Option(help="Only this meter.")] = "",
    by: Annotated[str, typer.Option(help="total, day, hour, minute or period.")] = "total",
    group_by: Annotated[str, typer.Option(help="Names, with commas; with --meter.")] = "",
    sliding: Annotated[str, typer.Option(help="Windows of this length, as 1h; with --step.")] = "",
    step: Annotated[str, typer.Option(help="How far sliding windows are apart, as 5m.")] = "",
    session_gap: Annotated[str, typer.Option(help="Sessions, ended by a gap, as 30m.")] = "",
    from_minute: Annotated[str, typer.Option("--from", help="From this minute on.")] = "",
    to_minute: Annotated[str, typer.Option("--to", help="To before this minute.")] = "",
    rows: Annotated[int, typer.Option(help="How many rows to show.", min=1, max=10_000)] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show --tenant's limits live, from the sidecar.")
    ] = False,
    control_address: ControlAddress = None,
    grpc_address: GrpcAddress = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show usage as the ledger has it, or with --watch a tenant's limits as they change."""
    if watch:
        if not tenant:
            raise typer.BadParameter("is needed with --watch", param_hint="--tenant")
        settings = settings_of(config, grpc_address=grpc_address)
        screen = watches.screen_for(tenant, as_json=as_json)
        asked_for = watches.WatchAsked(tenant, meter)
        run(watches.watch(Target.data_plane(settings), asked_for, screen))
        return
    asked_of = WindowsAsked(
        *(tenant, meter, by, group_by, sliding, step, session_gap, from_minute, to_minute, rows)
    )
    if asked_of.needed:
        request = request_of(asked_of, tools.now_us())
        settings = settings_of(config, control_address=control_address)
        show([run(windows(Target.control(settings), request))], as_json=as_json)
        return
    if by not in ("total", "day", "hour", "minute"):
        raise typer.BadParameter("must be total, day, hour, minute or period", param_hint="--by")
    settings = settings_of(config, control_address=control_address)
    asked = usages.UsageAsked(tenant, meter, by, rows)
    show(run(usages.usage(Target.control(settings), asked)), as_json=as_json)
