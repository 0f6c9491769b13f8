"""`tallygate retention`: which months of events may go, their archives, and who keeps them.

Guarantees: `plan` changes nothing; `apply` drops only what `plan` says is due and archived. All is
in the audit log before it is done.
Refuses to know: how months are dropped.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from tallygate.commands.actor import os_actor
from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, progress, show
from tallygate.domain import ids
from tallygate.domain.drift import spelled
from tallygate.domain.retention import VERDICTS, Verdict, reason_of
from tallygate.flow.retention import Dropped, Planned, archive, drop, plan, refused
from tallygate.ports.retention import LegalHold, MonthArchive
from tallygate.wiring.exporting import ArchiveFiles, Format, retaining

retention = typer.Typer(
    no_args_is_help=True, help="Archive and drop old events; hold what must stay."
)

ID_BYTES: Final = 8
Reason = Annotated[str, typer.Option(help="Why, for the record.", show_default=False)]


@retention.command("plan")
def plan_months(
    *, postgres_dsn: PostgresDsn = None, config: Config = None, as_json: Json = False
) -> None:
    """Show what would become of each month that is older than what is kept, and why."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)

    async def work() -> list[Planned]:
        async with retaining(settings, os_actor()) as lent:
            return await plan(lent.parts)

    found = run_audited(settings, "retention plan", work(), shows=True)
    rows = [
        (
            *(spelled(each.facts.month_us)[:7], each.facts.events, each.facts.elsewhere),
            *(each.facts.archived, each.facts.file, each.facts.holds, each.facts.unclosed),
            *(each.verdict.value, VERDICTS[each.verdict]),
        )
        for each in found
    ]
    columns = (
        *("month", "events", "elsewhere", "archived", "file", "holds", "open periods"),
        *("verdict", "so"),
    )
    events, messages = settings.retention_event_months, settings.retention_message_days
    policy = [
        ("events", f"{events} months" if events else "for ever"),
        ("keys of events", "for ever"),
        ("rollups", "for ever"),
        ("messages", f"{messages} days" if messages else "for ever"),
    ]
    show(
        [Sheet("policy", ("what", "kept"), policy), Sheet("months", columns, rows)],
        as_json=as_json,
    )


@retention.command("archive")
def archive_months(
    *,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where files go.", file_okay=False, show_default=False)
    ],
    form: Annotated[Format, typer.Option("--format", help="How they are written.")] = Format.JSONL,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write every month that is due to a file of its own, all tenants together."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)

    async def work() -> list[MonthArchive]:
        with progress() as bar:
            task = bar.add_task("events", total=None)
            async with retaining(settings, os_actor()) as lent:
                return await archive(
                    lent.parts,
                    ArchiveFiles(folder, form),
                    lambda done, total: bar.update(task, completed=done, total=total),
                )

    asked = {"dir": str(folder), "format": form.value}
    found = run_audited(settings, "retention archive", work(), request=asked)
    columns = ("month", "archive", "events", "file", "bytes", "sha256")
    rows = [
        (
            *(spelled(each.month_us)[:7], each.archive_id, each.events),
            *(each.file.path, each.file.size, each.file.sha256),
        )
        for each in found
    ]
    show([Sheet("archived", columns, rows)], as_json=as_json)


@retention.command("apply")
def apply_plan(
    *,
    trust_archives: Annotated[
        bool,
        typer.Option("--trust-archives", help="Do not read their files, which lie elsewhere now."),
    ] = False,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Drop the months that are due and archived; exit 1 if one of them could not be."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    files = None if trust_archives else ArchiveFiles(Path())

    async def work() -> tuple[list[Dropped], list[Planned], int]:
        with progress() as bar:
            task = bar.add_task("months", total=None)
            async with retaining(settings, os_actor()) as lent:
                done = await drop(
                    lent.parts,
                    files,
                    lambda number, total: bar.update(task, completed=number, total=total),
                )
                days = settings.retention_message_days
                pruned = await lent.upkeep.prune(days) if days else 0
                return done, await plan(lent.parts), pruned

    done, left, pruned = run_audited(
        settings, "retention apply", work(), request={"trust_archives": trust_archives}
    )
    rows = [
        (spelled(each.facts.month_us)[:7], each.events, each.facts.file, each.refused)
        for each in done
    ]
    show(
        [
            Sheet("dropped", ("month", "events", "archive", "refused"), rows),
            Sheet("messages", ("pruned",), [(pruned,)]),
        ],
        as_json=as_json,
    )
    waiting = [each for each in left if each.verdict in (Verdict.ARCHIVE, Verdict.CHANGED)]
    if waiting:
        errors.print(f"{len(waiting)} more are due: run `tallygate retention archive` first.")
    if refused(done):
        raise typer.Exit(EXIT_FAILED)


@retention.command("hold")
def place_hold(
    *,
    tenant: Annotated[str, typer.Argument(help="Whose events and messages.", show_default=False)],
    reason: Reason,
    hold_id: Annotated[str, typer.Option("--id", help="Places once, however often.")] = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Keep a tenant's events and messages from being dropped, until it is released."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)
    named = hold_id or f"hold-{secrets.token_hex(ID_BYTES)}"

    async def work() -> LegalHold:
        asked = LegalHold(
            ids.operation_id(named, "--id"),
            ids.tenant_id(tenant, "TENANT"),
            reason_of(reason, "--reason"),
            os_actor(),
        )
        async with retaining(settings, os_actor()) as lent:
            return await lent.parts.store.hold(asked)

    asked = {"id": named, "reason": reason}
    found = run_audited(settings, "retention hold", work(), tenant_id=tenant, request=asked)
    show([_holds([found])], as_json=as_json)


@retention.command("release")
def release_hold(
    *,
    hold: Annotated[str, typer.Argument(help="Its id.", show_default=False)],
    reason: Reason,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """End a hold; what is due may be dropped from then on."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)

    async def work() -> bool:
        why = reason_of(reason, "--reason")
        async with retaining(settings, os_actor()) as lent:
            return await lent.parts.store.release(hold, why, os_actor())

    asked = {"hold": hold, "reason": reason}
    ended = run_audited(settings, "retention release", work(), request=asked)
    show([Sheet("released", ("hold", "now"), [(hold, ended)])], as_json=as_json)
    if not ended:
        errors.print("It had been released before.")


@retention.command("holds")
def list_holds(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List legal holds, those that have ended as well."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    needs_postgres(settings)

    async def work() -> Sequence[LegalHold]:
        asked = ids.tenant_id(tenant, "--tenant") if tenant else None
        async with retaining(settings, os_actor()) as lent:
            return await lent.parts.store.holds(asked)

    found = run_audited(settings, "retention holds", work(), tenant_id=tenant, shows=True)
    show([_holds(found)], as_json=as_json)


def _holds(found: Sequence[LegalHold]) -> Sheet:
    columns = (
        *("hold", "tenant", "reason", "by", "placed"),
        *("released", "released by", "why"),
    )
    rows = [
        (
            *(each.hold_id, each.tenant_id, each.reason, each.actor, spelled(each.placed_at_us)),
            spelled(each.released_at_us) if each.released_at_us else None,
            *(each.released_by, each.release_reason),
        )
        for each in found
    ]
    return Sheet("holds", columns, rows)
