"""Two systems' usage is compared whole: what matches, what differs, what either lacks."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.adapters.entry_sort import entry_sort
from tallygate.domain.catalog import Tenant
from tallygate.domain.compare import Compared, Entry, Match, Tolerance
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, PlanName, TenantId
from tallygate.domain.other_export import OtherRow
from tallygate.domain.window import DAY_US, HOUR_US, Calendar, Window, from_datetime
from tallygate.flow.compare import By, Compare, CompareOptions, CompareParts, Comparison
from tallygate.ports import LedgerBatch
from tallygate.testing.compare import FakeComparedUsage
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_chain import FakePeriodChains
from tests.usage_events import NOON_US, event

DAY = NOON_US - NOON_US % DAY_US
ACME, OTHER = TenantId("acme"), TenantId("other")
REQUESTS = MeterName("requests")


class Declared:
    """Tenants in memory."""

    def __init__(self, *tenants: Tenant) -> None:
        self.tenants = {each.tenant_id: each for each in tenants}

    async def tenants_named(self, ids: Iterable[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        return {each: self.tenants[each] for each in ids if each in self.tenants}


def used(number: int, at_us: int = NOON_US, amount: int = 1, **fields: object) -> UsageEvent:
    """Return usage of ours."""
    return event(number, event_time_us=at_us, amount=amount, **fields)


def row(at_us: int = NOON_US, units: object = 1, **fields: object) -> OtherRow:
    """Return a row of theirs."""
    values = {
        "line": 2,
        "tenant_id": ACME,
        "meter": REQUESTS,
        "event_id": "",
        "time_us": at_us,
        "units": Decimal(str(units)),
    }
    return OtherRow(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


async def compare(
    ours: Iterable[UsageEvent],
    theirs: Iterable[OtherRow],
    tenants: Iterable[Tenant] = (),
    chains: FakePeriodChains | None = None,
    **options: object,
) -> tuple[Comparison, list[Compared]]:
    """Compare, sorting theirs in runs of three; return what was found and what was told."""
    told: list[Compared] = []
    ledger = FakeLedger()
    await ledger.persist(LedgerBatch(tuple(ours)))
    with entry_sort(run_max=3, runs_max=2) as sort:
        parts = CompareParts(FakeComparedUsage(ledger), Declared(*tenants), sort, chains)
        asked = CompareOptions(**options)  # type: ignore[arg-type]  # fields by name
        compared = Compare(parts, asked, told.append)
        return await compared.run(theirs), told


async def test_equal_systems_match() -> None:
    """Events here and their sums there are the same usage, whatever their order and number."""
    ours = [used(number, NOON_US + number * HOUR_US) for number in range(60)]
    theirs = [row(NOON_US + number * HOUR_US, "0.5") for number in reversed(range(60))] * 2
    found, told = await compare(ours, theirs, by=By.HOUR)
    assert found.same
    assert told == []
    assert (found.rows, found.counts[Match.MATCHED]) == (120, 60)
    assert (found.pairs, found.whole_pairs) == (1, 1)
    (parity,) = found.parities
    assert (int(parity.here), int(parity.there)) == (60, 60)


async def test_each_planted_difference_is_found() -> None:
    """A unit off, a bucket here alone and one there alone are told, each as what it is."""
    ours = [
        used(1),
        used(2, NOON_US + DAY_US, 7),
        used(3, NOON_US + 2 * DAY_US),
        used(4, amount=5, tenant_id=OTHER),
    ]
    theirs = [
        row(),
        row(NOON_US + DAY_US, 8),
        row(NOON_US + 3 * DAY_US),
        row(units=5, tenant_id=OTHER),
    ]
    found, told = await compare(ours, theirs)
    assert [(each.match, each.entry.bucket_us) for each in told] == [
        (Match.DIFFERENT, DAY + DAY_US),
        (Match.MISSING_THERE, DAY + 2 * DAY_US),
        (Match.MISSING_HERE, DAY + 3 * DAY_US),
    ]
    assert found.counts == dict.fromkeys(Match, 1) | {Match.MATCHED: 2}
    assert (found.pairs, found.whole_pairs, found.same) == (2, 1, False)
    assert [each.tenant_id for each in found.parities] == [ACME, OTHER]


async def test_events_are_compared_by_their_ids() -> None:
    """An event of another amount, meter or day, twice there, or in one system alone is told."""
    ours = [used(number) for number in range(1, 7)]
    theirs = [
        row(event_id="event-1", at_us=NOON_US + 5),
        row(event_id="event-2", units=2),
        row(event_id="event-3", meter=MeterName("bytes")),
        row(event_id="event-4", at_us=NOON_US - DAY_US),
        row(event_id="event-5"),
        row(event_id="event-5", units=0),
        row(event_id="event-9"),
    ]
    found, told = await compare(ours, theirs, events=True)
    assert [(each.entry.event_id, each.match, each.detail) for each in told] == [
        ("event-2", Match.DIFFERENT, ""),
        ("event-3", Match.DIFFERENT, "of meter bytes there"),
        ("event-4", Match.DIFFERENT, "in another period there"),
        ("event-5", Match.DIFFERENT, "there 2 times"),
        ("event-6", Match.MISSING_THERE, ""),
        ("event-9", Match.MISSING_HERE, ""),
    ]
    assert found.counts[Match.MATCHED] == 1
    assert [(each.bucket_us, each.whole) for each in found.parities] == [(DAY, False)]


async def test_totals_come_once() -> None:
    """Of totals, two rows of a bucket are a difference, though together they were right."""
    found, _ = await compare([used(1, amount=2)], [row(), row()], totals=True)
    assert [each.detail for each in found.differences] == ["there 2 times"]
    assert (await compare([used(1, amount=2)], [row(units=2)], totals=True))[0].same


@pytest.mark.parametrize(
    ("tolerance", "same"),
    [
        (Tolerance(), False),
        (Tolerance(units=Decimal(1)), False),
        (Tolerance(units=Decimal(2)), True),
        (Tolerance(part=Decimal("0.001")), False),
        (Tolerance(part=Decimal("0.002")), True),
    ],
)
async def test_tolerance_is_in_units_or_parts(tolerance: Tolerance, same: bool) -> None:
    """Two units of a thousand are 0.2 percent, to the unit."""
    found, _ = await compare([used(1, amount=1_000)], [row(units=1_002)], tolerance=tolerance)
    assert found.same is same


async def test_usage_that_was_taken_back_is_none() -> None:
    """A bucket of nothing here, and none there, match; an event of theirs of 0 units does not."""
    refund = used(2, amount=-3, refund_of=EventId("event-1"))
    found, _ = await compare(
        [used(1, amount=3), refund, used(3, NOON_US + DAY_US)],
        [row(NOON_US + DAY_US), row(NOON_US - DAY_US, 0)],
    )
    assert found.same
    found, _ = await compare([], [row(units=0, event_id="x")], events=True)
    assert found.counts[Match.MISSING_HERE] == 1


async def test_billing_periods_are_the_tenants() -> None:
    """A period begins at the tenant's anchor in its zone; of others, by UTC."""
    anchored = Calendar("Asia/Kathmandu", from_datetime_text("2026-01-10T00:00:00+05:45"))
    edge = from_datetime_text("2026-11-10T00:00:00+05:45")
    ours = [used(1, edge - 1), used(2, edge, 10), used(3, edge, 100, tenant_id=OTHER)]
    tenants = (Tenant(ACME, PlanName("free"), anchored),)
    theirs = [row(edge - 9), row(edge, 10), row(edge, 100, tenant_id=OTHER)]
    found, _ = await compare(ours, theirs, by=By.PERIOD, tenants=tenants)
    assert found.counts == dict.fromkeys(Match, 0) | {Match.MATCHED: 3}
    theirs[0] = row(edge)
    found, told = await compare(ours, theirs, by=By.PERIOD, tenants=tenants)
    assert [(each.match, each.entry.bucket_us) for each in told] == [(Match.DIFFERENT, edge)]


