"""their export · our usage ─▶ [ compare ] ─▶ parity: what matches, and what either lacks.

If we die here, nothing has happened but a folder of sorted rows, which is temporary.

Guarantees: both sides are read once and in order, so that memory is bounded whatever their size;
every row of theirs and every bucket or event of ours within the stretch is compared, or counted as
left out. A bucket is compared only where all of it lies within the stretch.
Refuses to know: SQL, files, and how findings are shown.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Final, Protocol

from tallygate.domain.catalog import Tenant
from tallygate.domain.compare import Compared, Entry, Match, Parity, Tolerance, compared
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.other_export import OtherRow
from tallygate.domain.period_chain import Chain
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Calendar,
    Period,
    Window,
    window_at,
)
from tallygate.ports.compare import ComparedUsage, EntrySort, OurUsage
from tallygate.ports.period_chain import PeriodChains

# Rows whose tenants are looked up at once.
ROWS_PAGE: Final = 5_000

Note = Callable[[int], None]
Chains = Mapping[TenantId, Chain]


class By(StrEnum):
    """Which stretches of time are compared; hours, days and months are those of UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    PERIOD = "period"
    TOTAL = "total"


_GRAINS: Final = {
    By.HOUR: ("hour", HOUR_US),
    By.DAY: ("day", DAY_US),
    By.MONTH: ("day", DAY_US),
    # Of a billing period, whose bounds are those of the tenant's zone.
    By.PERIOD: ("minute", MINUTE_US),
    By.TOTAL: ("minute", MINUTE_US),
}


class TenantsNamed(Protocol):
    """Knows tenants that were declared."""

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        ...


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What is compared how.

    With `events`, events by their ids; else buckets, whose rows add up unless they are `totals`.
    Without `from_us` or `to_us` the stretch is that of their rows' buckets.
    """

    by: By = By.DAY
    events: bool = False
    totals: bool = False
    figure: str = "sum"
    from_us: int | None = None
    to_us: int | None = None
    tenant_id: TenantId | None = None
    meter: MeterName | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    kept_max: int = 50


@dataclass(frozen=True, slots=True)
class CompareParts:
    """What is compared, and what sorts theirs.

    Without `chains` billing periods are those of the calendars alone.
    """

    usage: ComparedUsage
    tenants: TenantsNamed
    sort: EntrySort
    chains: PeriodChains | None = None


@dataclass(slots=True)
class Comparison:
    """What a comparison came to.

    `counts` are all that was compared; `differences` and `parities` have the first, those that do
    not match before others. `outside` are rows of theirs that lie outside of the stretch.
    """

    rows: int = 0
    outside: int = 0
    from_us: int = 0
    to_us: int = 0
    counts: dict[Match, int] = field(default_factory=lambda: dict.fromkeys(Match, 0))
    pairs: int = 0
    whole_pairs: int = 0
    differences: list[Compared] = field(default_factory=list)
    parities: list[Parity] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether everything matches."""
        return self.counts[Match.MATCHED] == sum(self.counts.values())


