"""ledger ─▶ [ export ] ─▶ file: rows as they are, in one order, a page in memory.

If we die here, the file is not there, but for a part of it under a name that says so.

Guarantees: the file is there whole or not at all, and has every row of one moment once; the same
rows give the same file.
Refuses to know: SQL and formats.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tallygate.ports.export import ExportQuery, ExportSource, RowFile, Written


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many rows, and the file."""

    rows: int
    file: Written


async def export(
    source: ExportSource,
    query: ExportQuery,
    file: RowFile,
    progress: Callable[[int, int], None],
) -> Exported:
    """Write all rows that a query covers; `progress` is told how many of how many are written.

    Raises `EventsArchived`, `FileRefused` and what the source raises; then there is no file.
    """
    done = 0
    try:
        async with source.rows(query) as found:
            progress(0, found.total)
            async for page in found.pages:
                file.write(page)
                done += len(page)
                progress(done, found.total)
            assert done == found.total, (done, found.total)
        return Exported(done, file.finish())
    finally:
        file.abandon()
