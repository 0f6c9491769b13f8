"""What a meter comes to is answered in bounded pages of whole windows."""

from dataclasses import replace

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.domain.catalog import Aggregation, Catalog, Meter, Plan
from tallygate.domain.errors import InvalidField, TallygateError, UnknownMeter, UnknownTenant
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Window
from tallygate.domain.windows import Division, Sessions, Sliding, Tumbling
from tallygate.flow import usage_windows
from tallygate.flow.usage_windows import UsageAsk, UsageOfWindow, UsageWindows
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period_usage import FakePeriodUsage
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
REQUESTS = MeterName("requests")
LEVEL = MeterName("level")
METERS = (
    Meter(REQUESTS, group_by=("region", "user")),
    Meter(LEVEL, Aggregation.TIME_WEIGHTED),
)
ASK = UsageAsk(ACME, REQUESTS, Window(NOON_US, NOON_US + HOUR_US))


async def windows(*events: UsageEvent, default_plan: str = "free") -> UsageWindows:
    """Return what answers, over these events."""
    ledger, store = FakeLedger(), FakeCatalogStore()
    await ledger.persist(LedgerBatch(events))
    catalog = Catalog(
        meters={meter.name: meter for meter in METERS},
        plans={PlanName("free"): Plan(PlanName("free"))},
        default_plan=PlanName(default_plan) if default_plan else None,
    )
    await store.write(CatalogChange(catalog), 0)
    usage = FakePeriodUsage(ledger, catalog.meters)
    return UsageWindows(usage, usage, store, SystemClock())


async def all_of(asking: UsageWindows, asked: UsageAsk, rows: int) -> list[UsageOfWindow]:
    """Return all rows, page by page."""
    found: list[UsageOfWindow] = []
    start = 0
    while True:
        page = await asking.page(asked, rows, start)
        found += page.rows
        if not page.next_start:
            return found
        assert page.next_start > start
        start = page.next_start


EVENTS = tuple(
    event(n, event_time_us=NOON_US + n * MINUTE_US, dimensions={"user": "ab"[n % 2]})
    for n in range(40)
)


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "division",
    [Tumbling("minute"), Sliding(10 * MINUTE_US, 5 * MINUTE_US), Sessions(30_000_000)],
    ids=["tumbling", "sliding", "sessions"],
)
async def test_pages_follow_each_other(division: Division, rows: int) -> None:
    """Page by page, the same rows come as all at once."""
    asking = await windows(*EVENTS)
    asked = replace(ASK, division=division, group_by=("user",))
    whole = (await asking.page(asked, 10_000)).rows
    assert len(whole) >= 16
    assert await all_of(asking, asked, rows) == list(whole)


async def test_windows_have_what_happened_in_them() -> None:
    """By group, in the order of time; windows of nothing have no row."""
    asking = await windows(*EVENTS, event(99, event_time_us=NOON_US + 50 * MINUTE_US))
    asked = replace(ASK, division=Sliding(30 * MINUTE_US, 30 * MINUTE_US), group_by=("user",))
    found = (await asking.page(asked, 100)).rows
    half = NOON_US + 30 * MINUTE_US
    assert found == (
        UsageOfWindow(Window(NOON_US, half), (("user", "a"),), 15, 15),
        UsageOfWindow(Window(NOON_US, half), (("user", "b"),), 15, 15),
        UsageOfWindow(Window(half, NOON_US + HOUR_US), (("user", ""),), 1, 1),
        UsageOfWindow(Window(half, NOON_US + HOUR_US), (("user", "a"),), 5, 5),
        UsageOfWindow(Window(half, NOON_US + HOUR_US), (("user", "b"),), 5, 5),
    )


async def test_sessions_come_by_their_starts() -> None:
    """Also where one that began earlier ends later."""
    first = event(1, event_time_us=NOON_US, dimensions={"user": "a"})
    others = [
        event(2, event_time_us=NOON_US + 60, dimensions={"user": "b"}),
        event(3, event_time_us=NOON_US + 90, dimensions={"user": "a"}),
        event(4, event_time_us=NOON_US + 300, dimensions={"user": "b"}),
    ]
    asking = await windows(first, *others)
    asked = replace(ASK, division=Sessions(100), group_by=("user",))
    found = (await asking.page(asked, 100)).rows
    assert [(each.window.start_us - NOON_US, each.count) for each in found] == [
        (0, 2),
        (60, 1),
        (300, 1),
    ]


async def test_periods_are_of_the_tenants_calendar() -> None:
    """One that is not declared has the default plan's, where there is one."""
    asked = replace(ASK, division=Tumbling("period"))
    (found,) = (await (await windows(*EVENTS)).page(asked, 9)).rows
    assert (found.window, found.quantity) == (ASK.window, 40)
    with pytest.raises(UnknownTenant):
        await (await windows(*EVENTS, default_plan="")).page(asked, 9)


@pytest.mark.parametrize(
    ("asked", "error", "field", "text"),
    [
        (replace(ASK, meter=MeterName("request")), UnknownMeter, "meter", "did you mean requests"),
        (replace(ASK, meter=MeterName("zz")), UnknownMeter, "meter", "there is no meter"),
        (replace(ASK, group_by=("regin",)), InvalidField, "group_by", "did you mean region"),
        (replace(ASK, group_by=("user", "user")), InvalidField, "group_by", "twice"),
        (replace(ASK, meter=LEVEL, group_by=("a",)), InvalidField, "group_by", "nothing"),
        (replace(ASK, division=Tumbling("week")), InvalidField, "by", "must be one of"),
        (replace(ASK, division=Sliding(1, MINUTE_US)), InvalidField, "sliding", "whole minutes"),
        (replace(ASK, division=Sessions(0)), InvalidField, "session_gap", "above 0"),
        (replace(ASK, meter=LEVEL, division=Sessions(1)), InvalidField, "meter", "no sessions"),
        (replace(ASK, window=Window(1, MINUTE_US)), InvalidField, "from", "whole minute"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    asked: UsageAsk, error: type[TallygateError], field: str, text: str
) -> None:
    """By the field at fault, with a guess at what was meant."""
    asking = await windows(*EVENTS)
    with pytest.raises(error, match=text) as raised:
        await asking.page(asked, 9)
    assert raised.value.field == field


async def test_what_is_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither windows nor sessions' events may be without end."""
    asking = await windows(*EVENTS)
    year = replace(ASK, division=Tumbling("minute"), window=Window(0, 400 * DAY_US))
    with pytest.raises(InvalidField, match="windows"):
        await asking.page(year, 9, usage_windows.WINDOWS_MAX)
    monkeypatch.setattr(usage_windows, "SESSION_EVENTS_MAX", 39)
    with pytest.raises(InvalidField, match="events"):
        await asking.page(replace(ASK, division=Sessions(1)), 9)
