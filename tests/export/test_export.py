"""An export has every row of one moment, exactly, and is there whole or not at all."""

import csv
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tallygate.adapters.export import parquet as parquet_module
from tallygate.adapters.export.parquet import ParquetFile
from tallygate.adapters.export.text_files import CsvFile, JsonLinesFile
from tallygate.adapters.export.whole_file import WholeFile
from tallygate.adapters.postgres import export_rows
from tallygate.adapters.postgres.export_rows import PostgresExportSource
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.event import UsageEvent
from tallygate.domain.export import Column, Kind, Subject, columns_of, instant_text
from tallygate.domain.ids import AMOUNT_MAX, EventId, MeterName, TenantId
from tallygate.domain.window import from_datetime
from tallygate.flow.export import Exported, export
from tallygate.ports import LedgerBatch
from tallygate.ports.export import ExportQuery, FileRefused
from tallygate.wiring.exporting import Format, row_file
from tests.usage_events import NOON_US, event

ODD = 'a "quoted", text\r\nüber two lines; \x7f=1+1'


class Source:
    """A ledger, and what is exported of it."""

    def __init__(self, postgres: Postgres) -> None:
        self._ledger = PostgresLedger(postgres)
        self._source = PostgresExportSource(postgres)
        self.told: list[tuple[int, int]] = []

    async def store(self, *events: UsageEvent) -> None:
        """Store events."""
        await self._ledger.persist(LedgerBatch(events))

    async def write(self, path: Path, form: Format, **asked: Any) -> Exported:
        """Export what is asked for."""
        query = ExportQuery(**asked)
        file = row_file(path, form, query.subject)
        return await export(
            self._source, query, file, lambda done, total: self.told.append((done, total))
        )


@pytest.fixture
async def source(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Source]:
    """A ledger to fill and to export, with small pages and groups."""
    monkeypatch.setattr(export_rows, "PAGE", 3)
    monkeypatch.setattr(parquet_module, "GROUP_ROWS", 4)
    postgres = Postgres(postgres_dsn)
    yield Source(postgres)
    await postgres.close()


def read(path: Path, form: Format, subject: Subject = Subject.EVENTS) -> list[dict[str, Any]]:
    """Return the rows of a file, as anybody reads them, with every number exact."""
    match form:
        case Format.CSV:
            with path.open(newline="", encoding="utf-8") as file:
                return [_typed(row, subject) for row in csv.DictReader(file)]
        case Format.JSONL:
            lines = path.read_text(encoding="utf-8").split("\n")
            assert lines.pop() == ""
            return [json.loads(line) for line in lines]
        case Format.PARQUET:
            return [_plain(row) for row in parquet.read_table(path).to_pylist()]


def _typed(row: dict[str, str], subject: Subject) -> dict[str, Any]:
    kinds = {column.name: column for column in columns_of(subject)}
    found: dict[str, Any] = {}
    for name, text in row.items():
        match kinds[name].kind:
            case Kind.INTEGER:
                found[name] = int(text)
            case Kind.JSON:
                found[name] = json.loads(text) if text else None
            case _:
                found[name] = text
    return found


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    found = dict(row)
    for name, value in row.items():
        if isinstance(value, Decimal):
            found[name] = str(value)
        elif hasattr(value, "year"):
            found[name] = instant_text(from_datetime(value))
        elif name in ("dimensions", "metadata") and value is not None:
            found[name] = json.loads(value)
    return found


def expected(events: list[UsageEvent]) -> list[tuple[object, ...]]:
    """Return what must be read of events, in the order of an export."""
    found = sorted(events, key=lambda each: (each.event_time_us, each.tenant_id, each.event_id))
    return [
        (
            *(each.tenant_id, each.event_id, each.meter, each.amount),
            *(instant_text(each.event_time_us), instant_text(each.received_at_us)),
            *(each.source_seq, each.context.region, each.dimensions),
            *(json.loads(each.metadata_json) if each.metadata_json else None, each.refund_of),
        )
        for each in found
    ]


NAMES = (
    *("tenant_id", "event_id", "meter", "amount", "event_time", "received_at"),
    *("source_seq", "region", "dimensions", "metadata", "refund_of"),
)


def files(folder: Path) -> list[Path]:
    """Return what is in a folder."""
    return [*folder.iterdir()]


@pytest.mark.parametrize("form", Format)
async def test_events_come_back(source: Source, tmp_path: Path, form: Format) -> None:
    """What is read of a file is every event with every value, in order, whatever values hold."""
    events = [
        event(
            number, event_time_us=NOON_US + 7 * (number * 5 % 11), event_id=EventId(f"e {number}")
        )
        for number in range(1, 9)
    ]
    events.append(event(20, amount=AMOUNT_MAX, dimensions={"path": ODD, "": "ü"}))
    events.append(event(21, amount=-5, refund_of=EventId("e 1"), event_time_us=NOON_US - 1))
    events.append(event(22, metadata_json='{"n":12345678901234567890,"t":"\\u00fc,\\""}'))
    await source.store(*events, event(30, tenant_id=TenantId("other")))
    path = tmp_path / "usage"
    found = await source.write(path, form, tenant_id=TenantId("acme"))
    rows = read(path, form)
    assert [tuple(row[name] for name in NAMES) for row in rows] == expected(events)
    assert (found.rows, found.file.size) == (len(events), path.stat().st_size)
    assert (source.told[0], source.told[-1]) == ((0, 11), (11, 11))
    assert files(tmp_path) == [path]


