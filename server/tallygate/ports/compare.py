"""The seams of comparing with another system's export: our usage in order, and sorting theirs.

Guarantees: what is read is of one snapshot, in the order of `Entry.key`; no more than a bounded
part of anything is in memory.
Refuses to know: SQL, and where rows are sorted.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.compare import Entry
from tallygate.domain.ids import MeterName, TenantId


@dataclass(frozen=True, slots=True)
class OurUsage:
    """Which of our usage: from an instant to before another; None for all tenants or meters."""

    from_us: int
    to_us: int
    tenant_id: TenantId | None = None
    meter: MeterName | None = None


class ComparedUsage(Protocol):
    """Reads our usage in order. Raises `BackendUnavailable` when it does not answer in time.

    Events that are in an archive alone are refused as `EventsArchived`.
    """

    def buckets(self, asked: OurUsage, by: str, figure: str) -> AsyncIterator[Entry]:
        """Iterate over buckets of a minute, hour or day, by tenant, meter and time.

        `figure` is what each has: its "sum" or its "count" of events.
        """
        ...

    def events(self, asked: OurUsage) -> AsyncIterator[Entry]:
        """Iterate over events, by tenant and event id; each one's bucket is its own time."""
        ...


class EntrySort(Protocol):
    """Sorts more entries than memory holds."""

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        ...

    def ordered(self) -> Iterator[Entry]:
        """Iterate over all that were taken, by key, those of one key as one; once."""
        ...
