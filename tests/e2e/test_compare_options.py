"""What `tallygate compare` is asked is checked before anything is read, and named where wrong."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from tallygate.commands import compare, imports, other_file
from tallygate.domain.compare import Tolerance
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import Columns, Format
from tallygate.flow.compare import By, CompareOptions


@pytest.mark.parametrize(
    ("columns", "options", "field"),
    [
        (Columns(tenant=""), CompareOptions(), "--tenant"),
        (Columns(meter=""), CompareOptions(), "--meter"),
        (Columns(time=""), CompareOptions(), "--time-column"),
        (Columns(), CompareOptions(events=True, totals=True), "--total-column"),
        (Columns(), CompareOptions(events=True, figure="count"), "--figure"),
    ],
)
def test_options_that_contradict_are_refused(
    columns: Columns, options: CompareOptions, field: str
) -> None:
    """The option that is missing, or one too many, is named."""
    with pytest.raises(InvalidField) as raised:
        compare._check(columns, options)
    assert raised.value.field == field


def test_options_that_fit_pass() -> None:
    """A file of one tenant and meter, without times, is compared as a whole."""
    columns = Columns(tenant="", meter="", time="", only_tenant="acme", only_meter="requests")
    compare._check(columns, CompareOptions(by=By.TOTAL, totals=True))


def test_tolerances() -> None:
    """Units are exact decimals; a percentage is a part of ours."""
    assert compare._tolerance("0") == Tolerance()
    assert compare._tolerance("2.5") == Tolerance(units=Decimal("2.5"))
    assert compare._tolerance("0.1%") == Tolerance(part=Decimal("0.001"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: compare._tolerance("a bit"),
        lambda: compare._tolerance("-1"),
        lambda: compare._tolerance("nan"),
        lambda: other_file.number("1e99", "--unit"),
        lambda: other_file.meters_of(["calls"]),
        lambda: other_file.meters_of(["calls=API calls"]),
        lambda: other_file.dimensions_of(["model"]),
        lambda: other_file.dimensions_of(["=column"]),
        lambda: imports._check(Columns(tenant="", event_id="id")),
        lambda: imports._check(Columns(meter="", event_id="id")),
        lambda: imports._check(Columns()),
        lambda: imports._check(Columns(time="", event_id="id")),
        lambda: compare._figure("mean"),
        lambda: other_file.form_of("xml", Path("a.xml")),
        lambda: other_file.opened(Path("/nowhere/a.csv"), "r", "FILE"),
    ],
)
def test_values_that_are_none_are_refused(wrong: Callable[[], object]) -> None:
    """What is no number, name, format or file is refused by a field, not by a traceback."""
    with pytest.raises(InvalidField) as raised:
        wrong()
    assert raised.value.field.startswith("--") or raised.value.field == "FILE"


def test_the_format_is_that_of_the_name() -> None:
    """CSV by its name, JSON lines else; an option goes before."""
    assert other_file.form_of("", Path("a.csv")) is Format.CSV
    assert other_file.form_of("", Path("a.ndjson")) is Format.JSONL
    assert other_file.form_of("csv", Path("a.txt")) is Format.CSV


def test_lines_are_bounded_and_utf_8(tmp_path: Path) -> None:
    """A line without an end, or bytes that are no text, are named by their line."""
    long, binary = tmp_path / "long", tmp_path / "binary"
    long.write_text("a\n" + "b" * (other_file.LINE_LENGTH_MAX + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    for path, place in ((long, "line 2"), (binary, "line 1")):
        with other_file.opened(path, "r", "FILE") as file, pytest.raises(InvalidField) as raised:
            list(other_file.lines(file))
        assert raised.value.field == place
