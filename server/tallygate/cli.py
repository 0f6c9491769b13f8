"""The command line: every verb, with its options and its exit code.

Guarantees: settings come from flags, environment and file, in that order; what goes wrong is one
line on stderr and exit code 1, without a traceback; with `--json`, stdout is JSON.
Refuses to know: how verbs are done, which is in `commands/`; and verbs that are no roles, until one
of them is asked for.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tallygate.commands.options import (
    CatalogFile,
    Config,
    ControlAddress,
    DataDir,
    GrpcAddress,
    OpsAddress,
    PostgresDsn,
    Processes,
    RedisUrl,
    Transport,
    settings_of,
)
from tallygate.commands.output import errors, run
from tallygate.commands.verbs import VERBS, command
from tallygate.settings import Settings
from tallygate.wiring.roles import Role

if TYPE_CHECKING:
    from tallygate.commands.processes import Listening


class Verbs(TyperGroup):
    """The roles' verbs, and the others once one of them, or the list of all, is asked for."""

    # Contexts and commands are `Any`, as typer has their types in a private module.

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the names of all verbs."""
        return [*super().list_commands(ctx), *VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """Return a verb, None where there is none of that name."""
        if cmd_name in VERBS:
            return command(cmd_name)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Quota and metering beside each app: decide and record in one atomic step.",
)


def _show_version(asked: bool) -> None:
    if asked:
        from tallygate import __version__  # noqa: PLC0415

        typer.echo(f"tallygate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Quota and metering beside each app: decide and record in one atomic step."""


@app.command()
def serve(
    *,
    also: Annotated[
        str, typer.Option("--with", help="Further roles: ingest, relay, control.")
    ] = "",
    grpc_address: GrpcAddress = None,
    transport: Transport = None,
    ops_address: OpsAddress = None,
    redis_url: RedisUrl = None,
    catalog: CatalogFile = None,
    data_dir: DataDir = None,
    processes: Processes = None,
    config: Config = None,
) -> None:
    """Run the sidecar: decides and records, needs Redis alone."""
    settings = settings_of(
        config,
        grpc_address=grpc_address,
        transport=transport,
        ops_address=ops_address,
        redis_url=redis_url,
        catalog=catalog,
        data_dir=data_dir,
        processes=processes,
    )
    further = [name.strip() for name in also.split(",") if name.strip()]
    unknown = sorted(set(further) - {role.value for role in Role})
    if unknown:
        raise typer.BadParameter(f"there is no role {unknown[0]!r}", param_hint="--with")
    _run_roles(settings, frozenset({Role.SERVE, *(Role(name) for name in further)}))


@app.command()
def ingest(
    *,
    ops_address: OpsAddress = None,
    redis_url: RedisUrl = None,
    postgres_dsn: PostgresDsn = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Drain the usage streams into the ledger; run as many as you like."""
    settings = settings_of(
        config,
        ops_address=ops_address,
        redis_url=redis_url,
        postgres_dsn=postgres_dsn,
        data_dir=data_dir,
    )
    _run_roles(settings, frozenset({Role.INGEST}))


@app.command()
def relay(
    *, ops_address: OpsAddress = None, postgres_dsn: PostgresDsn = None, config: Config = None
) -> None:
    """Send what waits in the outbox to its destinations."""
    settings = settings_of(config, ops_address=ops_address, postgres_dsn=postgres_dsn)
    _run_roles(settings, frozenset({Role.RELAY}))


@app.command()
def control(
    *,
    control_address: ControlAddress = None,
    ops_address: OpsAddress = None,
    redis_url: RedisUrl = None,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Serve the catalog and usage to operators, and hand the catalog to sidecars."""
    settings = settings_of(
        config,
        control_address=control_address,
        ops_address=ops_address,
        redis_url=redis_url,
        postgres_dsn=postgres_dsn,
    )
    _run_roles(settings, frozenset({Role.CONTROL}))


def main() -> None:
    """Run the command line; the entry point of the package."""
    app()


def _run_roles(settings: Settings, roles: frozenset[Role]) -> None:
    # What runs for months takes its time to start; other verbs do not wait for it.
    from tallygate.commands.processes import run_until_told  # noqa: PLC0415
    from tallygate.wiring.allocator import give_back  # noqa: PLC0415
    from tallygate.wiring.collector import collect_seldom  # noqa: PLC0415
    from tallygate.wiring.log import configure_logging  # noqa: PLC0415

    configure_logging(level=settings.log_level, style=settings.log_format)
    give_back()

    def announce(running: "Listening") -> None:
        collect_seldom()
        addresses = [*running.grpc_addresses, *running.control_addresses]
        addresses += [f"envoy at {each}" for each in running.envoy_addresses]
        errors.print(
            f"tallygate {'+'.join(sorted(roles))}: {', '.join(addresses) or 'running'};"
            f" ops on port {running.ops_port}"
        )

    run(run_until_told(settings, roles, announce))
