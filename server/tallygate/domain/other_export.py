"""Another system's export of usage, row by row: CSV or JSON lines, with columns of any name.

Guarantees: pure, one row in memory; a row that cannot be read is refused by its line and column.
Refuses to know: files, buckets, and what the rows are compared with.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import partial
from typing import Final

from tallygate.domain import ids
from tallygate.domain.cloudevent import Json, event_of
from tallygate.domain.compare import EXACT
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.event_rules import EventReader
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import from_datetime

CELL_LENGTH_MAX: Final = 64 * 1024
_EXPONENT_MAX: Final = 30


class Format(StrEnum):
    """How the export is written."""

    CSV = "csv"
    JSONL = "jsonl"


class TimeFormat(StrEnum):
    """How its times are: ISO 8601, or so many since the Unix epoch."""

    ISO = "iso"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"


_US: Final = {
    TimeFormat.SECONDS: 1_000_000,
    TimeFormat.MILLISECONDS: 1_000,
    TimeFormat.MICROSECONDS: 1,
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a row has what. An empty `event_id` is for rows without, an empty `time` too.

    With an empty `meter`, or `tenant`, all rows are of `only_meter`, or `only_tenant`; otherwise
    rows of others are left out; with an empty `amount` each row is one. `meters` are our names of
    theirs; `unit` is how many of our smallest units one of theirs is; `dimensions` are columns by
    the dimensions that they are. Of JSON lines, `data.tokens` is what lies in an object.
    """

    tenant: str = "tenant_id"
    meter: str = "meter"
    time: str = "event_time"
    amount: str = "amount"
    event_id: str = ""
    only_tenant: str = ""
    only_meter: str = ""
    time_format: TimeFormat = TimeFormat.ISO
    meters: Mapping[str, str] = field(default_factory=dict)
    unit: Decimal = Decimal(1)
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A row, in our names and units; `time_us` is 0 where rows have no time.

    With `more` the next row is of the same line.
    """

    line: int
    tenant_id: TenantId
    meter: MeterName
    time_us: int
    units: Decimal
    event_id: str = ""
    dimensions: Mapping[str, str] = field(default_factory=dict)
    subject_id: str = ""
    metadata_json: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class RowFault:
    """A row that is none, and why."""

    line: int
    field: str
    message: str


def read(lines: Iterable[str], form: Format, columns: Columns) -> Iterator[OtherRow]:
    """Iterate over the rows of an export. Raises `InvalidField` naming line and column."""
    rows = _csv_rows(lines, columns) if form is Format.CSV else _json_rows(lines)
    for line, cells in rows:
        row = _row(line, cells, columns)
        if row is not None:
            yield row


def read_each(
    lines: Iterable[str], form: Format, columns: Columns
) -> Iterator[OtherRow | RowFault]:
    """Iterate over the rows of an export, and over what is wrong with those that are none.

    Raises `InvalidField` where nothing after it could be read either, as in CSV that is none.
    """
    if form is Format.CSV:
        for number, cells in _csv_rows(lines, columns):
            yield from _row_or_fault(number, partial(_row, number, cells, columns))
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield from _row_or_fault(number, partial(_json_row, number, line, columns))


def _json_row(number: int, line: str, columns: Columns) -> OtherRow | None:
    return _row(number, _object(number, line), columns)


def read_cloud_events(lines: Iterable[str], reader: EventReader) -> Iterator[OtherRow | RowFault]:
    """Iterate over the usage of CloudEvents, one a line; those that are ignored are left out."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            uses = reader.uses(event_of(_object(number, line))) or ()
        except TallygateError as error:
            yield RowFault(number, error.field, error.message)
            continue
        for place, use in enumerate(uses, 1):
            yield OtherRow(
                *(number, TenantId(use.tenant_id), MeterName(use.meter), use.time_us),
                Decimal(use.amount),
                event_id=use.event_id,
                dimensions=use.dimensions,
                subject_id=use.subject_id,
                metadata_json=use.metadata_json,
                more=place < len(uses),
            )


