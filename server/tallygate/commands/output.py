"""How commands speak: tables for people, JSON for programs, errors on stderr.

Guarantees: with `--json`, stdout holds one JSON document and nothing else.
Refuses to know: what is shown.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tallygate.domain.errors import CatalogInvalid, TallygateError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

Result = TypeVar("Result")

errors = Console(stderr=True, highlight=False)
console = Console(highlight=False)

Cell = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: column names, and rows of as many values."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def show(sheets: Sequence[Sheet], *, as_json: bool) -> None:
    """Print tables, or all of them as one JSON object by title."""
    if as_json:
        document = {
            sheet.title: [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
            for sheet in sheets
        }
        print(json.dumps(document, indent=2))  # noqa: T201  the document is the command's output
        return
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left")
        for place, column in enumerate(sheet.columns):
            numeric = all(isinstance(row[place], int | float) for row in sheet.rows)
            side: Literal["left", "right"] = "right" if numeric and sheet.rows else "left"
            table.add_column(column, justify=side, overflow="fold")
        for row in sheet.rows:
            table.add_row(*(_cell(value) for value in row))
        console.print(table)


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def progress() -> Progress:
    """Return a progress bar on stderr."""
    return Progress(
        TextColumn("     {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=errors,
    )


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Show on stderr how many have been done, where the total is not known; lend what counts."""
    bar = Progress(
        TextColumn("     {task.completed:,.0f} {task.description}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda count: bar.advance(task, count)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work; what goes wrong is said in a line, with exit code 1."""
    try:
        return asyncio.run(work)
    except TallygateError as error:
        fail(error)
    except ExceptionGroup as group:
        fail(_first_of_ours(group) or group)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _first_of_ours(group: ExceptionGroup) -> TallygateError | None:
    """Return the first of several errors that a person should read."""
    for error in group.exceptions:
        found = _first_of_ours(error) if isinstance(error, ExceptionGroup) else error
        if isinstance(found, TallygateError):
            return found
    return None


def fail(error: Exception) -> NoReturn:
    """Say what went wrong and exit with 1; what is not ours is raised as it is."""
    if not isinstance(error, TallygateError):
        raise error
    where = f"{error.field}: " if error.field else ""
    errors.print(f"tallygate: {where}{error.message}", style="red", markup=False)
    if isinstance(error, CatalogInvalid):
        for fault in error.faults:
            guess = f"; did you mean {fault.suggestion}?" if fault.suggestion else ""
            errors.print(f"  line {fault.line}: {fault.path} {fault.message}{guess}", markup=False)
    raise typer.Exit(EXIT_FAILED)
