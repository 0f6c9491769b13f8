"""Parquet, by pyarrow: the extra `archive`.

Guarantees: instants are microseconds in UTC, sums are decimals of 38 digits, JSON is its text; a
group of rows is in memory, and the same rows give the same groups.
Refuses to know: where rows come from.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import pyarrow
from pyarrow import parquet

from tallygate.adapters.export.whole_file import WholeFile
from tallygate.domain.export import Column, Kind, Row
from tallygate.ports.export import Written

# Some ten megabytes: large enough to compress well, small enough for any reader.
GROUP_ROWS: Final = 50_000
_TYPES: Final[dict[Kind, Any]] = {
    Kind.TEXT: pyarrow.string(),
    Kind.INTEGER: pyarrow.int64(),
    Kind.SUM: pyarrow.decimal128(38, 0),
    Kind.INSTANT: pyarrow.timestamp("us", tz="UTC"),
    Kind.JSON: pyarrow.string(),
}


class ParquetFile:
    """A `RowFile` of Parquet."""

    def __init__(self, file: WholeFile, columns: Sequence[Column]) -> None:
        self._file = file
        self._schema = pyarrow.schema(
            [
                pyarrow.field(each.name, _TYPES[each.kind], nullable=each.optional)
                for each in columns
            ]
        )
        self._sums = [place for place, each in enumerate(columns) if each.kind is Kind.SUM]
        self._rows: list[Row] = []
        self._bytes = _Bytes(file)
        self._target = pyarrow.PythonFile(self._bytes, mode="w")
        self._writer: Any = parquet.ParquetWriter(
            self._target, self._schema, compression="zstd", version="2.6"
        )

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises `FileRefused`."""
        self._rows += rows
        while len(self._rows) >= GROUP_ROWS:
            group, self._rows = self._rows[:GROUP_ROWS], self._rows[GROUP_ROWS:]
            self._send(group)

    def finish(self) -> Written:
        """Put the file in its place. Raises `FileRefused`."""
        if self._rows:
            self._send(self._rows)
        self._writer.close()
        return self._file.finish()

    def abandon(self) -> None:
        """Leave nothing behind; after `finish`, do nothing."""
        # A writer that is not closed writes its footer when it is collected.
        self._bytes.dropped = True
        self._writer.close()
        self._file.abandon()

    def _send(self, rows: Sequence[Row]) -> None:
        columns: list[list[Any]] = [list(each) for each in zip(*rows, strict=True)]
        for place in self._sums:
            columns[place] = [Decimal(value) for value in columns[place]]
        arrays = [
            pyarrow.array(values, type=field.type)
            for values, field in zip(columns, self._schema, strict=True)
        ]
        table = pyarrow.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=GROUP_ROWS)


class _Bytes:
    """A `WholeFile` as pyarrow asks for a file."""

    closed = False

    def __init__(self, file: WholeFile) -> None:
        self._file = file
        self.dropped = False

    def write(self, data: bytes) -> int:
        return len(data) if self.dropped else self._file.write(bytes(data))

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is whole."""

    def close(self) -> None:
        """Do nothing: the file is closed when it is whole."""
