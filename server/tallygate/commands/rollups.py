"""`tallygate rollups`: the rollups of meters that group or take more than sums, and what they lack.

Guarantees: `rebuild` may be given again, and while events come; exit code 1 of `status` says that
rollups of some meter lack events.
Refuses to know: how rollups are made.
"""

from typing import Annotated

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, counting, run, show
from tallygate.commands.times import instant_us
from tallygate.domain.ids import MeterName
from tallygate.domain.window import Window
from tallygate.flow.remake import MeterRollups
from tallygate.wiring.tools import rollup_upkeep

rollups = typer.Typer(no_args_is_help=True, help="Rollups by group: what they lack, made anew.")

_From = Annotated[str, typer.Option("--from", help="From this hour on, as 2026-11-01T00:00Z.")]
_To = Annotated[str, typer.Option("--to", help="To before this hour.")]


@rollups.command()
def status(
    *, postgres_dsn: PostgresDsn = None, config: Config = None, as_json: Json = False
) -> None:
    """Show the meters with rollups of their own; exit 1 where some lack events."""

    async def work(dsn: str) -> list[MeterRollups]:
        async with rollup_upkeep(dsn) as keep:
            return await keep.states()

    found = run(work(needs_postgres(settings_of(config, postgres_dsn=postgres_dsn))))
    rows = [(each.meter, each.whole, each.days, each.missing) for each in found]
    show([Sheet("rollups", ("meter", "whole", "days", "days to make"), rows)], as_json=as_json)
    if not all(each.whole for each in found):
        raise typer.Exit(EXIT_FAILED)


@rollups.command()
def rebuild(
    *,
    meter: Annotated[str, typer.Option(help="Of which meter.", show_default=False)],
    from_hour: _From = "",
    to_hour: _To = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make a meter's rollups anew from the ledger, all or some hours, while events come."""
    window = _window(from_hour, to_hour)

    settings = settings_of(config, postgres_dsn=postgres_dsn)
    dsn = needs_postgres(settings)

    async def work() -> int:
        with counting("events") as note:
            async with rollup_upkeep(dsn) as keep:
                return await keep.rebuild(MeterName(meter), window, note)

    asked = {"meter": meter, "from": from_hour, "to": to_hour}
    steps = run_audited(settings, "rollups rebuild", work(), request=asked)
    show([Sheet("rollups", ("meter", "steps"), [(meter, steps)])], as_json=as_json)


def _window(from_hour: str, to_hour: str) -> Window | None:
    if not from_hour and not to_hour:
        return None
    from_us, to_us = instant_us(from_hour, "--from"), instant_us(to_hour, "--to")
    if from_us is None or to_us is None:
        missing = "--from" if from_us is None else "--to"
        raise typer.BadParameter("is needed with the other bound", param_hint=missing)
    return Window(from_us, to_us)