async def test_months_and_totals() -> None:
    """A month is UTC's; a total is of the stretch that was given, with times or without."""
    ours = [used(1), used(2, NOON_US + DAY_US, 4)]
    assert (await compare(ours, [row(units=5)], by=By.MONTH))[0].same
    bounds: dict[str, Any] = {"by": By.TOTAL, "from_us": DAY, "to_us": DAY + 2 * DAY_US}
    assert (await compare(ours, [row(units=2), row(0, 3)], **bounds))[0].same
    with pytest.raises(InvalidField, match="needed"):
        await compare(ours, [row()], by=By.TOTAL)


async def test_only_whole_buckets_of_the_stretch_are_compared() -> None:
    """Rows outside are counted as such; a stretch that cuts a bucket is refused."""
    ours = [used(number, NOON_US + number * DAY_US) for number in range(5)]
    theirs = [row(NOON_US + number * DAY_US) for number in range(4)]
    found, _ = await compare(ours, theirs, from_us=DAY + DAY_US, to_us=DAY + 3 * DAY_US)
    assert (found.same, found.rows, found.outside) == (True, 4, 2)
    assert found.counts[Match.MATCHED] == 2
    with pytest.raises(InvalidField, match="begin a day") as raised:
        await compare(ours, theirs, from_us=NOON_US)
    assert raised.value.field == "--from"
    with pytest.raises(InvalidField, match="nothing to compare"):
        await compare(ours, [])


