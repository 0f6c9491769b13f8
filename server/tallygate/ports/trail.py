"""The seam of the audit log: rows are appended and read, and never changed.

Guarantees: what `append` has returned of is there for ever, with a number and a time of the log's
own; entries of one call of it follow each other.
Refuses to know: SQL, and who may ask.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.trail import TrailEntry, TrailHead, TrailLink


@dataclass(frozen=True, slots=True)
class TrailQuery:
    """Which rows, the newest first: empty and None for all; `before` is a row's number."""

    tenant_id: str = ""
    actor: str = ""
    action: str = ""
    from_us: int | None = None
    to_us: int | None = None
    before: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class TrailChain:
    """The chain of one moment: its end, and its rows by number in bounded lists."""

    head: TrailHead
    pages: AsyncIterator[Sequence[TrailLink]]


class TrailLog(Protocol):
    """The audit log."""

    async def append(self, entries: Sequence[TrailEntry]) -> int:
        """Append entries in their order, all or none; return the number of the last."""
        ...

    async def page(self, query: TrailQuery) -> Sequence[TrailLink]:
        """Return the newest rows that a query covers."""
        ...

    def chain(self) -> AbstractAsyncContextManager[TrailChain]:
        """Lend the whole chain as it is now, however long it is read."""
        ...
