"""`tallygate capture`: usage of an app's own Postgres, captured by triggers and handed on.

Guarantees: what changes the app's database is said before by `sql`; nothing but `run` needs a
sidecar.
Refuses to know: what the package consists of.
"""

import os
from typing import Annotated

import typer

from tallygate.commands.options import Config, GrpcAddress, Json, OpsAddress, settings_of
from tallygate.commands.output import Cell, Sheet, errors, run, show
from tallygate.commands.signals import stop_signal
from tallygate.settings import Settings

capture = typer.Typer(no_args_is_help=True, help="Meter what an app writes to its own Postgres.")

Dsn = Annotated[str | None, typer.Option("--dsn", help="The app's own Postgres.")]
Roles = Annotated[bool, typer.Option("--role", help="Make the group role for `run` too.")]
COUNTS = ("waiting", "unfolded", "rejected", "unmeasured")
COLUMNS = ("relation", "meter", "kind", "events", *COUNTS, "ended")
REASONS_SHOWN = 50


@capture.command("sql")
def print_sql(*, role: Roles = False) -> None:
    """Print the SQL that `install` runs, for whoever keeps the app's migrations."""
    from tallygate.wiring.capturing import install_script  # noqa: PLC0415

    typer.echo(install_script(roles=role), nl=False)


@capture.command("install")
def install(*, dsn: Dsn = None, role: Roles = False, config: Config = None) -> None:
    """Make the functions and the outbox in the app's database; again, it changes nothing."""
    from tallygate.wiring.capturing import capture_outbox  # noqa: PLC0415

    settings = settings_of(config, capture_dsn=dsn)

    async def work() -> None:
        async with capture_outbox(settings) as outbox:
            await outbox.install(roles=role)

    run(work())
    errors.print("tallygate: capture is installed; see select * from tallygate.captures")


@capture.command("run")
def drain(
    *,
    dsn: Dsn = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The sidecar that records it.")
    ] = None,
    ops_address: OpsAddress = None,
    grpc_address: GrpcAddress = None,
    config: Config = None,
) -> None:
    """Hand captured usage on to a sidecar until told to stop; run several, if you like."""
    from tallygate.wiring.log import configure_logging  # noqa: PLC0415

    settings = settings_of(
        config,
        capture_dsn=dsn,
        record_target=target,
        ops_address=ops_address,
        grpc_address=grpc_address,
    )
    configure_logging(level=settings.log_level, style=settings.log_format)
    run(_until_told(settings))


@capture.command("status")
def status(*, dsn: Dsn = None, config: Config = None, as_json: Json = False) -> None:
    """Show what is captured, what waits, and what went wrong."""
    from tallygate.wiring.capturing import capture_outbox  # noqa: PLC0415

    settings = settings_of(config, capture_dsn=dsn)

    async def work() -> list[Sheet]:
        async with capture_outbox(settings) as outbox:
            await outbox.check()
            captures = [_cells(each, COLUMNS) for each in await outbox.captures()]
            reasons = ("meter", "reason", "events", "detail")
            refused = [_cells(each, reasons) for each in await outbox.rejected(REASONS_SHOWN)]
        sheets = [Sheet("captures", COLUMNS, captures)]
        return [*sheets, Sheet("rejected", reasons, refused)] if refused else sheets

    show(run(work()), as_json=as_json)


@capture.command("retry")
def retry(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Only what was refused so.")] = "",
    dsn: Dsn = None,
    config: Config = None,
) -> None:
    """Put what was refused into the outbox again, under the same event ids."""
    from tallygate.wiring.capturing import capture_outbox  # noqa: PLC0415

    settings = settings_of(config, capture_dsn=dsn)

    async def work() -> int:
        async with capture_outbox(settings) as outbox:
            await outbox.check()
            return await outbox.retry(reason)

    errors.print(f"tallygate: {run(work()):,} rows are in the outbox again")


def _cells(row: object, names: tuple[str, ...]) -> list[Cell]:
    assert isinstance(row, dict)
    return [
        each if isinstance(each, int | str | float | bool | None) else str(each)
        for each in (row[name] for name in names)
    ]


async def _until_told(settings: Settings) -> None:
    from tallygate.wiring.capturing import capturing  # noqa: PLC0415

    stop = stop_signal()
    async with capturing(settings) as port:
        errors.print(f"tallygate capture: draining, as process {os.getpid()}; ops on port {port}")
        await stop.wait()
