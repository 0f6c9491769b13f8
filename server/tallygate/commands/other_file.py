"""Another system's file on the command line: the options that say how it is to be read.

Guarantees: an option that is none is refused by its name, a file by its line; a file is read line
by line, each of bounded length.
Refuses to know: what is done with the rows.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, TextIO, cast

import typer

from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.other_export import Format, TimeFormat

# A line is in memory whole.
LINE_LENGTH_MAX: Final = 1024 * 1024
GZIP: Final = b"\x1f\x8b"
STDIN: Final = Path("-")

Export = Annotated[
    Path,
    typer.Argument(
        help="The export: CSV with a header, or JSON lines, gzip too; - is stdin.", dir_okay=False
    ),
]
Form = Annotated[str, typer.Option("--format", help="csv or jsonl; else by the file's name.")]
TenantColumn = Annotated[str, typer.Option(help="Whose; empty if all is --tenant's.")]
MeterColumn = Annotated[str, typer.Option(help="Of what; empty if all is of --meter.")]
TimeColumn = Annotated[str, typer.Option(help="When; empty for --by total.")]
Times = Annotated[TimeFormat, typer.Option(help="ISO 8601, or s, ms, us since the epoch.")]
Names = Annotated[
    list[str] | None, typer.Option("--map", help="THEIRS=OURS, of a meter's name; repeated.")
]
Unit = Annotated[str, typer.Option(help="How many of our units one of theirs is.")]
OnlyTenant = Annotated[str, typer.Option(help="Only this tenant.")]
OnlyMeter = Annotated[str, typer.Option(help="Only this meter, by our name.")]


def opened(file: Path, mode: Literal["r", "w"], name: str) -> TextIO:
    """Open a file as UTF-8, a mark of its order of bytes left out. Raises `InvalidField`.

    What is read may be compressed by gzip, and `-` is what comes in on stdin.
    """
    try:
        if mode == "r":
            return _unpacked(file)
        return file.open(mode, encoding="utf-8", newline="")
    except OSError as error:
        raise InvalidField(f"cannot be opened: {error.strerror}", field=name) from None


def _unpacked(file: Path) -> TextIO:
    """Return the text of a file, unpacked where it begins as gzip does."""
    plain = sys.stdin.buffer if file == STDIN else file.open("rb")
    # What has a buffer can be looked at without being read; a file that is opened has one.
    content = cast(io.BufferedReader, plain)
    if not content.peek(len(GZIP)).startswith(GZIP):
        return io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
    if file == STDIN:
        packed = gzip.GzipFile(fileobj=content)
    else:
        # It closes with what reads it only where it is opened by its name.
        content.close()
        packed = gzip.GzipFile(file)
    return io.TextIOWrapper(cast(BinaryIO, packed), encoding="utf-8-sig", newline="")


def lines(file: TextIO) -> Iterator[str]:
    """Iterate over a file's lines. Raises `InvalidField` where it is not UTF-8, or has no lines."""
    count = 0
    try:
        while line := file.readline(LINE_LENGTH_MAX):
            count += 1
            if len(line) == LINE_LENGTH_MAX:
                raise InvalidField("is too long", field=f"line {count}")
            yield line
    except UnicodeDecodeError:
        raise InvalidField("is not UTF-8", field=f"line {count + 1}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InvalidField("is no gzip any more", field=f"line {count + 1}") from None


def form_of(form: str, file: Path) -> Format:
    """Return the format that is named, or that the file's name says. Raises `InvalidField`."""
    name = file.name.removesuffix(".gz")
    named = form or ("csv" if name.endswith(".csv") else "jsonl")
    if named not in tuple(Format):
        raise InvalidField("must be csv or jsonl", field="--format")
    return Format(named)


def meters_of(names: Sequence[str]) -> dict[str, str]:
    """Return our names of meters by theirs, of THEIRS=OURS. Raises `InvalidField`."""
    found: dict[str, str] = {}
    for text in names:
        theirs, equals, ours = text.partition("=")
        if not equals or not theirs or not ids.is_name(ours):
            raise InvalidField(f"{text!r} is not THEIRS=OURS", field="--map")
        found[theirs] = ours
    return found


def dimensions_of(names: Sequence[str]) -> dict[str, str]:
    """Return columns by the dimensions that they are, of NAME=COLUMN. Raises `InvalidField`."""
    found: dict[str, str] = {}
    for text in names:
        name, equals, column = text.partition("=")
        if not equals or not name or not column:
            raise InvalidField(f"{text!r} is not NAME=COLUMN", field="--dimension")
        found[name] = column
    return found


def number(text: str, option: str) -> Decimal:
    """Return a number that is not below 0. Raises `InvalidField` naming the option."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or found < 0 or abs(found.adjusted()) > 20:
        raise InvalidField("must be a number, 0 or above", field=option)
    return found
