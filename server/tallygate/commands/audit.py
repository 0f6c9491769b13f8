"""`tallygate audit`: who asked for what, and whether the log is as it was written.

Guarantees: it changes nothing but that it is in the log itself; `verify` exits with 0 where the
whole chain holds, with 1 where a row was changed, taken out or moved.
Refuses to know: where the log is kept.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Cell, Sheet, errors, show
from tallygate.commands.times import instant_us
from tallygate.domain.drift import spelled
from tallygate.domain.trail import ChainBreak, ChainCheck, TrailLink
from tallygate.flow.trail import verify_trail
from tallygate.ports.trail import TrailQuery
from tallygate.wiring.trail import trail_log

audit = typer.Typer(no_args_is_help=True, help="Who asked for what, and whether the log holds.")

ROWS_MAX: Final = 10_000
_NOTED: Final = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@audit.command("list")
def list_entries(
    *,
    tenant: Annotated[str, typer.Option(help="Only what is about this tenant.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this one asked for.")] = "",
    action: Annotated[str, typer.Option(help="Only this, as ApplyPlan or export.")] = "",
    from_: Annotated[str, typer.Option("--from", help="From when, ISO 8601.")] = "",
    to: Annotated[str, typer.Option(help="Until before when.")] = "",
    before: Annotated[
        int | None,
        typer.Option(help="Rows before this number, for the next page.", min=1, max=2**53),
    ] = None,
    rows: Annotated[int, typer.Option(help="How many to show.", min=1, max=ROWS_MAX)] = 50,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List what was asked for, the newest first."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    query = TrailQuery(
        tenant, actor, action, instant_us(from_, "--from"), instant_us(to, "--to"), before, rows
    )

    async def work() -> list[TrailLink]:
        async with trail_log(settings) as log:
            return [*await log.page(query)]

    found = run_audited(
        settings,
        "audit list",
        work(),
        tenant_id=tenant,
        shows=True,
        request={"actor": actor, "action": action, "from": from_, "to": to},
    )
    show([sheet_of(found, hashes=as_json)], as_json=as_json)


@audit.command("verify")
def verify_entries(
    *,
    expect: Annotated[
        list[str] | None,
        typer.Option(help="NUMBER:HASH that was noted before; may be given again."),
    ] = None,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Follow the whole chain; exit 1 where a row was changed, taken out or moved."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    check = ChainCheck(dict(_noted(each) for each in expect or []))

    async def work() -> tuple[list[ChainBreak], str]:
        async with trail_log(settings) as log:
            found = await verify_trail(log, check)
            async with log.chain() as chain:
                return found, f"{chain.head.seq}:{chain.head.hash.hex()}"

    found, head = run_audited(settings, "audit verify", work(), shows=True)
    breaks = [(each.seq, each.flaw.value, each.detail) for each in found]
    show(
        [
            Sheet("breaks", ("row", "flaw", "detail"), breaks),
            Sheet("chain", ("rows", "end"), [(check.rows, head)]),
        ],
        as_json=as_json,
    )
    if found:
        errors.print("The audit log is not as it was written.")
        raise typer.Exit(EXIT_FAILED)


def _noted(text: str) -> tuple[int, bytes]:
    found = _NOTED.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not NUMBER:HASH", param_hint="--expect")
    return int(found[1]), bytes.fromhex(found[2])


def sheet_of(found: Sequence[TrailLink], *, hashes: bool) -> Sheet:
    """Return rows of the log as a table, for programs with all that their hashes are of."""
    columns: tuple[str, ...] = (
        *("row", "at", "actor", "role", "action", "tenant", "outcome", "request"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            *(row.seq, spelled(row.at_us), row.entry.actor, row.entry.role, row.entry.action),
            *(row.entry.tenant_id, row.entry.outcome, row.entry.request),
        )
        for row in found
    ]
    if hashes:
        columns = (*columns, "call", "digest", "hash before", "hash")
        rows = [(*shown, *_hashes(row)) for shown, row in zip(rows, found, strict=True)]
    return Sheet("audit", columns, rows)


def _hashes(row: TrailLink) -> tuple[str, ...]:
    entry = row.entry
    return entry.call_id, entry.request_sha256, row.prev_hash.hex(), row.hash.hex()
