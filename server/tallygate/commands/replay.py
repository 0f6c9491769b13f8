"""`tallygate replay`: rollups made anew from the ledger, messages sent again.

Guarantees: without `--apply` nothing changes, and what would is shown; the same command again does
nothing more. What changes something is in the audit log first.
Refuses to know: how rows change.
"""

import hashlib
from typing import Annotated, Final

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, fail, progress, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.drift import FIGURES, Unequal, spelled
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.flow.replay import RecomputeAsked, Recomputed, recompute, redeliver
from tallygate.ports.redeliver import RedeliverAsked, RedeliverCounts
from tallygate.wiring.replaying import replaying

replay = typer.Typer(no_args_is_help=True, help="Make rollups anew, or send messages again.")

From = Annotated[str, typer.Option("--from", help="From when, ISO 8601.", show_default=False)]
To = Annotated[str, typer.Option(help="Until before when.", show_default=False)]
Apply = Annotated[bool, typer.Option("--apply", help="Do it; else only show what would be.")]
ROWS: Final = 50


@replay.command("rollups")
def replay_rollups(
    *,
    from_: From,
    to: To,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    meter: Annotated[str, typer.Option(help="Only this meter's.")] = "",
    apply: Apply = False,
    rows: Annotated[int, typer.Option(help="How many differences to show.", min=1)] = ROWS,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold the rollups of whole days in UTC against their events, and make them anew.

    Exit 1 if something differs and is left so.
    """
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    from_us, to_us = _bounds(from_, to)

    async def work() -> Recomputed:
        asked = RecomputeAsked(
            from_us,
            to_us,
            ids.tenant_id(tenant, "--tenant") if tenant else None,
            MeterName(meter) if meter else None,
            apply,
        )
        with progress() as bar:
            task = bar.add_task("days", total=None)
            async with replaying(settings) as replays:
                return await recompute(
                    replays.rollups,
                    asked,
                    lambda done, total: bar.update(task, completed=done, total=total),
                )

    found = run_audited(
        settings,
        "replay rollups",
        work(),
        tenant_id=tenant,
        shows=not apply,
        request={"meter": meter, "from": from_, "to": to, "apply": apply},
    )
    show(_recomputed(found, rows), as_json=as_json)
    if found.different and not apply:
        errors.print("Nothing was changed: give --apply to make these rollups anew.")
        raise typer.Exit(EXIT_FAILED)


@replay.command("messages")
def replay_messages(
    *,
    destination: Annotated[str, typer.Option(help="Where to.", show_default=False)],
    from_: From,
    to: To,
    kind: Annotated[str, typer.Option("--type", help="Only this type, as usage.batch.")] = "",
    replay_id: Annotated[
        str, typer.Option("--id", help="Sends again once; by default of what is asked for.")
    ] = "",
    apply: Apply = False,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Send the messages written in a time to a destination again, under the ids they have."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    from_us, to_us = _bounds(from_, to)
    named = replay_id or _derived(destination, str(from_us), str(to_us), kind)

    async def work() -> tuple[RedeliverCounts, int]:
        asked = RedeliverAsked(ids.operation_id(named, "--id"), destination, from_us, to_us, kind)
        with progress() as bar:
            task = bar.add_task("messages", total=None)
            async with replaying(settings) as replays:
                return await redeliver(
                    replays.messages,
                    asked,
                    apply=apply,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )

    request = {"destination": destination, "from": from_, "to": to, "type": kind, "id": named}
    counts, sent = run_audited(
        settings,
        "replay messages",
        work(),
        shows=not apply,
        request={**request, "apply": apply},
    )
    columns = ("replay", "delivered", "parked", "not sent before", "waiting", "replayed", "again")
    row = (
        *(named, counts.delivered, counts.parked, counts.unsent),
        *(counts.waiting, counts.replayed, sent),
    )
    show([Sheet("messages", columns, [row])], as_json=as_json)
    if counts.again and not apply:
        errors.print(f"Nothing was changed: --apply sends {counts.again:,} again.")


def _bounds(from_: str, to: str) -> tuple[int, int]:
    from_us, to_us = instant_us(from_, "--from"), instant_us(to, "--to")
    if from_us is None or to_us is None:
        fail(InvalidField("is required", field="--from" if from_us is None else "--to"))
    return from_us, to_us


def _derived(*asked: str) -> str:
    """Return the name of a replay of what is asked for, so that the same again is the same."""
    return "replay-" + hashlib.sha256("\n".join(asked).encode(errors="replace")).hexdigest()[:16]


def _recomputed(found: Recomputed, rows: int) -> list[Sheet]:
    columns = ("tenant", "meter", "rollup", "bucket", *(f"ledger's {name}" for name in FIGURES))
    sheets = []
    if found.differences:
        differences = [_difference(each) for each in found.differences[:rows]]
        sheets = [Sheet("differences", (*columns, *FIGURES), differences)]
    figures = (found.days, found.archived_days, found.different, found.mended)
    names = ("days", "days archived", "buckets that differed", "buckets made anew")
    return [*sheets, Sheet("rollups", names, [figures])]


def _difference(each: Unequal) -> tuple[str | int, ...]:
    return (
        *(each.tenant_id, each.meter, f"usage_{each.level.value}", spelled(each.bucket_us)),
        *(getattr(each.finer, name) for name in FIGURES),
        *(getattr(each.coarser, name) for name in FIGURES),
    )
