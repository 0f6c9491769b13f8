"""The options that verbs share, and the settings they lead to.

Guarantees: a setting that is wrong is said in a line, with exit code 1.
Refuses to know: verbs.
"""

from pathlib import Path
from typing import Annotated

import typer

from tallygate.commands.output import fail
from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings
from tallygate.settings_sources import load_settings

Config = Annotated[
    Path | None, typer.Option("--config", help="A settings file, TOML or YAML.", dir_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
RedisUrl = Annotated[str | None, typer.Option(help="The Redis that counts.")]
PostgresDsn = Annotated[str | None, typer.Option(help="The Postgres that holds the ledger.")]
GrpcAddress = Annotated[str | None, typer.Option(help="Where the data plane listens.")]
Transport = Annotated[str | None, typer.Option(help="What carries calls: auto, grpcio or native.")]
OpsAddress = Annotated[str | None, typer.Option(help="Where health and metrics listen.")]
ControlAddress = Annotated[str | None, typer.Option(help="Where the admin service listens.")]
DataDir = Annotated[Path | None, typer.Option(help="Where this installation keeps its files.")]
Processes = Annotated[
    int | None, typer.Option(help="How many processes serve one TCP port together.")
]
EffectiveAt = Annotated[
    str, typer.Option("--effective-at", help="When it takes effect; only a first one in the past.")
]
CatalogFile = Annotated[Path | None, typer.Option(help="A catalog file.", dir_okay=False)]


def settings_of(config: Path | None, **flags: object) -> Settings:
    """Return the settings from flags, environment and file; a fault ends the command."""
    try:
        return load_settings(flags, config=config)
    except TallygateError as error:
        fail(error)


def ledger_settings(config: Path | None, postgres_dsn: str | None) -> Settings:
    """Return the settings of a command that asks the ledger; it must be said where that is."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    return settings
