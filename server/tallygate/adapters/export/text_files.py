"""CSV and JSON lines.

Guarantees: CSV is as RFC 4180 has it: lines end in CRLF, the first names the columns, and a value
is quoted where it must be. A line of JSON is one object, its numbers exact: sums, which may be
larger than readers' numbers, stand as texts. Both are UTF-8.
Refuses to know: where rows come from.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Final

from tallygate.adapters.export.whole_file import WholeFile
from tallygate.domain.export import Column, Kind, Row, Value, instant_text
from tallygate.ports.export import Written

_TEXT: Final = json.JSONEncoder(ensure_ascii=False).encode


class CsvFile:
    """A `RowFile` of comma-separated values."""

    def __init__(self, file: WholeFile, columns: Sequence[Column]) -> None:
        self._file = file
        self._instants = [
            place for place, column in enumerate(columns) if column.kind is Kind.INSTANT
        ]
        self._send([[column.name for column in columns]])

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises `FileRefused`."""
        self._send([self._spelled(row) for row in rows])

    def finish(self) -> Written:
        """Put the file in its place. Raises `FileRefused`."""
        return self._file.finish()

    def abandon(self) -> None:
        """Leave nothing behind; after `finish`, do nothing."""
        self._file.abandon()

    def _spelled(self, row: Row) -> list[Value]:
        values = [*row]
        for place in self._instants:
            instant_us = values[place]
            assert isinstance(instant_us, int)
            values[place] = instant_text(instant_us)
        return values

    def _send(self, rows: Sequence[Row]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        self._file.write(text.getvalue().encode())


class JsonLinesFile:
    """A `RowFile` of JSON objects, one a line."""

    def __init__(self, file: WholeFile, columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = [(f"{_TEXT(column.name)}:", _SPELLED[column.kind]) for column in columns]

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises `FileRefused`."""
        self._file.write("".join(self._line(row) for row in rows).encode())

    def finish(self) -> Written:
        """Put the file in its place. Raises `FileRefused`."""
        return self._file.finish()

    def abandon(self) -> None:
        """Leave nothing behind; after `finish`, do nothing."""
        self._file.abandon()

    def _line(self, row: Row) -> str:
        parts = (
            name + ("null" if value is None else spelled(value))
            for (name, spelled), value in zip(self._columns, row, strict=True)
        )
        return "{" + ",".join(parts) + "}\n"


def _instant(value: str | int) -> str:
    return f'"{instant_text(int(value))}"'


def _sum(value: str | int) -> str:
    return f'"{value}"'


_SPELLED: Final[dict[Kind, Callable[[str | int], str]]] = {
    Kind.TEXT: _TEXT,
    Kind.INTEGER: str,
    Kind.SUM: _sum,
    Kind.INSTANT: _instant,
    # It is JSON already, with every digit that it was stored with.
    Kind.JSON: str,
}
