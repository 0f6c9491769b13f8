"""usage by hour ─▶ [ anomaly ] ─▶ series learned, anomalies noted, messages in the outbox.

If we die here in a run, nothing of it has happened: hours looked at, what was learned of them and
what was found are one transaction, and the next run finds the same hours due.

Guarantees: every hour is looked at once, when the ledger has all that was accepted in it, and once
more some hours later if late usage has changed it; a run is bounded in series and hours.
Refuses to know: SQL, what is unusual, and who is told.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.anomaly import (
    WEEK_HOURS,
    Direction,
    Finding,
    Options,
    Series,
    Used,
    advance,
)
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import UsageStream
from tallygate.ports.anomaly import (
    Advanced,
    AnomalyBacklog,
    AnomalyStore,
    Due,
    SeriesKey,
    SettledUsage,
    UsageHistory,
)

# What apps send at once after the hour, and clocks that differ.
SETTLE_US: Final = 5 * MINUTE_US
# A generation of the hours of the week, and the one before it.
HISTORY_HOURS: Final = 8 * WEEK_HOURS
# A series is forgotten after a week or two without usage; one that has ended is not begun again.
ACTIVE_US: Final = 6 * DAY_US
# Who has just switched this on does not want to be woken for last month.
TOLD_HOURS: Final = 48
# A transaction of a second or so at most, in which other tasks have their turns.
SERIES_MAX: Final = 100
HOURS_MAX: Final = WEEK_HOURS
DISCOVER_MAX: Final = 1_000
NOWHERE: Final = SeriesKey(TenantId(""), MeterName(""))


class AnomalyObserver(Protocol):
    """What looking at usage tells."""

    def looked(self, hours: int, found: dict[str, int]) -> None:
        """So many hours were looked at; anomalies were found, by direction."""

    def behind(self, backlog: AnomalyBacklog, until_hour: int) -> None:
        """The series are so far behind the hour that could be looked at."""


class SilentAnomalies:
    """Hears nothing."""

    def looked(self, hours: int, found: dict[str, int]) -> None:
        """Ignore it."""

    def behind(self, backlog: AnomalyBacklog, until_hour: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class AnomalyParts:
    """What is looked at, and who is told."""

    store: AnomalyStore
    settled: SettledUsage
    observer: AnomalyObserver = field(default_factory=SilentAnomalies)


@dataclass(frozen=True, slots=True)
class AnomalyCounts:
    """What one run did: series begun, hours looked at, anomalies that are new."""

    begun: int = 0
    hours: int = 0
    found: int = 0
    more: bool = False


class FindAnomalies:
    """Looks at the usage of all series, run by run."""

    def __init__(self, parts: AnomalyParts, options: Options) -> None:
        self._parts = parts
        self._options = options
        self._after = NOWHERE
        self._discovered_hour = 0

    async def run_once(self) -> AnomalyCounts:
        """Find series that are new, a page of them; look at a page of those that are due."""
        settled_us = await self._parts.settled.settled_us() - SETTLE_US
        until_hour = settled_us // HOUR_US
        begun, undiscovered = await self._discover(settled_us)
        hours, found, behind = await self._look(until_hour)
        self._parts.observer.behind(await self._parts.store.backlog(), until_hour)
        return AnomalyCounts(begun, hours, found, undiscovered or behind)

    async def _discover(self, settled_us: int) -> tuple[int, bool]:
        """Begin series of the next page, once an hour for each; say if there may be more."""
        until_hour = settled_us // HOUR_US
        if until_hour == self._discovered_hour:
            return 0, False
        from_us = (until_hour - HISTORY_HOURS) * HOUR_US
        page = await self._parts.store.discover(self._after, DISCOVER_MAX, from_us)
        begun = await self._parts.store.begin(
            {
                each.key: each.first_us // HOUR_US
                for each in page
                if not each.known
                and each.first_us is not None
                and each.last_us >= settled_us - ACTIVE_US
            }
        )
        if len(page) == DISCOVER_MAX:
            self._after = page[-1].key
            return begun, True
        self._after, self._discovered_hour = NOWHERE, until_hour
        return begun, False

    async def _look(self, until_hour: int) -> tuple[int, int, bool]:
        async with self._parts.store.due(until_hour, SERIES_MAX, HOURS_MAX) as due:
            advanced = [await self._advanced(each, until_hour) for each in due.series]
            new = await due.save(advanced, until_hour - TOLD_HOURS) if advanced else 0
            hours = sum(
                after.series.next_hour - before.series.next_hour
                for before, after in zip(due.series, advanced, strict=True)
            )
        found = dict.fromkeys((Direction.HIGH.value, Direction.LOW.value), 0)
        for each in advanced:
            for finding in each.findings:
                found[finding.direction.value] += 1
        if hours:
            self._parts.observer.looked(hours, found)
        unfinished = any(each.series.next_hour < until_hour for each in advanced)
        return hours, new, unfinished or len(advanced) == SERIES_MAX

    async def _advanced(self, due: Due, until_hour: int) -> Advanced:
        # Each takes milliseconds, of a process that answers calls meanwhile.
        await asyncio.sleep(0)
        until = min(until_hour, due.series.next_hour + HOURS_MAX)
        series, changed, found = advance(
            due.series, dict(due.season), due.usage, until, self._options
        )
        return Advanced(due.key, series, changed, found)


@dataclass(frozen=True, slots=True)
class LookBack:
    """Which usage to look back at: from `from_us` to before `to_us`; all meters for None."""

    tenant_id: TenantId
    meter: MeterName | None
    from_us: int
    to_us: int
    options: Options


@dataclass(frozen=True, slots=True)
class Recalled:
    """What would have been found of a meter by these options, and whether it was noted then."""

    meter: MeterName
    finding: Finding
    noted: bool


@dataclass(frozen=True, slots=True)
class Recall:
    """A look back: how many hours were looked at, and what would have been found."""

    hours: int
    recalled: tuple[Recalled, ...]


async def look_back(history: UsageHistory, asked: LookBack) -> Recall:
    """Look at a tenant's usage as the loop would have, by other options; nothing is changed.

    Each meter is learned from eight weeks before on, and with its late usage: second looks are
    of usage that is not known any more.
    """
    first, last = asked.from_us // HOUR_US, -(-asked.to_us // HOUR_US)
    of = (asked.tenant_id, asked.meter)
    noted = await history.told(*of, asked.from_us, last * HOUR_US)
    hours = 0
    found: list[Recalled] = []
    rows = history.hours(*of, (first - HISTORY_HOURS) * HOUR_US, last * HOUR_US)
    async for meter, usage in _by_meter(rows):
        start = min(usage)
        _, _, findings = advance(Series(start), {}, usage, last, asked.options)
        hours += last - max(start, first)
        found += [
            Recalled(meter, each, (meter, each.hour) in noted)
            for each in findings
            if each.hour >= first
        ]
    return Recall(hours, tuple(found))


async def _by_meter(
    rows: AsyncIterator[tuple[MeterName, int, Used]],
) -> AsyncIterator[tuple[MeterName, dict[int, Used]]]:
    """Iterate over meters, each with its usage by hour."""
    current: MeterName | None = None
    usage: dict[int, Used] = {}
    async for meter, hour, used in rows:
        if current is not None and meter != current:
            yield current, usage
            usage = {}
        current = meter
        usage[hour] = used
    if current is not None:
        yield current, usage


class SettledByStream:
    """The `SettledUsage` of a live installation: what its streams still hold may be missing."""

    def __init__(self, stream: UsageStream) -> None:
        self._stream = stream

    async def settled_us(self) -> int:
        """Return when the oldest entry was written that the ledger may lack, else now."""
        now_us = await self._stream.now_us()
        waiting = [each.oldest_us for each in await self._stream.depths() if each.oldest_us]
        return min([now_us, *waiting])