def _row_or_fault(line: int, made: Callable[[], OtherRow | None]) -> Iterator[OtherRow | RowFault]:
    try:
        row = made()
    except InvalidField as error:
        yield RowFault(line, error.field.removeprefix(f"line {line}").strip(", "), error.message)
        return
    if row is not None:
        yield row


def _csv_rows(lines: Iterable[str], columns: Columns) -> Iterator[tuple[int, Mapping[str, object]]]:
    csv.field_size_limit(CELL_LENGTH_MAX)
    reader = csv.DictReader(lines, strict=True)
    try:
        names = reader.fieldnames or ()
        needed = (columns.tenant, columns.meter, columns.time, columns.amount, columns.event_id)
        for wanted in needed:
            if wanted and wanted not in names:
                raise InvalidField(f"the file has no column {wanted!r}", field="line 1")
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InvalidField(f"is no CSV: {error}", field=f"line {reader.reader.line_num}") from None


def _json_rows(lines: Iterable[str]) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        yield number, _object(number, line)


def _object(number: int, line: str) -> "dict[str, Json]":
    try:
        cells = json.loads(line, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise InvalidField("is no JSON", field=f"line {number}") from None
    if not isinstance(cells, dict):
        raise InvalidField("is no JSON object", field=f"line {number}")
    return cells


def _row(line: int, cells: Mapping[str, object], columns: Columns) -> OtherRow | None:
    def text(column: str, otherwise: str = "") -> str:
        if not column:
            return otherwise
        value = _cell(cells, column)
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise InvalidField("is missing", field=f"line {line}, {column}")
        return str(value).strip()

    tenant = text(columns.tenant, columns.only_tenant)
    named = text(columns.meter, columns.only_meter)
    meter = columns.meters.get(named, named)
    if columns.only_tenant not in ("", tenant) or columns.only_meter not in ("", meter):
        return None
    return OtherRow(
        line,
        ids.tenant_id(tenant, f"line {line}, {columns.tenant}"),
        _named(meter, f"line {line}, {columns.meter}"),
        _time_us(text(columns.time), columns, line) if columns.time else 0,
        EXACT.multiply(
            _amount(text(columns.amount, "1"), f"line {line}, {columns.amount}"), columns.unit
        ),
        ids.event_id(text(columns.event_id), f"line {line}, {columns.event_id}")
        if columns.event_id
        else "",
        {
            name: text(column)
            for name, column in columns.dimensions.items()
            if _cell(cells, column) not in (None, "")
        },
    )


def _cell(cells: Mapping[str, object], column: str) -> object:
    """Return what a row has in a column, or in an object of it; None where there is nothing."""
    if column in cells:
        return cells[column]
    head, dot, rest = column.partition(".")
    within = cells.get(head)
    return _cell(within, rest) if dot and isinstance(within, dict) else None


def _named(value: str, place: str) -> MeterName:
    if not ids.is_name(value):
        raise InvalidField("is no meter's name: map it to one", field=place)
    return MeterName(value)


def _amount(value: str, place: str) -> Decimal:
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise InvalidField(f"{value[:40]!r} is no number", field=place) from None
    exponent = found.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _EXPONENT_MAX or found.adjusted() > 30:
        raise InvalidField(f"{value[:40]!r} is out of range", field=place)
    return found


def _time_us(value: str, columns: Columns, line: int) -> int:
    place = f"line {line}, {columns.time}"
    if columns.time_format is TimeFormat.ISO:
        try:
            moment = datetime.fromisoformat(value)
            return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise InvalidField(f"{value[:40]!r} is no time in ISO 8601", field=place) from None
    # A part of a microsecond is left out, as our own times have none.
    found = int(EXACT.multiply(_amount(value, place), Decimal(_US[columns.time_format])))
    if not -62_135_596_800_000_000 <= found <= 253_402_300_799_999_999:
        raise InvalidField(f"{value[:40]!r} is out of range", field=place)
    return found
