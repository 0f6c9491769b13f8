"""`tallygate migrate`, `doctor`, `check-config`: what an installation needs, and if it is there.

Guarantees: `doctor` and `check-config` change nothing.
Refuses to know: SQL, and how settings are read.
"""

from typing import Annotated

import typer

from tallygate.commands import doctor as doctors
from tallygate.commands.doctor_depth import deeper
from tallygate.commands.options import CatalogFile, Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, run, show
from tallygate.domain.errors import CatalogInvalid
from tallygate.wiring import tools
from tallygate.wiring.rights import postgres_script
from tallygate.wiring.securing import examined


def migrate(
    *,
    roles: Annotated[bool, typer.Option(help="Also make the roles of least privilege.")] = False,
    show_roles: Annotated[
        bool, typer.Option("--show-roles", help="Only print the script that makes these.")
    ] = False,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Bring the database to this version's schema."""
    if show_roles:
        print(postgres_script())  # noqa: T201  the script is the command's output
        return
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    dsn = settings.postgres_dsn.get_secret_value()
    applied = run(tools.migrate(dsn))
    if roles:
        run(tools.apply_roles(dsn))
    show([Sheet("applied", ("migration",), [(name,) for name in applied])], as_json=as_json)


def doctor(*, config: Config = None, as_json: Json = False) -> None:
    """Check everything that this installation needs; exit 1 when something is wrong."""
    settings = settings_of(config)

    async def work() -> list[doctors.Finding]:
        found = await doctors.examine(settings)
        return [*found, *await deeper(settings, found)]

    findings = run(work())
    rows = [(each.check, each.state, each.detail) for each in findings]
    show([Sheet("doctor", ("check", "state", "detail"), rows)], as_json=as_json)
    if any(each.state == "wrong" for each in findings):
        raise typer.Exit(EXIT_FAILED)


def check_config(
    *, catalog: CatalogFile = None, config: Config = None, as_json: Json = False
) -> None:
    """Check settings, catalog file, certificates and rules; show settings, secrets hidden."""
    settings = settings_of(config, catalog=catalog)
    faults, _ = examined(settings)
    if settings.catalog is not None:
        try:
            tools.read_catalog(settings.catalog)
        except CatalogInvalid as error:
            faults += error.faults
    if faults:
        rows = [(each.line, each.path, each.message, each.suggestion) for each in faults]
        show([Sheet("faults", ("line", "path", "fault", "did you mean"), rows)], as_json=as_json)
        raise typer.Exit(EXIT_FAILED)
    show([Sheet("settings", ("name", "value"), [*settings.shown().items()])], as_json=as_json)
