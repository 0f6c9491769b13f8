"""Files of events in every form: what is read, what is refused, and where a run goes on."""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tallygate.commands.import_calls import ImportFailed, ImportReport
from tallygate.commands.import_events import EventsImport, EventsTried
from tallygate.commands.import_source import Resumed, Source, rejects_to
from tallygate.domain.cloudevent import event_of
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import Columns, OtherRow, RowFault
from tallygate.gen.v1 import usage_pb2
from tests.e2e.processes import tallygate
from tests.e2e.test_import_events import Service
from tests.events.test_rules import DOCUMENT, cloud

COLUMNS = Columns(event_id="event_id")
HEADER = "event_id,tenant_id,meter,event_time,amount"


def line(number: int, amount: object = 5) -> str:
    """Return a row as CSV."""
    return f"e-{number},acme,tokens,2026-03-01T12:00:00Z,{amount}"


def written(path: Path, *rows: str) -> Path:
    """Write a CSV of these rows."""
    path.write_text("\n".join((HEADER, *rows)) + "\n")
    return path


def rows_of(source: Source) -> list[OtherRow | RowFault]:
    """Return all rows of a source."""
    with Resumed(source, None) as resumed:
        return list(resumed.rows())


def test_gzip_and_stdin_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is unpacked by what it begins with; `-` is stdin, and may be packed as well."""
    plain = written(tmp_path / "a.csv", line(1), line(2))
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = rows_of(Source(plain, "", COLUMNS))
    assert [cast(OtherRow, each).event_id for each in expected] == ["e-1", "e-2"]
    assert rows_of(Source(packed, "", COLUMNS)) == expected

    class Stdin:
        buffer = io.BufferedReader(io.BytesIO(packed.read_bytes()))

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert rows_of(Source(Path("-"), "csv", COLUMNS)) == expected
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(InvalidField, match="no gzip"):
        rows_of(Source(packed, "", COLUMNS))


def test_rows_that_are_none_hold_nothing_up(tmp_path: Path) -> None:
    """Each is told by its line and its field, and those after it are read."""
    path = written(tmp_path / "a.csv", line(1, "many"), line(2), "e-3,,tokens,now,1", line(4))
    found = rows_of(Source(path, "", COLUMNS))
    faults = [each for each in found if isinstance(each, RowFault)]
    assert [(each.line, each.field) for each in faults] == [(2, "amount"), (4, "tenant_id")]
    assert len(found) == 4
    broken = tmp_path / "b.jsonl"
    broken.write_text('{"a": \n[]\n{}\n')
    found = rows_of(Source(broken, "", COLUMNS))
    assert [each.line for each in found] == [1, 2, 3]


def test_a_file_without_a_column_is_refused_at_once(tmp_path: Path) -> None:
    """The column is named, also that of ids."""
    path = tmp_path / "a.csv"
    path.write_text("tenant_id,meter,event_time,amount\na,b,c,d\n")
    with pytest.raises(InvalidField, match="no column 'event_id'"):
        rows_of(Source(path, "", COLUMNS))


async def test_cloud_events_have_the_ids_that_they_have_over_http(tmp_path: Path) -> None:
    """Lines of CloudEvents are mapped by a catalog, or by meters' names without one."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(DOCUMENT.replace("UNMATCHED", "ignore"))
    path = tmp_path / "events.jsonl"
    other = cloud(type="other")
    plain = cloud(type="tokens", data={"amount": 3, "subject_id": "ann"})
    path.write_text("\n".join(map(json.dumps, (cloud(), other, cloud(data={}), plain, 7))))
    source = Source(path, "cloudevents", COLUMNS, catalog)
    tokens, calls, fault, own, none = rows_of(source)
    assert isinstance(tokens, OtherRow)
    assert isinstance(calls, OtherRow)
    assert (tokens.more, calls.more) == (True, False)
    assert tokens.event_id == f"{event_of(cloud()).digest()}-tokens"
    assert isinstance(fault, RowFault)
    assert (fault.line, fault.field) == (3, "data.tokens")
    assert isinstance(none, RowFault)
    service = Service()
    await EventsImport(cast(Any, service), lambda _: None).run(iter([own]))
    ((told,),) = service.calls
    assert (told.context.subject_id, told.metadata["ce_id"]) == ("ann", "e-1")
    assert len(rows_of(Source(path, "cloudevents", COLUMNS))) == 5


class Failing(Service):
    """A service that is gone after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._left = calls

    async def BatchRecordUsage(  # noqa: N802  the name is the proto's
        self, request: usage_pb2.BatchRecordUsageRequest, **more: object
    ) -> usage_pb2.BatchRecordUsageResponse:
        """Take a list, while there is one."""
        if not self._left:
            raise ImportFailed("gone")
        self._left -= 1
        return await super().BatchRecordUsage(request, **more)


async def imported(source: Source, place: Path, service: Service) -> ImportReport:
    """Import as the command does."""
    with Resumed(source, place) as resumed:
        importing = EventsImport(
            cast(Any, service), lambda _: None, resumed.confirm, resumed.report
        )
        report = await importing.run(resumed.rows())
        resumed.done()
        return report


async def test_an_interrupted_import_goes_on(tmp_path: Path) -> None:
    """Where it was confirmed, unless what was before has changed; a finished one begins anew."""
    path = written(tmp_path / "a.csv", *(line(number) for number in range(1_200)))
    source, place = Source(path, "", COLUMNS), tmp_path / "imports"
    with pytest.raises(ImportFailed):
        await imported(source, place, Failing(1))
    report = await imported(source, place, service := Failing(9))
    assert (report.skipped_lines, report.accepted) == (501, 700)
    assert service.calls[0][0].event_id == "e-500"
    assert list(place.iterdir()) == []
    assert (await imported(source, place, Failing(9))).accepted == 1_200
    with pytest.raises(ImportFailed):
        await imported(source, place, Failing(1))
    written(path, *(line(number, 6) for number in range(1_200)))
    assert (await imported(source, place, Failing(9))).accepted == 1_200


def test_a_dry_run_adds_up(tmp_path: Path) -> None:
    """By meter: how much of how many tenants, from when to when."""
    path = written(tmp_path / "a.csv", line(1), line(2, 7), line(3, "0.5"))
    report = ImportReport()
    tried = EventsTried(lambda _: None, report)
    tried.run(rows_of(Source(path, "", COLUMNS)))
    noon = "2026-03-01T12:00:00+00:00"
    assert tried.by_meter() == [("tokens", 2, 12, 1, noon, noon)]
    assert (report.lines, report.rejected_count) == (3, 1)


async def test_the_command_tells_and_writes_what_it_rejects(tmp_path: Path) -> None:
    """A dry run needs no service; each bad line is in the file, by field; the exit code is 1."""
    path = written(tmp_path / "a.csv", line(1), line(2, "many"))
    rejected = tmp_path / "rejected.csv"
    flags = ("--dry-run", "--rejected", rejected, "--json")
    finished = await tallygate("import", "events", path, *flags, data_dir=tmp_path)
    assert finished.code == 1
    assert finished.json()["meters"][0]["units"] == 5
    with rejected.open() as file:
        rows: Iterator[list[str]] = csv.reader(file)
        assert [row[:2] for row in rows] == [["line", "field"], ["3", "amount"]]
    assert not (tmp_path / "imports").exists()
    with pytest.raises(InvalidField), Resumed(Source(path, "", COLUMNS), None) as resumed:
        rejects_to(tmp_path / "none" / "r.csv", resumed.stack, more=False)
