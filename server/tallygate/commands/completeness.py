"""`tallygate completeness`: what was lost with its epoch, and that it has come again.

Guarantees: `settle` changes nothing without `--apply`; with it, what was asked and why is in the
audit log first. Exit code 1 says that numbers are lost, or that nothing was applied to them.
Refuses to know: how numbers are compared.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, show
from tallygate.domain.completeness import size
from tallygate.flow.settle_numbers import count
from tallygate.ports.epochs import Seen
from tallygate.settings import Settings
from tallygate.wiring.settling import settling

REASON_LENGTH_MAX: Final = 200

completeness = typer.Typer(no_args_is_help=True, help="Look at lost numbers, and settle them.")


@completeness.command("lost")
def lost(
    *,
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show which numbers of which sources were lost with Redis; exit 1 if there are any."""
    settings = _settings(config, postgres_dsn, redis_url)

    async def work() -> list[Seen]:
        async with settling(settings) as step:
            return await step.lost()

    found = run_audited(settings, "completeness lost", work(), shows=True)
    _show(found, as_json=as_json)
    if found:
        raise typer.Exit(EXIT_FAILED)


@completeness.command("settle")
def settle(
    *,
    reason: Annotated[str, typer.Option(help="Why they are waited for no more; for the audit.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; else only show.")] = False,
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Say that the events of all lost numbers were told again under others, or never will be."""
    settings = _settings(config, postgres_dsn, redis_url)
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise typer.BadParameter(
            f"must be 1 to {REASON_LENGTH_MAX} characters", param_hint="--reason"
        )

    async def work() -> list[Seen]:
        async with settling(settings) as step:
            return await (step.settle() if apply else step.lost())

    request: dict[str, str | int | bool | None] = {"reason": reason, "apply": apply}
    found = run_audited(settings, "completeness settle", work(), request=request)
    _show(found, as_json=as_json)
    if found and not apply:
        errors.print("Nothing was changed: give --apply to do it.")
        raise typer.Exit(EXIT_FAILED)


def _settings(config: Config, postgres_dsn: PostgresDsn, redis_url: RedisUrl) -> Settings:
    settings = settings_of(config, postgres_dsn=postgres_dsn, redis_url=redis_url)
    needs_postgres(settings)
    if settings.redis_url is None:
        raise typer.BadParameter("TALLYGATE_REDIS_URL is required")
    return settings


def _show(found: Sequence[Seen], *, as_json: bool) -> None:
    rows = [
        (
            each.source_id,
            each.shard,
            ", ".join(f"{a} to {b}" for a, b in each.ranges),
            size(each.ranges),
        )
        for each in found
    ]
    sheets = [
        Sheet("lost", ("source", "shard", "numbers", "events"), rows),
        Sheet("result", ("what", "number"), [("events", count(found))]),
    ]
    show(sheets, as_json=as_json)
