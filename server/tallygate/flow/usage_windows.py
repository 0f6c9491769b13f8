"""rollups, ledger ─▶ [ usage_windows ] ─▶ rows: what a meter comes to, by window and group.

If we die here, nothing has happened: it only reads.

Guarantees: windows of whole minutes are composed of rollups, and sessions of events; a page has
whole windows, and says where the next one begins; what is asked is bounded before it is read.
Refuses to know: SQL, and how rows are shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Final, assert_never

from tallygate.domain.catalog import Aggregation, Meter, default_tenant
from tallygate.domain.errors import InvalidField, UnknownMeter, UnknownTenant
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.path_fault import closest
from tallygate.domain.pieces import checked
from tallygate.domain.window import Calendar, Window
from tallygate.domain.windows import (
    TUMBLING,
    Division,
    Session,
    Sessions,
    SessionsOf,
    Sliding,
    Tumbling,
    checked_sliding,
    sliding,
    tumbling,
)
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.period_usage import Group, MeterEvents, WindowReader

# A year of minutes: whoever needs more asks for parts of it.
WINDOWS_MAX: Final = 530_000
# At once: pieces of so many windows are one statement of some ten thousand numbers.
WINDOWS_AT_ONCE: Final = 500
# Sessions are found in what is read event by event.
SESSION_EVENTS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class UsageAsk:
    """Which usage: of a meter, from a whole minute to before another, divided into windows."""

    tenant_id: TenantId
    meter: MeterName
    window: Window
    division: Division = field(default_factory=Tumbling)
    group_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageOfWindow:
    """What the meter comes to in a window, or one group of it."""

    window: Window
    group: Group
    quantity: int | Decimal
    count: int


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Rows by window and group; `next_start` is what the page after it starts from, 0 for none."""

    rows: tuple[UsageOfWindow, ...]
    next_start: int = 0


class UsageWindows:
    """Answers what a meter comes to."""

    def __init__(
        self, reader: WindowReader, events: MeterEvents, catalogs: CatalogStore, clock: Clock
    ) -> None:
        self._reader = reader
        self._events = events
        self._catalogs = catalogs
        self._clock = clock

    async def page(self, asked: UsageAsk, rows: int, start: int = 0) -> UsagePage:
        """Return windows from the place `start` on, until there are about so many rows.

        A window's groups come together, so that there may be more. Raises `UnknownMeter`,
        `UnknownTenant` with a division into periods, `RollupsIncomplete` and `InvalidField`.
        """
        checked(asked.window.start_us, asked.window.end_us)
        catalog = await self._catalogs.effective(self._clock.now_us())
        meter = catalog.meters.get(asked.meter)
        if meter is None:
            guess = closest(asked.meter, catalog.meters)
            hint = f"; did you mean {guess}?" if guess else ""
            raise UnknownMeter(f"there is no meter {asked.meter!r}{hint}", field="meter")
        match asked.division:
            case Tumbling(by):
                windows = await self._tumbling(asked, by)
            case Sliding() as division:
                windows = sliding(checked_sliding(division), asked.window)
            case Sessions(gap_us):
                return await self._sessions(meter, asked, gap_us, rows, start)
            case _:
                assert_never(asked.division)
        _named(asked.group_by, meter.group_by, f"meter {meter.name} is grouped by")
        return await self._windows(meter, asked, windows, rows, start)

    async def _tumbling(self, asked: UsageAsk, by: str) -> Iterator[Window]:
        if by not in TUMBLING:
            raise InvalidField(f"must be one of {', '.join(TUMBLING)}", field="by")
        tenant = await self._catalogs.tenant(asked.tenant_id)
        if tenant is None and by == "period":
            catalog = await self._catalogs.effective(self._clock.now_us())
            tenant = default_tenant(catalog, asked.tenant_id)
            if tenant is None:
                raise UnknownTenant(field="tenant_id")
        calendar = tenant.calendar if tenant is not None else Calendar()
        return tumbling(by, calendar, asked.window)

    async def _windows(
        self, meter: Meter, asked: UsageAsk, windows: Iterator[Window], rows: int, start: int
    ) -> UsagePage:
        if start >= WINDOWS_MAX:
            raise InvalidField(f"holds more than {WINDOWS_MAX} windows: ask for less", field="to")
        windows = islice(windows, start, None)
        found: list[UsageOfWindow] = []
        # Few at first: how many groups a window has is not known.
        count = min(rows, WINDOWS_AT_ONCE, 10)
        while some := list(islice(windows, count)):
            read = await self._reader.of_windows(asked.tenant_id, meter, some, asked.group_by)
            found += [
                UsageOfWindow(some[each.number], each.group, each.quantity, each.count)
                for each in read
            ]
            start += len(some)
            if len(found) >= rows:
                more = next(windows, None) is not None
                return UsagePage(tuple(found), start if more else 0)
            per_window = -(-len(read) // len(some)) or 1
            count = max(1, min(WINDOWS_AT_ONCE, (rows - len(found)) // per_window))
        return UsagePage(tuple(found))

    async def _sessions(
        self, meter: Meter, asked: UsageAsk, gap_us: int, rows: int, start: int
    ) -> UsagePage:
        """Find the sessions of the window's events, those from the place `start` on."""
        if gap_us <= 0:
            raise InvalidField("must be above 0", field="session_gap")
        if meter.aggregation is Aggregation.TIME_WEIGHTED:
            raise InvalidField("is of levels, which have no sessions", field="meter")
        finding = SessionsOf(meter, gap_us, asked.group_by)
        found: list[Session] = []
        read = 0
        async for events in self._events.events(asked.tenant_id, meter.name, asked.window):
            read += len(events)
            if read > SESSION_EVENTS_MAX:
                message = f"has more than {SESSION_EVENTS_MAX} events: ask for less"
                raise InvalidField(message, field="to")
            found += finding.add(events)
        found += finding.rest()
        # By their starts: those that are open for long end after others that began later.
        found.sort(key=lambda session: (session.window.start_us, session.group))
        page = tuple(
            UsageOfWindow(
                each.window,
                tuple(zip(asked.group_by, each.group, strict=True)),
                each.quantity,
                each.count,
            )
            for each in found[start : start + rows]
        )
        return UsagePage(page, start + rows if len(found) > start + rows else 0)


def _named(names: tuple[str, ...], known: tuple[str, ...], what: str) -> None:
    for index, name in enumerate(names):
        if name not in known:
            guess = closest(name, known)
            hint = f"; did you mean {guess}?" if guess else ""
            told = ", ".join(known) or "nothing"
            raise InvalidField(f"{what} {told}, not {name!r}{hint}", field="group_by")
        if name in names[:index]:
            raise InvalidField(f"{name} is there twice", field="group_by")
