"""Every verb but the roles': what a person runs, and what ends by itself.

Guarantees: what goes wrong is one line on stderr and exit code 1, without a traceback; with
`--json`, stdout is JSON.
Refuses to know: how verbs are done, which is in the modules beside this one.

A module apart, as a sidecar that runs for months should not hold what these import.
"""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands import demo as demos
from tallygate.commands import doctor as doctors
from tallygate.commands import usage as usages
from tallygate.commands import watch as watches
from tallygate.commands.anomalies import anomalies
from tallygate.commands.audit import audit
from tallygate.commands.compare import compare
from tallygate.commands.credit import credit, reset
from tallygate.commands.dev import Dev, development
from tallygate.commands.explain import explain
from tallygate.commands.export import export
from tallygate.commands.imports import imports
from tallygate.commands.invoice import invoice
from tallygate.commands.lineage import lineage
from tallygate.commands.options import (
    CatalogFile,
    Config,
    ControlAddress,
    DataDir,
    EffectiveAt,
    GrpcAddress,
    Json,
    OpsAddress,
    PostgresDsn,
    settings_of,
)
from tallygate.commands.outbox import outbox
from tallygate.commands.output import (
    EXIT_FAILED,
    Sheet,
    console,
    errors,
    progress,
    run,
    show,
)
from tallygate.commands.period import period
from tallygate.commands.processes import stop_signal
from tallygate.commands.rates import rates
from tallygate.commands.reconcile import reconcile
from tallygate.commands.replay import replay
from tallygate.commands.retention import retention
from tallygate.commands.rollups import rollups
from tallygate.commands.simulate import simulate_plan
from tallygate.commands.stripe import stripe
from tallygate.commands.times import instant_us
from tallygate.commands.usage_windows import WindowsAsked, request_of, windows
from tallygate.commands.verify import verify
from tallygate.domain.errors import CatalogInvalid
from tallygate.wiring import configure_logging, tools
from tallygate.wiring.tools import BANNER

verbs = typer.Typer()
verbs.add_typer(imports, name="import")
verbs.add_typer(credit, name="credit")
verbs.add_typer(outbox, name="outbox")
verbs.add_typer(rollups, name="rollups")
verbs.add_typer(invoice, name="invoice")
verbs.add_typer(rates, name="rates")
verbs.add_typer(audit, name="audit")
verbs.add_typer(lineage, name="lineage")
verbs.add_typer(replay, name="replay")
verbs.add_typer(retention, name="retention")
verbs.add_typer(stripe, name="stripe")
verbs.add_typer(period, name="period")
verbs.command("reset")(reset)
verbs.command("simulate-plan")(simulate_plan)
verbs.command("verify")(verify)
verbs.command("explain")(explain)
verbs.command("export")(export)
verbs.command("anomalies")(anomalies)
verbs.command("compare")(compare)
verbs.command("reconcile")(reconcile)


