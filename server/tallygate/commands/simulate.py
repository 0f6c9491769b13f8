"""`tallygate simulate-plan`: what another catalog would have made of the usage there has been.

Guarantees: what the simulation could not judge is said beside what it found.
Refuses to know: how usage is decided, and where it is read from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from tallygate.commands.instants import instant_us
from tallygate.commands.options import Config, Json, PostgresDsn, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, counting, run, show
from tallygate.domain import ids
from tallygate.domain.catalog import Catalog, Limit, LimitKind
from tallygate.domain.ids import PlanName
from tallygate.domain.simulation import Findings, Standing
from tallygate.domain.window import to_datetime
from tallygate.flow.simulate import Simulate, SimulateOptions, SimulateParts
from tallygate.ports import ParsedCatalog
from tallygate.ports.replay import ReplayQuery
from tallygate.wiring.tools import parsed_catalog, recorded

ROWS: Final = 20
_COLUMNS: Final = (
    *("tenant", "limit", "of", "meter", "events", "refused calls", "refused events"),
    *("refused units", "first refusal", "let pass over", "highest", "at most", "share"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation came to, to be shown."""

    sheets: list[Sheet]
    refused: bool


def simulate_plan(
    *,
    file: Annotated[Path, typer.Option("--file", "-f", help="The catalog.", dir_okay=False)],
    tenant: Annotated[str, typer.Option(help="Only this tenant's usage.")] = "",
    plan: Annotated[str, typer.Option(help="Put the tenants on this plan of the catalog.")] = "",
    since: Annotated[str, typer.Option("--from", help="Usage from this date or time on.")] = "",
    until: Annotated[str, typer.Option("--to", help="Usage before this date or time.")] = "",
    rows: Annotated[int, typer.Option(help="How many limits to show.", min=1, max=10_000)] = ROWS,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Decide recorded usage anew under a catalog; exit 1 if anybody would have been refused."""
    settings = settings_of(config, postgres_dsn=postgres_dsn)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")
    dsn = settings.postgres_dsn.get_secret_value()

    async def work() -> Outcome:
        query = ReplayQuery(
            ids.tenant_id(tenant, "--tenant") if tenant else None,
            instant_us(since, "--from"),
            instant_us(until, "--to"),
        )
        parsed = parsed_catalog(file)
        options = SimulateOptions(query, PlanName(plan) if plan else None)
        with counting("events decided") as note:
            findings = await _simulated(dsn, parsed, options, note)
        notes = [*_notes(parsed.catalog, findings, options)]
        return Outcome(_sheets(findings, notes, rows), findings.refused_calls > 0)

    outcome = run(work())
    show(outcome.sheets, as_json=as_json)
    if outcome.refused:
        raise typer.Exit(EXIT_FAILED)


async def _simulated(
    dsn: str, parsed: ParsedCatalog, options: SimulateOptions, note: Callable[[int], None]
) -> Findings:
    async with recorded(dsn) as on_record:
        parts = SimulateParts(parsed, on_record.tenants, on_record.usage, on_record.credits, note)
        return await Simulate(parts, options).run()


def _sheets(findings: Findings, notes: list[str], rows: int) -> list[Sheet]:
    standings = findings.standings()
    figures: list[tuple[str, int]] = [
        ("calls", findings.calls),
        ("events", findings.events),
        ("refused calls", findings.refused_calls),
        ("refused events", findings.refused_events),
        ("tenants refused", findings.refused_tenants),
        ("refunds", findings.refunds),
        ("calls that met no limit", findings.unlimited_calls),
        *((f"calls not judged: {why}", count) for why, count in sorted(findings.unjudged.items())),
        ("limits met", len(standings)),
    ]
    sheets = [
        Sheet("simulation", ("what", "count"), figures),
        Sheet("limits", _COLUMNS, [_row(each) for each in standings[:rows]]),
    ]
    if findings.calls:
        span = [(_time(findings.first_us), _time(findings.last_us))]
        sheets.append(Sheet("usage accepted", ("from", "to"), span))
    return [*sheets, Sheet("notes", ("note",), [(each,) for each in notes])]


def _row(standing: Standing) -> tuple[str | int | None, ...]:
    share = standing.share_ppm
    return (
        standing.tenant_id,
        standing.limit_id,
        standing.owner,
        standing.meter,
        standing.events,
        standing.refused,
        standing.refused_events,
        standing.refused_units,
        _time(standing.first_refused_us) if standing.first_refused_us else None,
        standing.over,
        standing.highest,
        standing.limit,
        f"{share / 10_000:.1f}%" if share is not None else None,
    )


def _notes(catalog: Catalog, findings: Findings, options: SimulateOptions) -> Iterator[str]:
    """Iterate over what has to be known to read the figures right."""
    query = options.query
    yield "Each event is taken as one that asks first: the ledger does not tell RecordUsage apart."
    yield "Calls that were refused when they were made left no usage, so that they are not decided."
    if query.from_us is not None:
        yield "Limits count from --from on: windows that had begun by then lack what came before."
    if query.tenant_id is not None:
        yield "Limits of the tenant's parents count its own usage only."
    if options.plan is not None:
        yield "On the plan of --plan, the tenants have none of their overrides."
    held = {each.limit_id for each in _limits(catalog) if each.kind is LimitKind.CONCURRENCY}
    if held:
        yield f"Not judged, as holds are not in the ledger: {', '.join(sorted(held))}."
    if any(each.kind is LimitKind.BALANCE for each in _limits(catalog)):
        yield "Balances have the credits that were granted, each whole from when it was granted."
    if findings.refunds:
        yield "Refunds give back what the simulation had granted."
    if findings.settled:
        yield "Reservations count when they were settled, not while they were held."


def _limits(catalog: Catalog) -> Iterator[Limit]:
    for plan in catalog.plans.values():
        yield from plan.limits


def _time(instant_us: int) -> str:
    return to_datetime(instant_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")
