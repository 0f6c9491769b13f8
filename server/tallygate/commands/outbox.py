"""The verbs about the outbox, which an operator gives to the database itself.

Guarantees: each may be given again: what is done is done once.
Refuses to know: how rows change.
"""

from typing import Annotated

import typer

from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import Sheet, run, show
from tallygate.settings import Settings
from tallygate.wiring.tools import outbox_upkeep

outbox = typer.Typer(no_args_is_help=True, help="Mend the outbox: retry, prune, rebase.")


@outbox.command()
def retry(
    *,
    destination: Annotated[str, typer.Option(help="Of which destination.", show_default=False)],
    message: Annotated[str, typer.Option(help="Only this message, by its id.")] = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have messages that were given up on sent again, under the ids they had."""

    async def work(dsn: str) -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.unpark(destination, message)

    _show("retried", run(work(_dsn(settings_of(config, postgres_dsn=postgres_dsn)))), as_json)


@outbox.command()
def prune(
    *,
    older_than_days: Annotated[
        int, typer.Option(help="Written at least so long ago.", min=1, show_default=False)
    ],
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete old messages that every destination has; those that wait or are parked stay."""

    async def work(dsn: str) -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.prune(older_than_days)

    _show("pruned", run(work(_dsn(settings_of(config, postgres_dsn=postgres_dsn)))), as_json)


@outbox.command()
def rebase(
    *, postgres_dsn: PostgresDsn = None, config: Config = None, as_json: Json = False
) -> None:
    """After a restore into a new cluster: put the old cluster's messages before all new ones."""

    async def work(dsn: str) -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.rebase()

    _show("rebased", run(work(_dsn(settings_of(config, postgres_dsn=postgres_dsn)))), as_json)


def _dsn(settings: Settings) -> str:
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    return settings.postgres_dsn.get_secret_value()


def _show(what: str, count: int, as_json: bool) -> None:
    show([Sheet("outbox", (what,), [(count,)])], as_json=as_json)