@verbs.command()
def dev(
    *,
    grpc_address: GrpcAddress = None,
    ops_address: OpsAddress = None,
    control_address: ControlAddress = None,
    catalog: CatalogFile = None,
    effective_at: EffectiveAt = "",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Run everything in one process, on an embedded Redis and Postgres, until Ctrl-C."""
    settings = settings_of(
        config,
        grpc_address=grpc_address,
        ops_address=ops_address,
        control_address=control_address,
        catalog=catalog,
        data_dir=data_dir,
    )
    effective_at_us = instant_us(effective_at, "--effective-at")
    configure_logging(level="warning", style="console")

    async def work() -> None:
        stop = stop_signal()
        console.print(f"Starting in {settings.data_dir} …")
        async with development(settings, effective_at_us) as running:
            _announce_dev(running)
            await stop.wait()
            console.print("Stopping …")

    run(work())


@verbs.command()
def demo(*, as_json: Json = False) -> None:
    """Send a sample of a real access log through real calls, and show what became of it."""
    configure_logging(level="warning", style="console")
    free = "127.0.0.1:0"

    async def work(folder: Path) -> list[Sheet]:
        settings = settings_of(
            None,
            data_dir=folder,
            grpc_address=free,
            ops_address=free,
            control_address=free,
            default_deadline_ms=10_000,
        )
        errors.print("1/4  Starting Redis, Postgres, sidecar, ingester, relay and control …")
        async with development(settings) as running:
            if running.embedded:
                errors.print(f"     {BANNER}", style="dim")
            errors.print("2/4  Sending a sample of a real access log, one call a line …")
            with progress() as bar:
                task = bar.add_task("calls", total=demos.line_count())
                address = running.process.grpc_addresses[0]
                outcome = await demos.send_log(address, lambda: bar.advance(task))
            errors.print("3/4  Waiting until the ledger has everything …")
            figures = await demos.settle(running, outcome.events)
            sheets = await demos.report(running, outcome, figures)
            errors.print("4/4  Stopping …")
        return sheets

    with tempfile.TemporaryDirectory(prefix="tallygate-demo-") as folder:
        sheets = run(work(Path(folder)))
    show(sheets, as_json=as_json)
    errors.print(
        "\nTo look further: `.venv/bin/tallygate dev` keeps everything running; then, beside it,\n"
        "  .venv/bin/tallygate usage                       usage by tenant and meter\n"
        "  .venv/bin/tallygate import access-log FILE      meter a log of your own\n"
        "  curl -s 127.0.0.1:9464/metrics                  lag, completeness, latencies"
    )


@verbs.command()
def migrate(
    *,
    roles: Annotated[bool, typer.Option(help="Also make the roles of least privilege.")] = False,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Bring the database to this version's schema."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    dsn = settings.postgres_dsn.get_secret_value()
    applied = run(tools.migrate(dsn))
    if roles:
        run(tools.apply_roles(dsn))
    show([Sheet("applied", ("migration",), [(name,) for name in applied])], as_json=as_json)


@verbs.command()
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
        settings.control_address, document, dry_run=dry_run, effective_at_us=at_us
    )
    reply = run(applying)
    if reply.faults:
        show([usages.fault_sheet(reply)], as_json=as_json)
        raise typer.Exit(EXIT_FAILED)
    outcome = [(reply.version, reply.applied, reply.change_count)]
    sheets = [usages.change_sheet(reply)] if reply.changes else []
    sheets.append(Sheet("catalog", ("version", "applied", "changes"), outcome))
    show(sheets, as_json=as_json)


@verbs.command()
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
        run(watches.watch(settings.grpc_address[0], asked_for, screen))
        return
    asked_of = WindowsAsked(
        *(tenant, meter, by, group_by, sliding, step, session_gap, from_minute, to_minute, rows)
    )
    if asked_of.needed:
        request = request_of(asked_of, tools.now_us())
        settings = settings_of(config, control_address=control_address)
        show([run(windows(settings.control_address, request))], as_json=as_json)
        return
    if by not in ("total", "day", "hour", "minute"):
        raise typer.BadParameter("must be total, day, hour, minute or period", param_hint="--by")
    settings = settings_of(config, control_address=control_address)
    asked = usages.UsageAsked(tenant, meter, by, rows)
    show(run(usages.usage(settings.control_address, asked)), as_json=as_json)


@verbs.command()
def doctor(*, config: Config = None, as_json: Json = False) -> None:
    """Check everything that this installation needs; exit 1 when something is wrong."""
    findings = run(doctors.examine(settings_of(config)))
    rows = [(each.check, each.state, each.detail) for each in findings]
    show([Sheet("doctor", ("check", "state", "detail"), rows)], as_json=as_json)
    if any(each.state == "wrong" for each in findings):
        raise typer.Exit(EXIT_FAILED)


@verbs.command("check-config")
def check_config(
    *, catalog: CatalogFile = None, config: Config = None, as_json: Json = False
) -> None:
    """Check settings and catalog file; show every setting, secrets hidden."""
    settings = settings_of(config, catalog=catalog)
    if settings.catalog is not None:
        try:
            tools.read_catalog(settings.catalog)
        except CatalogInvalid as error:
            rows = [(each.line, each.path, each.message, each.suggestion) for each in error.faults]
            show(
                [Sheet("faults", ("line", "path", "fault", "did you mean"), rows)], as_json=as_json
            )
            raise typer.Exit(EXIT_FAILED) from None
    show([Sheet("settings", ("name", "value"), [*settings.shown().items()])], as_json=as_json)


def _announce_dev(dev: Dev) -> None:
    if dev.embedded:
        console.print(BANNER, style="dim")
    host = dev.settings.ops_address.rpartition(":")[0]
    rows = [
        ("data plane (gRPC)", ", ".join(dev.process.grpc_addresses)),
        ("control (gRPC)", ", ".join(dev.process.control_addresses)),
        ("health and metrics", f"http://{host}:{dev.process.ops_port}/metrics"),
        ("data", str(dev.settings.data_dir)),
    ]
    show([Sheet("tallygate dev is ready; Ctrl-C stops it", ("what", "where"), rows)], as_json=False)
    if dev.own:
        console.print("Elsewhere, for verbs that ask its servers:")
    for name, address in dev.own:
        # To be copied, and so in one piece.
        console.print(f"export {name}={shlex.quote(address)}", soft_wrap=True, markup=False)
    sys.stdout.flush()
