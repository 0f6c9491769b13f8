"""The seams of an export: rows out of the ledger, and a file that they go to.

Guarantees: the rows of an export are of one moment and in an order that depends on nothing else; a
file is there whole or not at all.
Refuses to know: SQL and formats.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.errors import TallygateError
from tallygate.domain.export import Row, Subject
from tallygate.domain.ids import MeterName, TenantId


class FileRefused(TallygateError):
    """The file cannot be written."""

    reason = "INVALID_FIELD"


class EventsArchived(TallygateError):
    """Events of the range are in an archive alone."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """Which rows: `from_us` to before `to_us` of an event's own time, None for no bound."""

    subject: Subject = Subject.EVENTS
    tenant_id: TenantId | None = None
    meter: MeterName | None = None
    from_us: int | None = None
    to_us: int | None = None


@dataclass(frozen=True, slots=True)
class ExportRows:
    """How many rows there are, and they themselves in bounded lists."""

    total: int
    pages: AsyncIterator[Sequence[Row]]


class ExportSource(Protocol):
    """Reads rows to export: events by time, tenant and id, rollups by tenant, meter and bucket."""

    def rows(self, query: ExportQuery) -> AbstractAsyncContextManager[ExportRows]:
        """Lend the rows of one moment, however long they are read.

        Raises `EventsArchived` where events of the range were dropped.
        """
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is whole: where, how long, and its digest in hex."""

    path: str
    size: int
    sha256: str


class RowFile(Protocol):
    """A file that rows are written to."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises `FileRefused`."""
        ...

    def finish(self) -> Written:
        """Put the file in its place, whole and durable. Raises `FileRefused`."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind; after `finish`, do nothing."""
        ...