async def test_counts_of_events_can_be_compared() -> None:
    """Where their figure is how many there were, ours is too."""
    found, _ = await compare([used(1, amount=7), used(2, amount=9)], [row(units=2)], figure="count")
    assert found.same


async def test_what_is_shown_is_bounded() -> None:
    """All differences are counted and told; the first are kept, before what matches."""
    ours = [used(number, tenant_id=TenantId(f"t{number:02}")) for number in range(1, 30)]
    theirs = [
        row(tenant_id=TenantId(f"t{number:02}"), units=1 + number // 20) for number in range(1, 30)
    ]
    found, told = await compare(ours, theirs, kept_max=12)
    assert (len(found.differences), len(told)) == (10, 10)
    assert [each.whole for each in found.parities] == [False] * 10 + [True] * 2
    assert (found.pairs, found.whole_pairs) == (29, 19)


entries = st.lists(
    st.tuples(st.sampled_from("abz"), st.sampled_from("mn"), st.integers(0, 5), st.integers(1, 4)),
    max_size=40,
)


@settings(max_examples=60)
@given(entries, entries)
async def test_any_two_systems(
    here: list[tuple[str, str, int, int]], there: list[tuple[str, str, int, int]]
) -> None:
    """What a dictionary on each side says is what is found, in any order, over many runs."""
    ours = [
        used(
            number,
            NOON_US + hour * HOUR_US,
            units,
            tenant_id=TenantId(tenant),
            meter=MeterName(meter),
        )
        for number, (tenant, meter, hour, units) in enumerate(here)
    ]
    theirs = [
        row(NOON_US + hour * HOUR_US, units, tenant_id=TenantId(tenant), meter=MeterName(meter))
        for tenant, meter, hour, units in there
    ]
    found, told = await compare(
        ours, theirs, by=By.HOUR, from_us=NOON_US, to_us=NOON_US + 6 * HOUR_US
    )
    wanted: dict[Match, int] = dict.fromkeys(Match, 0)
    left, right = totals(here), totals(there)
    for key in {*left, *right}:
        if key not in left:
            wanted[Match.MISSING_HERE] += 1
        elif key not in right:
            wanted[Match.MISSING_THERE] += 1
        else:
            wanted[Match.MATCHED if left[key] == right[key] else Match.DIFFERENT] += 1
    assert found.counts == wanted
    assert len(told) == sum(wanted.values()) - wanted[Match.MATCHED]


def totals(rows: list[tuple[str, str, int, int]]) -> dict[tuple[str, str, int], int]:
    """Add up rows by hand."""
    found: dict[tuple[str, str, int], int] = {}
    for tenant, meter, hour, units in rows:
        found[tenant, meter, hour] = found.get((tenant, meter, hour), 0) + units
    return found


def test_sorting_spills_and_cleans_up() -> None:
    """More entries than memory may hold come back in order, added up, and leave no file."""
    with entry_sort(run_max=7, runs_max=3) as sort:
        for number in range(500):
            sort.add(Entry(ACME, MeterName(f"m{number * 37 % 100:02}"), number % 2, Decimal("0.1")))
        folder = sort._folder
        assert len([*folder.iterdir()]) <= 3
        found = list(sort.ordered())
    assert not folder.exists()
    assert [each.key for each in found] == sorted({each.key for each in found})
    assert sum(each.rows for each in found) == 500
    assert sum(each.units for each in found) == Decimal(50)
    assert json.dumps([str(each.units) for each in found[:1]]) == '["0.5"]'


def from_datetime_text(text: str) -> int:
    """Return an instant by its text."""
    return from_datetime(datetime.fromisoformat(text))


async def test_periods_that_are_kept_are_compared() -> None:
    """A tenant's billing periods are those that are kept of it, and the calendar's beside them."""
    kept = [Window(DAY, DAY + 3 * DAY_US), Window(DAY + 3 * DAY_US, DAY + 5 * DAY_US)]
    ours = [used(number, DAY + number * DAY_US, number + 1) for number in range(5)]
    theirs = [row(kept[0].start_us, 6), row(kept[1].start_us, 9)]
    chains = FakePeriodChains({ACME: kept})
    found, _ = await compare(
        ours, theirs, chains=chains, by=By.PERIOD, from_us=DAY, to_us=DAY + 5 * DAY_US
    )
    assert (found.counts[Match.MATCHED], found.same) == (2, True)
