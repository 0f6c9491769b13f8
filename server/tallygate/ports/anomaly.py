"""The seam of looking for unusual usage: series that are due, what is learned of them, and history.

Guarantees: an hour of a series is looked at once, and once more when it is final, however many
processes look; an anomaly is noted, and told, once for each tenant, meter and hour.
Refuses to know: SQL, and what is unusual.

A method raises `BackendUnavailable` when the store does not answer in time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tallygate.domain.anomaly import Finding, Series, Tally, Track, Used
from tallygate.domain.ids import MeterName, TenantId


class SeriesKey(NamedTuple):
    """Whose usage of which meter."""

    tenant_id: TenantId
    meter: MeterName


@dataclass(frozen=True, slots=True)
class Discovered:
    """A tenant's meter that has usage: since when, but not before what was asked, and until when.

    `first_us` is None where all of it is older.
    """

    key: SeriesKey
    known: bool
    first_us: int | None
    last_us: int


@dataclass(frozen=True, slots=True)
class Due:
    """A series with hours to be looked at, and its usage by hour, from the first of `looked` on."""

    key: SeriesKey
    series: Series
    season: Mapping[int, Track[Tally]]
    usage: Mapping[int, Used]


@dataclass(frozen=True, slots=True)
class Advanced:
    """A series after its hours were looked at: which hours of the week changed, what was found."""

    key: SeriesKey
    series: Series
    changed: Mapping[int, Track[Tally]]
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class AnomalyBacklog:
    """How many series there are, and the first hour that one has yet to look at; 0 for none."""

    series: int
    next_hour: int


class DueSeries(Protocol):
    """Series that nobody else has until the end of the block they were lent in."""

    @property
    def series(self) -> Sequence[Due]:
        """The series, those that are furthest behind first."""
        ...

    async def save(self, advanced: Sequence[Advanced], tell_from_hour: int) -> int:
        """Keep what was learned, and note what was found; return how many anomalies are new.

        Those of `tell_from_hour` and later are told. A series that is `forgotten` is not kept. All
        of it takes effect when the block ends well, or nothing does.
        """
        ...


class AnomalyStore(Protocol):
    """Keeps what is known of series, and the anomalies."""

    async def discover(self, after: SeriesKey, count: int, from_us: int) -> Sequence[Discovered]:
        """Return the next tenants' meters that have usage, by tenant and meter."""
        ...

    async def begin(self, first_hours: Mapping[SeriesKey, int]) -> int:
        """Begin series that are not known, each with its first hour; return how many were not."""
        ...

    def due(
        self, until_hour: int, count: int, hours_max: int
    ) -> AbstractAsyncContextManager[DueSeries]:
        """Lend up to `count` series with hours before `until_hour`, `hours_max` of each."""
        ...

    async def backlog(self) -> AnomalyBacklog:
        """Return how far behind the series are."""
        ...


class UsageHistory(Protocol):
    """Reads usage by hour, for a look back."""

    def hours(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> AsyncIterator[tuple[MeterName, int, Used]]:
        """Iterate over the hours with usage, meter after meter, each in order."""
        ...

    async def told(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> set[tuple[MeterName, int]]:
        """Return the hours, by number, that were noted as anomalies at the time."""
        ...


class SettledUsage(Protocol):
    """Knows how far the ledger is complete."""

    async def settled_us(self) -> int:
        """Return an instant before which all that was accepted is in the ledger."""
        ...
