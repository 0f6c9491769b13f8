"""Series and anomalies in memory, over the usage of a fake ledger.

Guarantees: passes the same contract tests as the store in Postgres.
Refuses to know: what is unusual.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from tallygate.domain.anomaly import Finding, Series, Tally, Track, Used
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import HOUR_US
from tallygate.ports.anomaly import (
    Advanced,
    AnomalyBacklog,
    Discovered,
    Due,
    SeriesKey,
)
from tallygate.testing.ledger import FakeLedger

Season = dict[int, Track[Tally]]


class FakeAnomalies:
    """The `AnomalyStore` and the `UsageHistory` port. `messages` are those that were told."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger
        self.series: dict[SeriesKey, Series] = {}
        self.seasons: dict[SeriesKey, Season] = {}
        self.noted: dict[tuple[SeriesKey, int], Finding] = {}
        self.messages: list[tuple[SeriesKey, Finding]] = []
        self._lent = asyncio.Lock()

    async def discover(self, after: SeriesKey, count: int, from_us: int) -> Sequence[Discovered]:
        """Return the next tenants' meters that have usage, by tenant and meter."""
        self.ledger.answer()
        usage = self._usage()
        return [
            Discovered(
                key,
                key in self.series,
                min(
                    (hour * HOUR_US for hour in usage[key] if hour * HOUR_US >= from_us),
                    default=None,
                ),
                max(usage[key]) * HOUR_US,
            )
            for key in sorted(usage)
            if key > after
        ][:count]

    async def begin(self, first_hours: Mapping[SeriesKey, int]) -> int:
        """Begin series that are not known, each with its first hour; return how many were not."""
        new = {key: Series(hour) for key, hour in first_hours.items() if key not in self.series}
        self.series |= new
        return len(new)

    @asynccontextmanager
    async def due(
        self, until_hour: int, count: int, hours_max: int
    ) -> AsyncIterator["FakeDueSeries"]:
        """Lend up to `count` series with hours before `until_hour`, `hours_max` of each."""
        self.ledger.answer()
        async with self._lent:
            usage = self._usage()
            behind = sorted(
                (each.next_hour, key)
                for key, each in self.series.items()
                if each.next_hour < until_hour
            )
            due = []
            for _, key in behind[:count]:
                series = self.series[key]
                first = series.next_hour - len(series.looked)
                last = min(until_hour, series.next_hour + hours_max)
                hours = {
                    hour: used for hour, used in usage.get(key, {}).items() if first <= hour < last
                }
                due.append(Due(key, series, dict(self.seasons.get(key, {})), hours))
            kept = dict(self.series), {key: dict(each) for key, each in self.seasons.items()}
            kept_noted, told = dict(self.noted), list(self.messages)
            try:
                yield FakeDueSeries(self, due)
            except BaseException:
                self.series, self.seasons = kept
                self.noted, self.messages = kept_noted, told
                raise

    async def backlog(self) -> AnomalyBacklog:
        """Return how far behind the series are."""
        hours = [each.next_hour for each in self.series.values()]
        return AnomalyBacklog(len(hours), min(hours, default=0))

    async def hours(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> AsyncIterator[tuple[MeterName, int, Used]]:
        """Iterate over the hours with usage, meter after meter, each in order."""
        for key, hours in sorted(self._usage().items()):
            if key.tenant_id == tenant_id and meter in (None, key.meter):
                for hour, used in sorted(hours.items()):
                    if from_us <= hour * HOUR_US < to_us:
                        yield key.meter, hour, used

    async def told(
        self, tenant_id: TenantId, meter: MeterName | None, from_us: int, to_us: int
    ) -> set[tuple[MeterName, int]]:
        """Return the hours, by number, that were noted as anomalies at the time."""
        return {
            (key.meter, hour)
            for key, hour in self.noted
            if key.tenant_id == tenant_id
            and meter in (None, key.meter)
            and from_us <= hour * HOUR_US < to_us
        }

    def _usage(self) -> dict[SeriesKey, dict[int, Used]]:
        found: dict[SeriesKey, dict[int, Used]] = {}
        for event in self.ledger.events.values():
            hours = found.setdefault(SeriesKey(event.tenant_id, event.meter), {})
            hour = event.event_time_us // HOUR_US
            before = hours.get(hour, Used())
            hours[hour] = Used(before.units + event.amount, before.events + (event.amount > 0))
        return found


class FakeDueSeries:
    """The `DueSeries` port."""

    def __init__(self, store: FakeAnomalies, series: Sequence[Due]) -> None:
        self._store = store
        self.series = series

    async def save(self, advanced: Sequence[Advanced], tell_from_hour: int) -> int:
        """Keep what was learned, and note what was found; return how many anomalies are new."""
        store, new = self._store, 0
        for each in advanced:
            if each.series.forgotten:
                del store.series[each.key]
                store.seasons.pop(each.key, None)
            else:
                store.series[each.key] = each.series
                store.seasons.setdefault(each.key, {}).update(each.changed)
            for finding in each.findings:
                place = (each.key, finding.hour)
                if place in store.noted:
                    continue
                store.noted[place] = finding
                new += 1
                if finding.hour >= tell_from_hour and "usage.anomaly" in store.ledger.wanted:
                    store.messages.append((each.key, finding))
        return new
