"""The verbs about the outbox, which an operator gives to the database itself.

Guarantees: each may be given again: what is done is done once, and stands in the audit log.
Refuses to know: how rows change.
"""

from typing import Annotated

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import Sheet, show
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
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    dsn = needs_postgres(settings)

    async def work() -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.unpark(destination, message)

    asked = {"destination": destination, "message": message}
    _show("retried", run_audited(settings, "outbox retry", work(), request=asked), as_json)


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
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    dsn = needs_postgres(settings)

    async def work() -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.prune(older_than_days)

    asked = {"older_than_days": older_than_days}
    found = run_audited(settings, "outbox prune", work(), request=asked)
    _show("pruned", found, as_json)


@outbox.command()
def rebase(
    *, postgres_dsn: PostgresDsn = None, config: Config = None, as_json: Json = False
) -> None:
    """After a restore into a new cluster: put the old cluster's messages before all new ones."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    dsn = needs_postgres(settings)

    async def work() -> int:
        async with outbox_upkeep(dsn) as upkeep:
            return await upkeep.rebase()

    _show("rebased", run_audited(settings, "outbox rebase", work()), as_json)


def _show(what: str, count: int, as_json: bool) -> None:
    show([Sheet("outbox", (what,), [(count,)])], as_json=as_json)
