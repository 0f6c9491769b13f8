"""Rows of other systems' exports are read as they are, or refused by line and column."""

from decimal import Decimal

import pytest

from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.other_export import Columns, Format, OtherRow, TimeFormat, read

NOON = "2026-11-20T10:00:00Z"
NOON_US = 1_795_168_800_000_000
HEAD = "tenant_id,meter,event_time,amount\n"


def csv_rows(*lines: str, head: str = HEAD, **columns: object) -> list[OtherRow]:
    """Read rows of CSV."""
    asked = Columns(**columns)  # type: ignore[arg-type]  # fields by name
    return list(read([head, *lines], Format.CSV, asked))


def test_csv_and_json_say_the_same() -> None:
    """Both give a row with its line, exact amount and time, whatever else is in it."""
    wanted = OtherRow(2, TenantId("acme"), MeterName("requests"), NOON_US, Decimal("0.1"), "e-1")
    found = csv_rows(
        f'acme,"requests",{NOON},0.1,e-1,"a\nb"\n',
        head="tenant_id,meter,event_time,amount,id,note\n",
        event_id="id",
    )
    assert [(each.tenant_id, each.units, each.event_id) for each in found] == [
        ("acme", Decimal("0.1"), "e-1")
    ]
    line = (
        f'{{"tenant_id": "acme", "meter": "requests", "event_time": "{NOON}",'
        ' "amount": 0.1, "id": "e-1", "x": [1]}'
    )
    assert list(read(["\n", line], Format.JSONL, Columns(event_id="id"))) == [wanted]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (TimeFormat.ISO, "2026-11-20T10:00:00"),
        (TimeFormat.ISO, "2026-11-20 11:00:00+01:00"),
        (TimeFormat.SECONDS, "1795168800"),
        (TimeFormat.SECONDS, "1795168800.0000004"),
        (TimeFormat.MILLISECONDS, "1.7951688e12"),
        (TimeFormat.MICROSECONDS, "1795168800000000"),
    ],
)
def test_times_are_exact(form: TimeFormat, text: str) -> None:
    """The same instant in each way of writing it, to the microsecond, never through a float."""
    (row,) = csv_rows(f"acme,requests,{text},1\n", time_format=form)
    assert row.time_us == NOON_US


def test_names_and_units_are_ours() -> None:
    """Meters are mapped and amounts are scaled before anything is compared, exactly."""
    (row,) = csv_rows(
        f"acme,API calls,{NOON},1.000000000000001\n",
        meters={"API calls": "requests"},
        unit=Decimal(1_000),
    )
    assert (row.meter, row.units) == ("requests", Decimal("1000.000000000001000"))


def test_missing_columns_can_be_given() -> None:
    """A file of one tenant and one meter needs neither column; of others, rows are left out."""
    (row,) = csv_rows(
        "7\n",
        head="n\n",
        tenant="",
        meter="",
        time="",
        amount="n",
        only_tenant="acme",
        only_meter="requests",
    )
    assert (row.tenant_id, row.meter, row.time_us, row.units) == ("acme", "requests", 0, Decimal(7))
    rows = csv_rows(
        f"acme,requests,{NOON},1\n",
        f"other,requests,{NOON},2\n",
        f"acme,calls,{NOON},3\n",
        only_tenant="acme",
        only_meter="requests",
        meters={"calls": "requests"},
    )
    assert [each.units for each in rows] == [1, 3]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("acme,requests,yesterday,1\n", "line 2, event_time"),
        (f"acme,requests,{NOON},a lot\n", "line 2, amount"),
        (f"acme,requests,{NOON},nan\n", "line 2, amount"),
        (f"acme,requests,{NOON},Infinity\n", "line 2, amount"),
        (f"acme,requests,{NOON},1e999999\n", "line 2, amount"),
        (f"acme,requests,{NOON}\n", "line 2, amount"),
        (f"a b,requests,{NOON},1\n", "line 2, tenant_id"),
        (f",requests,{NOON},1\n", "line 2, tenant_id"),
        (f"acme,API calls,{NOON},1\n", "line 2, meter"),
        ('acme,"requests\n', "line 2"),
    ],
)
def test_a_wrong_row_is_named(line: str, place: str) -> None:
    """The line and the column that cannot be read are said, and nothing is guessed."""
    with pytest.raises(InvalidField) as raised:
        csv_rows(line)
    assert raised.value.field == place


@pytest.mark.parametrize(
    "line", ["{", "[1]", "7", '{"tenant_id": "a"}', '{"tenant_id": {}}', '"x"']
)
def test_wrong_json_is_named(line: str) -> None:
    """What is no object, or lacks a column, is said by its line."""
    with pytest.raises(InvalidField) as raised:
        list(read(["\n", line], Format.JSONL, Columns()))
    assert raised.value.field.startswith("line 2")


def test_a_missing_column_is_named() -> None:
    """A header without a column that was asked for is refused before any row is read."""
    with pytest.raises(InvalidField, match="no column 'meter'"):
        csv_rows(head="tenant_id,event_time,amount\n")


def test_a_time_beyond_all_calendars_is_refused() -> None:
    """Seconds of a million years are no time."""
    with pytest.raises(InvalidField) as raised:
        csv_rows("acme,requests,99999999999999,1\n", time_format=TimeFormat.SECONDS)
    assert raised.value.field == "line 2, event_time"


def test_columns_lie_within_objects() -> None:
    """A dotted name is a column of that name, or what lies in an object; a count has no amount."""
    line = (
        f'{{"id": "e-1", "subject": "acme", "type": "prompt", "time": "{NOON}",'
        ' "data": {"tokens": 12, "model": "small", "none": null}, "data.tokens": 13}'
    )
    asked = Columns(
        *("subject", "type", "time", "data.tokens", "id"),
        dimensions={"model": "data.model", "region": "data.region", "none": "data.none"},
    )
    (row,) = read([line], Format.JSONL, asked)
    assert (row.units, row.dimensions) == (Decimal(13), {"model": "small"})
    inner = line.replace(', "data.tokens": 13', "")
    (row,) = read([inner], Format.JSONL, asked)
    assert row.units == Decimal(12)
    (row,) = read([inner], Format.JSONL, Columns("subject", "type", "time", "", "id"))
    assert row.units == Decimal(1)


@pytest.mark.parametrize("column", ["data", "data.model.name", "data.", ".tokens", "time.zone"])
def test_what_is_no_cell_is_missing(column: str) -> None:
    """An object, or a way into what is none, is refused by its name."""
    line = (
        f'{{"tenant_id": "acme", "meter": "m", "event_time": "{NOON}", "data": {{"model": "s"}}}}'
    )
    with pytest.raises(InvalidField) as raised:
        list(read([line], Format.JSONL, Columns(amount=column)))
    assert raised.value.field == f"line 1, {column}"