@pytest.mark.parametrize("form", Format)
async def test_the_same_rows_give_the_same_file(
    source: Source, tmp_path: Path, form: Format
) -> None:
    """Two exports of one ledger are alike to the byte."""
    await source.store(*(event(number) for number in range(1, 12)))
    one, two = [await source.write(tmp_path / name, form) for name in ("one", "two")]
    assert one.file.sha256 == two.file.sha256
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("form", Format)
async def test_nothing_is_a_file_too(source: Source, tmp_path: Path, form: Format) -> None:
    """A tenant without usage gives a file that can be read and has no row."""
    found = await source.write(tmp_path / "usage", form, tenant_id=TenantId("nobody"))
    assert (found.rows, read(tmp_path / "usage", form)) == (0, [])


async def test_bounds_are_by_the_events_time(source: Source, tmp_path: Path) -> None:
    """The first instant is in, the last is out, and a meter leaves out the others."""
    await source.store(
        *(event(number, event_time_us=NOON_US + number) for number in range(1, 6)),
        event(9, event_time_us=NOON_US + 3, meter=MeterName("bytes")),
    )
    asked = {"from_us": NOON_US + 2, "to_us": NOON_US + 4, "meter": MeterName("requests")}
    await source.write(tmp_path / "usage", Format.JSONL, **asked)
    rows = read(tmp_path / "usage", Format.JSONL)
    assert [row["event_id"] for row in rows] == ["event-2", "event-3"]


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("subject", [Subject.MINUTE, Subject.HOUR, Subject.DAY])
async def test_rollups_come_back(
    source: Source, tmp_path: Path, form: Format, subject: Subject
) -> None:
    """Buckets come in the order of their key, and a sum beyond 64 bits has all its digits."""
    many = [event(number, amount=AMOUNT_MAX) for number in range(1, 1_101)]
    await source.store(*many, event(2_000, meter=MeterName("bytes")))
    await source.write(tmp_path / "usage", form, subject=subject)
    bytes_, requests = read(tmp_path / "usage", form, subject)
    assert (bytes_["meter"], bytes_["count"], bytes_["sum"]) == ("bytes", 1, "1")
    assert (requests["count"], requests["sum"]) == (1_100, str(1_100 * AMOUNT_MAX))
    assert (requests["max"], requests["min"]) == (AMOUNT_MAX, AMOUNT_MAX)
    assert int(requests["sum"]) > 2**63


async def test_a_file_is_not_replaced_unasked(source: Source, tmp_path: Path) -> None:
    """A file that is there stays, unless it may be replaced; nor is a folder made."""
    path = tmp_path / "usage"
    path.write_text("precious")
    with pytest.raises(FileRefused, match="there already"):
        await source.write(path, Format.CSV)
    with pytest.raises(FileRefused, match="No such file"):
        await source.write(tmp_path / "none" / "usage", Format.CSV)
    assert path.read_text() == "precious"
    row_file(path, Format.CSV, Subject.EVENTS, replace=True).finish()
    assert path.read_text().startswith("tenant_id,event_id,")


async def test_a_broken_export_leaves_nothing(source: Source, tmp_path: Path) -> None:
    """An export that ends in the middle leaves no file, and no part of one."""
    await source.store(*(event(number) for number in range(1, 9)))

    def interrupted(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    query = ExportQuery()
    file = row_file(tmp_path / "usage", Format.PARQUET, Subject.EVENTS)
    with pytest.raises(KeyboardInterrupt):
        await export(source._source, query, file, interrupted)
    assert files(tmp_path) == []


async def test_lines_are_as_the_rfc_has_them(source: Source, tmp_path: Path) -> None:
    """Lines of CSV end in CRLF, and quotes within quotes are doubled."""
    await source.store(event(1, dimensions={"a": 'b"c'}))
    await source.write(tmp_path / "usage", Format.CSV)
    data = (tmp_path / "usage").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 2
    assert b'"{""a"": ""b\\""c""}"' in data


@given(st.lists(st.tuples(st.text(), st.integers(), st.text()), max_size=5))
def test_any_text_survives(tmp_path_factory: Any, rows: list[tuple[str, int, str]]) -> None:
    """Texts of any characters that UTF-8 has come back from CSV, JSON lines and Parquet."""
    kept = [row for row in rows if all(_utf8(text) for text in (row[0], row[2]))]
    kept = [(one, number % 2**53, other) for one, number, other in kept]
    columns = (Column("one"), Column("number", Kind.INTEGER), Column("other"))
    folder = tmp_path_factory.mktemp("rows")
    for kind in (CsvFile, JsonLinesFile, ParquetFile):
        file = kind(WholeFile(folder / kind.__name__), columns)
        file.write(kept)
        file.finish()
    with (folder / "CsvFile").open(newline="", encoding="utf-8") as text:
        assert [*csv.reader(text)][1:] == [[a, str(b), c] for a, b, c in kept]
    lines = (folder / "JsonLinesFile").read_bytes().split(b"\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == kept
    table = parquet.read_table(folder / "ParquetFile").to_pylist()
    assert [tuple(row.values()) for row in table] == kept


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
