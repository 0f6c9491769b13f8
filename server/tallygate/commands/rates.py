"""`tallygate rates`: the dated rates of exchange that invoices count with.

Guarantees: a file is taken whole or refused with all its faults; a rate that stands already is not
written again.
Refuses to know: which rate an invoice takes.
"""

import csv
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, ledger_settings
from tallygate.commands.output import EXIT_FAILED, Sheet, errors, run, show
from tallygate.domain.drift import spelled
from tallygate.domain.errors import Fault
from tallygate.domain.exchange import ExchangeRate, rate_faults
from tallygate.domain.window import from_datetime
from tallygate.settings import Settings
from tallygate.wiring.invoicing import exchange_rates

COLUMNS: Final = ("base", "quote", "from", "rate", "source")
ROWS_MAX: Final = 100_000
# Of a file; a person writes fewer.
LOGGED_MAX: Final = 20
FILE_BYTES_MAX: Final = 16 * 1024 * 1024

rates = typer.Typer(no_args_is_help=True, help="Keep dated rates of exchange.")


@rates.command("set")
def set_rate(
    base: Annotated[str, typer.Argument(help="One of it …", show_default=False)],
    quote: Annotated[str, typer.Argument(help="… in this currency …", show_default=False)],
    rate: Annotated[str, typer.Argument(help="… is worth so much.", show_default=False)],
    *,
    starts: Annotated[str, typer.Option("--from", help="From when on, ISO 8601; UTC.")],
    source: Annotated[str, typer.Option(help="Who says so.")],
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Write one rate; one of the same instant stands in for what was there."""
    _write([[base, quote, starts, rate, source]], 0, ledger_settings(config, postgres_dsn))


@rates.command("import")
def import_rates(
    file: Annotated[Path, typer.Argument(help="CSV with base,quote,from,rate,source.")],
    *,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
) -> None:
    """Write the rates of a CSV file; those that stand already are left alone."""
    settings = ledger_settings(config, postgres_dsn)
    if not file.is_file() or file.stat().st_size > FILE_BYTES_MAX:
        raise typer.BadParameter(f"must be a file of at most {FILE_BYTES_MAX} bytes")
    with file.open(newline="", encoding="utf-8") as opened:
        try:
            rows = [row for row in csv.reader(opened) if row]
        except (csv.Error, UnicodeDecodeError):
            raise typer.BadParameter("is no CSV in UTF-8") from None
    if not rows or tuple(rows[0]) != COLUMNS:
        raise typer.BadParameter(f"must begin with the line {','.join(COLUMNS)}")
    if len(rows) > ROWS_MAX:
        raise typer.BadParameter(f"holds more than {ROWS_MAX} rows")
    _write(rows[1:], 2, settings)


@rates.command("list")
def list_rates(
    *,
    base: Annotated[str, typer.Option(help="Only of this currency.")] = "",
    quote: Annotated[str, typer.Option(help="Only in this currency.")] = "",
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    postgres_dsn: PostgresDsn = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List rates, the newest first; of one instant, the first one counts."""
    settings = ledger_settings(config, postgres_dsn)

    async def work() -> list[ExchangeRate]:
        async with exchange_rates(settings) as lent:
            return await lent.page(base or None, quote or None, rows)

    found = [
        (each.base, each.quote, spelled(each.from_us), format(each.rate, "f"), each.source)
        for each in run(work())
    ]
    show([Sheet("rates", COLUMNS, found)], as_json=as_json)


def _write(rows: list[list[str]], first_line: int, settings: Settings) -> None:
    found = _checked(rows, first_line)
    needs_postgres(settings)

    async def work() -> int:
        async with exchange_rates(settings) as lent:
            return await lent.write(found)

    shown = "; ".join(",".join(row) for row in rows[:LOGGED_MAX])
    count = run_audited(
        settings, "rates write", work(), request={"rates": shown, "count": len(rows)}
    )
    errors.print(f"{count} of {len(rows)} rate(s) written; the others stood already.")


def _checked(rows: list[list[str]], first_line: int) -> list[ExchangeRate]:
    """Return the rates of rows; faults of any of them end the command."""
    found: list[ExchangeRate] = []
    faults: list[Fault] = []
    for place, row in enumerate(rows):
        line = first_line + place if first_line else 0
        try:
            found.append(_rate(row))
        except (ValueError, InvalidOperation):
            faults.append(Fault(line, "rate", "must be base,quote,from,rate,source"))
            continue
        faults += [
            Fault(line, each.path, each.message, each.suggestion) for each in rate_faults(found[-1])
        ]
    if faults:
        _refuse(faults)
    return found


def _refuse(faults: list[Fault]) -> NoReturn:
    errors.print(f"tallygate: {len(faults)} fault(s); nothing was written", style="red")
    for fault in faults:
        guess = f"; did you mean {fault.suggestion}?" if fault.suggestion else ""
        where = f"line {fault.line}: " if fault.line else ""
        errors.print(f"  {where}{fault.path} {fault.message}{guess}", markup=False)
    raise typer.Exit(EXIT_FAILED)


def _rate(row: list[str]) -> ExchangeRate:
    base, quote, starts, rate, source = row
    moment = datetime.fromisoformat(starts)
    at_us = from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return ExchangeRate(base, quote, at_us, Decimal(rate), source)
