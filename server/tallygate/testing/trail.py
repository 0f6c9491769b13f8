"""An audit log in memory.

Guarantees: passes the same contract tests as the one in Postgres.
Refuses to know: who asks.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tallygate.domain.trail import TrailEntry, TrailHead, TrailLink, linked
from tallygate.ports.trail import TrailChain, TrailQuery


@dataclass(slots=True)
class FakeTrailLog:
    """The `TrailLog` port over a list; `failure` is raised by the next append instead.

    `end` is the end of the chain as it was last written.
    """

    rows: list[TrailLink] = field(default_factory=list)
    end: TrailHead = field(default_factory=TrailHead)
    page_max: int = 2
    appends: int = 0
    failure: Exception | None = None

    async def append(self, entries: Sequence[TrailEntry]) -> int:
        """Append entries in their order, all or none; return the number of the last."""
        self.appends += 1
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        for entry in entries:
            seq = self.end.seq + 1
            link = linked(seq, 1_000_000 * seq, entry, self.end.hash)
            self.rows.append(link)
            self.end = TrailHead(seq, link.hash)
        return self.end.seq

    async def page(self, query: TrailQuery) -> Sequence[TrailLink]:
        """Return the newest rows that a query covers."""
        return [row for row in reversed(self.rows) if _asked(row, query)][: query.limit]

    @asynccontextmanager
    async def chain(self) -> AsyncIterator[TrailChain]:
        """Lend the whole chain as it is now, however long it is read."""
        yield TrailChain(self.end, _paged([*self.rows], self.page_max))


async def _paged(rows: list[TrailLink], page_max: int) -> AsyncIterator[Sequence[TrailLink]]:
    for start in range(0, len(rows), page_max):
        yield rows[start : start + page_max]


def _asked(row: TrailLink, query: TrailQuery) -> bool:
    entry = row.entry
    return (
        query.tenant_id in ("", entry.tenant_id)
        and query.actor in ("", entry.actor)
        and query.action in ("", entry.action)
        and (query.from_us is None or row.at_us >= query.from_us)
        and (query.to_us is None or row.at_us < query.to_us)
        and (query.before is None or row.seq < query.before)
    )
