"""`tallygate compare`: another system's export of usage, held beside ours.

Guarantees: it changes nothing; exit code 0 says that everything matches, 1 that something does not,
or that the file could not be read.
Refuses to know: how rows are sorted and compared.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from tallygate.commands.options import CatalogFile, Config, Json, PostgresDsn, settings_of
from tallygate.commands.other_file import (
    Export,
    Form,
    MeterColumn,
    Names,
    OnlyMeter,
    OnlyTenant,
    TenantColumn,
    TimeColumn,
    Times,
    Unit,
    form_of,
    lines,
    meters_of,
    number,
    opened,
)
from tallygate.commands.output import EXIT_FAILED, Cell, Sheet, counting, run, show
from tallygate.commands.times import instant_us
from tallygate.domain import ids
from tallygate.domain.compare import Compared, Entry, Match, Parity, Tolerance
from tallygate.domain.drift import spelled
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName
from tallygate.domain.other_export import Columns, Format, TimeFormat, read
from tallygate.flow.compare import By, CompareOptions, Comparison
from tallygate.settings import Settings
from tallygate.wiring.insight import comparing

ROWS: Final = 50
PERCENT: Final = Decimal(100)


Buckets = Annotated[
    By, typer.Option(help="Which buckets, in UTC but for the tenants' billing periods.")
]
AmountColumn = Annotated[str, typer.Option(help="How many units; rows of a bucket add up.")]
TotalColumn = Annotated[
    str, typer.Option(help="Instead: a bucket's total, of which there is one row.")
]
IdColumn = Annotated[str, typer.Option(help="Compare event by event, by the event ids in it.")]
Figure = Annotated[str, typer.Option(help="What of ours: sum of units, or count.")]
Since = Annotated[str, typer.Option("--from", help="From here on; else their first.")]
Until = Annotated[str, typer.Option("--to", help="To before here; else their last.")]
Apart = Annotated[str, typer.Option(help="How far apart still matches: units, or as 0.1%.")]
Out = Annotated[Path | None, typer.Option(help="Write every difference there, as JSON lines.")]
Rows = Annotated[int, typer.Option(help="How many to show.", min=1, max=10_000)]


def compare(
    file: Export,
    *,
    form: Form = "",
    by: Buckets = By.DAY,
    tenant_column: TenantColumn = "tenant_id",
    meter_column: MeterColumn = "meter",
    time_column: TimeColumn = "event_time",
    amount_column: AmountColumn = "amount",
    total_column: TotalColumn = "",
    id_column: IdColumn = "",
    time_format: Times = TimeFormat.ISO,
    names: Names = None,
    unit: Unit = "1",
    figure: Figure = "sum",
    tenant: OnlyTenant = "",
    meter: OnlyMeter = "",
    since: Since = "",
    until: Until = "",
    tolerance: Apart = "0",
    out: Out = None,
    rows: Rows = ROWS,
    catalog: CatalogFile = None,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare another system's export with our usage; exit 1 if anything differs."""
    settings = settings_of(config, postgres_dsn=postgres_dsn, catalog=catalog)
    if settings.postgres_dsn is None:
        raise typer.BadParameter("TALLYGATE_POSTGRES_DSN is required")

    async def work() -> Comparison:
        columns = Columns(
            *(tenant_column, meter_column, time_column, total_column or amount_column, id_column),
            only_tenant=tenant,
            only_meter=meter,
            time_format=time_format,
            meters=meters_of(names or ()),
            unit=number(unit, "--unit"),
        )
        options = CompareOptions(
            by=by,
            events=bool(id_column),
            totals=bool(total_column),
            figure=_figure(figure),
            from_us=instant_us(since, "--from"),
            to_us=instant_us(until, "--to"),
            tenant_id=ids.tenant_id(tenant, "--tenant") if tenant else None,
            meter=MeterName(meter) if meter else None,
            tolerance=_tolerance(tolerance),
            kept_max=rows,
        )
        _check(columns, options)
        return await _compared(settings, file, form_of(form, file), columns, options, out=out)

    found = run(work())
    show([*_sheets(found, by)], as_json=as_json)
    if not found.same:
        raise typer.Exit(EXIT_FAILED)


