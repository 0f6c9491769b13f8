"""Where `tallygate import events` takes rows from, how far it came, and where bad rows go.

Guarantees: an import that was interrupted goes on where it was confirmed, if the file is still the
same up to there, and from the start otherwise; one that was finished leaves nothing behind.
Refuses to know: how usage is recorded.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import typer

from tallygate.commands import progress_file
from tallygate.commands.import_calls import ImportReport, Rejected
from tallygate.commands.other_file import STDIN, form_of, lines, opened
from tallygate.commands.progress_file import ImportProgress
from tallygate.domain.errors import InvalidField
from tallygate.domain.event_rules import EventReader
from tallygate.domain.ids import is_name
from tallygate.domain.other_export import (
    Columns,
    OtherRow,
    RowFault,
    read_cloud_events,
    read_each,
)
from tallygate.wiring import tools

CLOUD_EVENTS: Final = "cloudevents"
REJECTED_COLUMNS: Final = ("line", "field", "reason")

EventForm = Annotated[
    str, typer.Option("--format", help="csv, jsonl or cloudevents; else by the file's name.")
]
Catalog = Annotated[
    Path | None,
    typer.Option("--catalog", help="A catalog whose `ingest` says what CloudEvents mean."),
]
RejectedTo = Annotated[
    Path | None,
    typer.Option("--rejected", help="Where lines go that are no usage: CSV, by line and field."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Send nothing; show what would be, by meter.")
]
FromStart = Annotated[
    bool, typer.Option("--from-start", help="Do not go on where an earlier run was interrupted.")
]


class _EveryName(Sequence[str]):
    """All that could be a meter's name: without a catalog the service is asked."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and is_name(name)

    def __getitem__(self, index: object) -> str:
        raise IndexError(index)

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how it is read."""

    file: Path
    form: str
    columns: Columns
    catalog: Path | None = None

    @property
    def cloud_events(self) -> bool:
        """Whether its lines are CloudEvents."""
        return self.form == CLOUD_EVENTS

    def rows(self, text: Iterator[str]) -> Iterator[OtherRow | RowFault]:
        """Iterate over its rows. Raises `InvalidField`."""
        if not self.cloud_events:
            return read_each(text, form_of(self.form, self.file), self.columns)
        if self.catalog is None:
            return read_cloud_events(text, EventReader(meters=_EveryName()))
        parsed = tools.parsed_catalog(self.catalog).catalog
        return read_cloud_events(text, EventReader(parsed.ingest, frozenset(parsed.meters)))

    def identity(self) -> str:
        """Return a name for this file, read in this way."""
        asked = f"{self.file.resolve()}\n{self.form}\n{self.columns}\n{self.catalog}"
        return hashlib.sha256(asked.encode()).hexdigest()[:32]


@dataclass(slots=True)
class Resumed:
    """A source from where it was confirmed; used as a context. `progress` None keeps no place."""

    source: Source
    progress: Path | None
    from_start: bool = False
    report: ImportReport = field(default_factory=ImportReport)
    stack: ExitStack = field(default_factory=ExitStack)
    skipped: int = 0
    _read: int = 0
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def __enter__(self) -> Self:
        """Find how far an earlier run came. Raises `InvalidField`."""
        known = None if self.progress is None else progress_file.read(self._path(), self._name())
        if known is not None and not self.from_start and self._same(known):
            self.skipped = self.report.skipped_lines = known.lines
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()

    def rows(self) -> Iterator[OtherRow | RowFault]:
        """Iterate over the rows that are not confirmed. Raises `InvalidField`."""
        text = self.stack.enter_context(opened(self.source.file, "r", "FILE"))
        for row in self.source.rows(self._counted(lines(text))):
            if row.line > self.skipped:
                yield row

    def confirm(self) -> None:
        """Note that all that was read is recorded."""
        if self.progress is not None and self._read > self.skipped:
            digest = self._digest.hexdigest()
            progress_file.write(
                self._path(), ImportProgress(self._name(), 0, self._read, digest=digest)
            )

    def done(self) -> None:
        """Forget the place: who runs it again means all of the file."""
        if self.progress is not None:
            self._path().unlink(missing_ok=True)

    def _counted(self, text: Iterator[str]) -> Iterator[str]:
        for line in text:
            self._read += 1
            self._digest.update(line.encode())
            yield line

    def _same(self, known: ImportProgress) -> bool:
        """Say whether the file still has what was confirmed of it."""
        digest = hashlib.sha256()
        with opened(self.source.file, "r", "FILE") as text:
            for number, line in enumerate(lines(text), 1):
                digest.update(line.encode())
                if number == known.lines:
                    return digest.hexdigest() == known.digest
        return False

    def _name(self) -> str:
        return self.source.identity()

    def _path(self) -> Path:
        assert self.progress is not None
        return self.progress / f"{self._name()}.json"


def rejects_to(
    path: Path | None, stack: ExitStack, *, more: bool
) -> Callable[[Rejected], None] | None:
    """Return what writes rejected lines to a file, or after what is there already.

    Raises `InvalidField`.
    """
    if path is None:
        return None
    if path == STDIN:
        raise InvalidField("must be a file", field="--rejected")
    try:
        file = stack.enter_context(path.open("a" if more else "w", encoding="utf-8", newline=""))
    except OSError as error:
        raise InvalidField(f"cannot be opened: {error.strerror}", field="--rejected") from None
    writer = csv.writer(file)
    if not more:
        writer.writerow(REJECTED_COLUMNS)
    return lambda each: writer.writerow((each.line, each.field, each.reason)) and None
