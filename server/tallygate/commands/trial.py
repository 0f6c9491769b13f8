"""`tallygate dev` and `tallygate demo`: everything in one process, on embedded servers.

Guarantees: what they start ends with them; a demo leaves nothing behind.
Refuses to know: how an installation is put together.
"""

import shlex
import sys
import tempfile
from pathlib import Path

from tallygate.commands import demo as demos
from tallygate.commands.dev import Dev, development
from tallygate.commands.options import (
    CatalogFile,
    Config,
    ControlAddress,
    DataDir,
    EffectiveAt,
    GrpcAddress,
    Json,
    OpsAddress,
    settings_of,
)
from tallygate.commands.output import Sheet, console, errors, progress, run, show
from tallygate.commands.signals import stop_signal
from tallygate.commands.times import instant_us
from tallygate.wiring.log import configure_logging
from tallygate.wiring.tools import BANNER


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
