"""Sorting more entries than memory holds: sorted runs in a folder of their own, merged.

Guarantees: at most `run_max` entries and one line of each run are in memory; at most `runs_max`
files are open; the folder is gone when the block ends.
Refuses to know: what entries are compared with.
"""

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

from tallygate.domain.compare import Entry, merged
from tallygate.domain.ids import MeterName, TenantId

# Some hundred bytes each.
RUN_MAX: Final = 100_000
# Below the files that a process may usually have open.
RUNS_MAX: Final = 64


@contextmanager
def entry_sort(run_max: int = RUN_MAX, runs_max: int = RUNS_MAX) -> Iterator["DiskEntrySort"]:
    """Lend a sort with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="tallygate-compare-") as folder:
        yield DiskEntrySort(Path(folder), run_max, runs_max)


class DiskEntrySort:
    """The `EntrySort` port."""

    def __init__(self, folder: Path, run_max: int, runs_max: int) -> None:
        self._folder = folder
        self._run_max = run_max
        self._runs_max = runs_max
        self._entries: dict[tuple[str, str, int], Entry] = {}
        self._runs: list[Path] = []
        self._made = 0

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        before = self._entries.get(entry.key)
        self._entries[entry.key] = before.plus(entry) if before is not None else entry
        if len(self._entries) >= self._run_max:
            self._write(self._sorted())
            self._entries = {}
            if len(self._runs) >= self._runs_max:
                self._gather()

    def ordered(self) -> Iterator[Entry]:
        """Iterate over all that were taken, by key, those of one key as one; once."""
        with ExitStack() as stack:
            runs = [self._read(stack, path) for path in self._runs]
            yield from merged(heapq.merge(*runs, self._sorted(), key=lambda entry: entry.key))

    def _sorted(self) -> list[Entry]:
        return [self._entries[key] for key in sorted(self._entries)]

    def _gather(self) -> None:
        """Make one run of all."""
        with ExitStack() as stack:
            runs = [self._read(stack, path) for path in self._runs]
            gone, self._runs = self._runs, []
            self._write(merged(heapq.merge(*runs, key=lambda entry: entry.key)))
        for path in gone:
            path.unlink()

    def _write(self, entries: Iterable[Entry]) -> None:
        self._made += 1
        path = self._folder / f"{self._made}.jsonl"
        with path.open("w") as file:
            for each in entries:
                row = (
                    *(each.tenant_id, each.meter, each.bucket_us),
                    *(str(each.units), each.event_id, each.rows),
                )
                file.write(json.dumps(row) + "\n")
        self._runs.append(path)

    def _read(self, stack: ExitStack, path: Path) -> Iterator[Entry]:
        for line in stack.enter_context(path.open()):
            tenant, meter, bucket_us, units, event_id, rows = json.loads(line)
            yield Entry(
                TenantId(tenant), MeterName(meter), bucket_us, Decimal(units), event_id, rows
            )