class Compare:
    """One comparison. `told` hears every difference, also those that are not kept."""

    def __init__(
        self,
        parts: CompareParts,
        options: CompareOptions,
        told: Callable[[Compared], None] = lambda _found: None,
    ) -> None:
        grain_us = _GRAINS[options.by][1]
        for name, at_us in (("--from", options.from_us), ("--to", options.to_us)):
            if at_us is not None and at_us % grain_us:
                raise InvalidField(f"must begin a {_GRAINS[options.by][0]}, in UTC", field=name)
        self._parts = parts
        self._options = options
        self._told = told
        self._found = Comparison()
        self._tenant: dict[tuple[MeterName, int], Parity] = {}
        self._whole: list[Parity] = []

    async def run(self, rows: Iterable[OtherRow], note: Note = lambda _count: None) -> Comparison:
        """Compare rows with our usage. Raises `InvalidField` for a row that cannot be read."""
        found = self._found
        await self._take(iter(rows), note)
        asked = self._asked()
        found.from_us, found.to_us = asked.from_us, asked.to_us
        theirs = self._parts.sort.ordered()
        there = next(theirs, None)
        async for here in self._ours(asked):
            while there is not None and there.key < here.key:
                self._compare(None, there)
                there = next(theirs, None)
            if there is not None and there.key == here.key:
                self._compare(here, there)
                there = next(theirs, None)
            else:
                self._compare(here, None)
        while there is not None:
            self._compare(None, there)
            there = next(theirs, None)
        self._end_tenant()
        found.parities += self._whole[: self._options.kept_max - len(found.parities)]
        return found

    async def _take(self, rows: Iterator[OtherRow], note: Note) -> None:
        found = self._found
        low, high = self._options.from_us, self._options.to_us
        while page := list(islice(rows, ROWS_PAGE)):
            times = [row.time_us for row in page]
            chains = await self._chains({row.tenant_id for row in page}, min(times), max(times))
            for row in page:
                window = self._window(row.tenant_id, row.time_us, chains)
                found.rows += 1
                if window is None or not _within(window, low, high):
                    found.outside += 1
                    continue
                found.from_us = min(found.from_us or window.start_us, window.start_us)
                found.to_us = max(found.to_us, window.end_us)
                self._parts.sort.add(
                    Entry(row.tenant_id, row.meter, window.start_us, row.units, row.event_id)
                )
            note(len(page))

    def _asked(self) -> OurUsage:
        options, found = self._options, self._found
        from_us = found.from_us if options.from_us is None else options.from_us
        to_us = found.to_us if options.to_us is None else options.to_us
        if from_us >= to_us:
            raise InvalidField("there is nothing to compare: give --from and --to", field="FILE")
        return OurUsage(from_us, to_us, options.tenant_id, options.meter)

    async def _ours(self, asked: OurUsage) -> AsyncIterator[Entry]:
        """Iterate over our entries by key, in the buckets that are compared."""
        options = self._options
        usage = self._parts.usage
        rows = (
            usage.events(asked)
            if options.events
            else usage.buckets(asked, _GRAINS[options.by][0], options.figure)
        )
        last: Entry | None = None
        chains: Chains = {}
        async for row in rows:
            if options.by is By.PERIOD and row.tenant_id not in chains:
                chains = await self._chains({row.tenant_id}, asked.from_us, asked.to_us)
            window = self._window(row.tenant_id, row.bucket_us, chains)
            if window is None or not _within(window, asked.from_us, asked.to_us):
                continue
            entry = Entry(row.tenant_id, row.meter, window.start_us, row.units, row.event_id)
            if last is not None and last.key == entry.key:
                last = last.plus(entry)
                continue
            if last is not None:
                yield last
            last = entry
        if last is not None:
            yield last

    def _window(self, tenant_id: TenantId, at_us: int, chains: Chains) -> Window | None:
        """Return the bucket of an instant; None where it lies outside of what is compared."""
        options = self._options
        match options.by:
            case By.HOUR | By.DAY:
                length = _GRAINS[options.by][1]
                start = at_us - at_us % length
                return Window(start, start + length)
            case By.MONTH:
                return _month(at_us - at_us % DAY_US)
            case By.PERIOD:
                return chains[tenant_id].at(at_us)
            case By.TOTAL:
                return _total(options, at_us)

    async def _chains(self, ids: set[TenantId], from_us: int, to_us: int) -> Chains:
        """Return the billing periods of tenants, as far as they touch a stretch."""
        if self._options.by is not By.PERIOD:
            return {}
        parts, named = self._parts, sorted(ids)
        tenants = await parts.tenants.tenants_named(named)
        kept = await parts.chains.around(named, from_us, to_us) if parts.chains else {}
        return {
            each: Chain(
                tenants[each].calendar if each in tenants else Calendar(),
                tuple(kept.get(each, ())),
            )
            for each in ids
        }

    def _compare(self, here: Entry | None, there: Entry | None) -> None:
        options, found = self._options, self._found
        adds_up = not options.totals and not options.events
        each = compared(here, there, options.tolerance, adds_up=adds_up)
        entry = each.entry
        if self._tenant and next(iter(self._tenant.values())).tenant_id != entry.tenant_id:
            self._end_tenant()
        found.counts[each.match] += 1
        place = (entry.meter, entry.bucket_us if options.events else 0)
        parity = self._tenant.get(place)
        if parity is None:
            parity = self._tenant[place] = Parity(entry.tenant_id, *place)
        parity.add(each)
        if each.match is not Match.MATCHED:
            self._told(each)
            if len(found.differences) < options.kept_max:
                found.differences.append(each)

    def _end_tenant(self) -> None:
        """Count the pairs of the tenant that was compared last; only the first ones are kept."""
        found, kept_max = self._found, self._options.kept_max
        for _, parity in sorted(self._tenant.items()):
            found.pairs += 1
            found.whole_pairs += parity.whole
            kept = self._whole if parity.whole else found.parities
            if len(kept) < kept_max:
                kept.append(parity)
        self._tenant = {}


def _within(window: Window, from_us: int | None, to_us: int | None) -> bool:
    return (from_us is None or window.start_us >= from_us) and (
        to_us is None or window.end_us <= to_us
    )


def _total(options: CompareOptions, at_us: int) -> Window | None:
    """Return the whole stretch as one bucket, where an instant lies in it; 0 is none."""
    if options.from_us is None or options.to_us is None:
        raise InvalidField("is needed with --by total", field="--from")
    whole = Window(options.from_us, options.to_us)
    return whole if not at_us or whole.holds(at_us) else None


@lru_cache(maxsize=4_096)
def _month(day_us: int) -> Window:
    return window_at(Period.MONTH, Calendar(), day_us)
