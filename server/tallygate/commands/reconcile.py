"""`tallygate reconcile`: what each step from counter to money has of usage, held to the ledger.

Guarantees: it changes nothing, but for the results that `--record` keeps; exit code 0 says that
nothing drifts and nothing is unknown, 1 that something does or is.
Refuses to know: how figures are read, and who carries out repairs.
"""

import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Final

import typer

from tallygate.commands.audited import run_audited
from tallygate.commands.options import CatalogFile, Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, Cell, Sheet, counting, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.drift import spelled
from tallygate.domain.ids import TenantId
from tallygate.domain.reconcile import Absent, Reading, Reconciled, Step, Verdict
from tallygate.flow.reconcile import TENANTS_MAX
from tallygate.ports.reconcile import RunPart
from tallygate.wiring.insight import now_us
from tallygate.wiring.reconciling import Reconciling, reconciling

ROWS: Final = 50


@dataclass(slots=True)
class Tally:
    """What was reconciled: all of it counted, the first pairs kept, those that drift before others.

    Kept are at most `kept_max` that are exact, and as many that are not.
    """

    kept_max: int
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    other: list[Reconciled] = field(default_factory=list)
    exact: list[Reconciled] = field(default_factory=list)

    def add(self, results: Sequence[Reconciled]) -> None:
        """Count results, and keep them as far as there is room."""
        for each in results:
            self.counts[each.verdict] += 1
            kept = self.exact if each.verdict is Verdict.EXACT else self.other
            if len(kept) < self.kept_max:
                kept.append(each)

    @property
    def shown(self) -> list[Reconciled]:
        """The pairs to be shown."""
        rank = {verdict: place for place, verdict in enumerate(_RANK)}
        other = sorted(self.other, key=lambda each: rank[each.verdict])
        return [*other, *self.exact][: self.kept_max]

    @property
    def clean(self) -> bool:
        """Whether nothing drifts and nothing is unknown."""
        return not self.counts[Verdict.DRIFT] and not self.counts[Verdict.UNKNOWN]


_RANK: Final = (Verdict.DRIFT, Verdict.UNKNOWN, Verdict.IN_FLIGHT, Verdict.LATE, Verdict.EXACT)


def reconcile(
    tenant: Annotated[str, typer.Argument(help="Whose; everybody's without.")] = "",
    *,
    period: Annotated[
        str, typer.Option(help="The period that a date lies in; else the current and the last.")
    ] = "",
    destinations: Annotated[
        bool, typer.Option("--destinations", help="Also what destinations were told; slow.")
    ] = False,
    stripe: Annotated[
        bool, typer.Option("--stripe", help="Also what Stripe has summed up: a read per meter.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the results, and have new drifts told.")
    ] = False,
    rows: Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)] = ROWS,
    catalog: CatalogFile = None,
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Hold counters, rollups and money against the ledger; exit 1 if anything drifts."""
    settings = settings_of(config, postgres_dsn=postgres_dsn, redis_url=redis_url, catalog=catalog)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")

    async def work() -> Tally:
        asked = ids.tenant_id(tenant, "TENANT") if tenant else None
        at_us = instant_us(period, "--period")
        tally = Tally(rows)
        with counting("pairs reconciled") as note:
            async with reconciling(settings, told=destinations, stripe=stripe) as parts:
                recorded = await _begun(parts) if record else None
                after = ""
                async for tenants, results in _parts(parts, asked, at_us):
                    tally.add(results)
                    note(len(results))
                    if recorded is not None:
                        last = asked is not None or len(tenants) < TENANTS_MAX
                        until = tenants[-1] if tenants else after
                        part = RunPart(recorded, after, until, now_us(), results, last)
                        await parts.store.add(part)
                        after = until
        return tally

    tally = run_audited(
        settings,
        "reconcile",
        work(),
        tenant_id=tenant,
        shows=not record,
        request={"period": period, "stripe": stripe, "record": record},
    )
    show([*_sheets(tally)], as_json=as_json)
    if not tally.clean:
        raise typer.Exit(EXIT_FAILED)


async def _begun(parts: Reconciling) -> str:
    """Begin a run of its own; return its id."""
    made = f"manual-{spelled(now_us())}-{secrets.token_hex(4)}"
    await parts.store.begin(made)
    return made


async def _parts(
    parts: Reconciling, asked: TenantId | None, at_us: int | None
) -> AsyncIterator[tuple[Sequence[TenantId], Sequence[Reconciled]]]:
    """Iterate over pages of tenants, the last one shorter than a page, each with its results."""
    if asked is not None:
        periods = await parts.reconcile.periods([asked], at_us)
        yield [asked], await parts.reconcile.of(periods)
        return
    after = ""
    while True:
        tenants = await parts.reads.tenants(after, TENANTS_MAX)
        periods = await parts.reconcile.known(tenants, at_us)
        yield tenants, await parts.reconcile.of(periods)
        if len(tenants) < TENANTS_MAX:
            return
        after = tenants[-1]


def _sheets(tally: Tally) -> Iterator[Sheet]:
    pairs = [
        (
            *_place(each),
            each.verdict.value,
            *(_cell(each.readings, step) for step in _CHAIN),
        )
        for each in tally.shown
    ]
    columns = ("tenant", "meter", "from", "to", "verdict", *(step.value for step in _CHAIN))
    yield Sheet("pairs", columns, pairs)
    figures = [
        (*_place(each)[:3], *_figure(reading))
        for each in tally.shown
        if each.verdict is not Verdict.EXACT
        for reading in each.readings
    ]
    if figures:
        columns = (
            *("tenant", "meter", "from", "step", "name", "units"),
            *("in flight", "late", "aside", "note"),
        )
        yield Sheet("figures", columns, figures)
    repairs = [
        (
            *(*_place(each)[:3], drift.step.value, drift.name, _plain(drift.units)),
            *(repair.remedy.value, _plain(repair.units), repair.detail),
        )
        for each in tally.shown
        for drift, repair in zip(each.drifts, each.repairs, strict=True)
    ]
    if repairs:
        columns = (
            *("tenant", "meter", "from", "step", "name", "drift"),
            *("repair", "append", "how"),
        )
        yield Sheet("repairs", columns, repairs)
    counts = [(verdict.value, count) for verdict, count in tally.counts.items()]
    yield Sheet("result", ("verdict", "pairs"), counts)


# What stands in a row; destinations, of which there may be several, stand among the figures.
_CHAIN: Final = tuple(step for step in Step if step is not Step.DELIVERED)


def _place(each: Reconciled) -> tuple[str, str, str, str]:
    pair = each.pair
    start, end = spelled(pair.period.start_us), spelled(pair.period.end_us)
    return pair.tenant_id, pair.meter, start, end


def _cell(readings: Sequence[Reading], step: Step) -> Cell:
    for each in readings:
        if each.step is step:
            return (
                each.figure.why.value
                if isinstance(each.figure, Absent)
                else _plain(each.figure.units)
            )
    return None


def _figure(reading: Reading) -> tuple[Cell, ...]:
    figure = reading.figure
    place = (reading.step.value, reading.name)
    if isinstance(figure, Absent):
        return (*place, None, None, None, None, figure.reason)
    parts = (figure.units, figure.in_flight, figure.late, figure.aside)
    return (*place, *map(_plain, parts), "")


def _plain(units: Decimal) -> Cell:
    whole = units.to_integral_value()
    return int(whole) if whole == units else format(units, "f")