async def _compared(
    settings: Settings,
    file: Path,
    form: Format,
    columns: Columns,
    options: CompareOptions,
    *,
    out: Path | None,
) -> Comparison:
    with ExitStack() as stack:
        text = lines(stack.enter_context(opened(file, "r", "FILE")))
        written = stack.enter_context(opened(out, "w", "--out")) if out is not None else None
        note = stack.enter_context(counting("rows read"))
        async with comparing(settings, options, _writer(written)) as comparison:
            return await comparison.run(read(text, form, columns), note)


def _check(columns: Columns, options: CompareOptions) -> None:
    """Refuse options that contradict each other. Raises `InvalidField` naming one."""
    if not columns.tenant and not columns.only_tenant:
        raise InvalidField("is needed where there is no column of tenants", field="--tenant")
    if not columns.meter and not columns.only_meter:
        raise InvalidField("is needed where there is no column of meters", field="--meter")
    if not columns.time and options.by is not By.TOTAL:
        raise InvalidField("only --by total can do without", field="--time-column")
    if options.events and options.totals:
        raise InvalidField("is of buckets, --id-column is of events", field="--total-column")
    if options.events and options.figure == "count":
        raise InvalidField("is of buckets, --id-column is of events", field="--figure")


def _figure(figure: str) -> str:
    if figure not in ("sum", "count"):
        raise InvalidField("must be sum or count", field="--figure")
    return figure


def _tolerance(text: str) -> Tolerance:
    if text.endswith("%"):
        return Tolerance(part=number(text.removesuffix("%"), "--tolerance") / PERCENT)
    return Tolerance(units=number(text, "--tolerance"))


def _sheets(found: Comparison, by: By) -> Iterator[Sheet]:
    parities = [_parity(each, by) for each in found.parities]
    columns = ("tenant", "meter", by.value, *(each.value for each in Match), "here", "there")
    yield Sheet("parity", columns, parities)
    if found.differences:
        shown = [
            (
                *(each.entry.tenant_id, each.entry.meter, spelled(each.entry.bucket_us)),
                *(each.entry.event_id, each.match.value),
                *(_units(each.here), _units(each.there), each.detail),
            )
            for each in found.differences
        ]
        columns = ("tenant", "meter", by.value, "event", "what", "here", "there", "detail")
        yield Sheet("differences", columns, shown)
    counts: list[tuple[str, Cell]] = [
        ("rows read", found.rows),
        ("rows outside of the stretch", found.outside),
        ("from", spelled(found.from_us)),
        ("to", spelled(found.to_us)),
        *((match.value, count) for match, count in found.counts.items()),
        ("pairs of tenant and meter", found.pairs),
        ("pairs that match", found.whole_pairs),
    ]
    yield Sheet("result", ("what", "number"), counts)


def _parity(parity: Parity, by: By) -> tuple[Cell, ...]:
    return (
        *(parity.tenant_id, parity.meter),
        spelled(parity.bucket_us) if parity.bucket_us else f"every {by.value}",
        *parity.counts.values(),
        *(_plain(parity.here), _plain(parity.there)),
    )


def _units(entry: Entry | None) -> Cell:
    return None if entry is None else _plain(entry.units)


def _plain(units: Decimal) -> Cell:
    whole = units.to_integral_value()
    return int(whole) if whole == units else format(units, "f")


def _writer(file: TextIO | None) -> Callable[[Compared], None]:
    """Return what writes differences as JSON lines, where there is a file for them."""

    def write(found: Compared) -> None:
        if file is None:
            return
        entry = found.entry
        row = {
            "tenant_id": entry.tenant_id,
            "meter": entry.meter,
            "bucket": spelled(entry.bucket_us),
            "event_id": entry.event_id,
            "what": found.match.value,
            "here": _text(found.here),
            "there": _text(found.there),
            "detail": found.detail,
        }
        file.write(json.dumps(row) + "\n")

    return write


def _text(entry: Entry | None) -> str | None:
    return None if entry is None else format(entry.units, "f")
