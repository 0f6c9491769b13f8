"""ledger ─▶ [ close_period ] ─▶ frozen totals · hash ─▶ outbox: a period comes to its end.

If we die here before a period is sealed, nothing has happened. If we die after it, its totals are
frozen and what comes is late; the next run hashes and closes it. If we die after that, it is closed
and its message is in the outbox, once.

Guarantees: a period is sealed only where all that was accepted before its grace was over is in the
ledger; else it is held, and that is told. It is closed only when its events add up to its totals.
Refuses to know: SQL, prices, and who is alarmed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import TenantId
from tallygate.domain.period import (
    GRACE_US,
    Arrived,
    Held,
    PeriodKey,
    following,
    held_because,
    period_at,
)
from tallygate.domain.window import DAY_US, Calendar
from tallygate.flow.finish_period import FinishPeriod
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.period import (
    Due,
    Ended,
    KnownTenant,
    PeriodFolds,
    PeriodLedger,
    PeriodReader,
    Sealed,
    SealedRevision,
    Sealing,
    Span,
    StateCount,
)

# Looked at per run: of a hundred thousand tenants each is seen within some minutes, long before a
# period of a new one ends. Who has seen all of them rests.
KNOWN_MAX: Final = 500
SWEEP_EVERY_S: Final = 60.0
# Figures that are read from all periods there are.
COUNT_EVERY_S: Final = 15.0
ENDED_MAX: Final = 500
DUE_MAX: Final = 500
# Events are not stored meanwhile; a period takes some milliseconds.
SEAL_MAX: Final = 20
CLOSE_MAX: Final = 20
LEASE_MS: Final = 60_000
# As far back as events are taken by default.
HISTORY_US: Final = 35 * DAY_US


class Arrivals(Protocol):
    """Says what has arrived of all that was accepted."""

    async def arrived(self) -> Arrived:
        """Return what is known as of a moment during this call, but for what was accepted."""
        ...


class PeriodObserver(Protocol):
    """What closing tells of itself."""

    def counted(self, states: Sequence[StateCount], now_us: int) -> None:
        """So many periods are in each state."""

    def closed(self, cause: str, events: int, seconds: float) -> None:
        """A revision was closed; hashing its events took so long."""


class SilentPeriodObserver:
    """Hears nothing."""

    def counted(self, states: Sequence[StateCount], now_us: int) -> None:
        """Ignore it."""

    def closed(self, cause: str, events: int, seconds: float) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class ClosingOptions:
    """Who closes, how long periods are waited for, and late events of those that are corrected.

    Of a tenant that is new, periods begin with its first use of the last `history_us`, or of as
    long as a meter of the catalog takes events late.
    """

    holder: str
    grace_us: int = GRACE_US
    correction_delay_s: float = 3_600.0
    history_us: int = HISTORY_US


@dataclass(frozen=True, slots=True)
class ClosingParts:
    """What closing works with."""

    ledger: PeriodLedger
    reader: PeriodReader
    catalogs: CatalogStore
    arrivals: Arrivals
    clock: Clock
    folds: PeriodFolds
    observer: PeriodObserver = field(default_factory=SilentPeriodObserver)


@dataclass(frozen=True, slots=True)
class ClosingCounts:
    """What one run did."""

    known: int = 0
    ended: int = 0
    held: int = 0
    sealed: int = 0
    closed: int = 0
    more: bool = False


class ClosePeriods:
    """Takes periods from their end to their closing, run by run. One process at a time does."""

    def __init__(self, parts: ClosingParts, options: ClosingOptions) -> None:
        self._parts = parts
        self._options = options
        self._finishing = FinishPeriod(parts.ledger, parts.reader, parts.folds)
        self._after = ""
        self._sweep_at = float("-inf")
        self._count_at = float("-inf")

    async def run_once(self) -> ClosingCounts:
        """Find new tenants, end what has ended, seal what is due, close what is sealed.

        Raises what the ledger and the streams raise; what was not done is found again.
        """
        parts = self._parts
        if not await parts.ledger.lead(self._options.holder, LEASE_MS):
            return ClosingCounts()
        now_us = parts.clock.now_us()
        catalog = await parts.catalogs.effective(now_us)
        known = await self._find(catalog, now_us)
        ended = await self._end(now_us)
        sealed, held = await self._seal(catalog, now_us)
        closed = await self._close(now_us)
        if parts.clock.monotonic() >= self._count_at:
            self._count_at = parts.clock.monotonic() + COUNT_EVERY_S
            parts.observer.counted(await parts.ledger.states(), now_us)
        return ClosingCounts(
            known=known,
            ended=ended,
            held=held,
            sealed=sealed,
            closed=closed,
            # What was ended may be due; what was sealed in a full round has others behind it.
            more=ended > 0 or sealed > 0 or closed == CLOSE_MAX,
        )

    async def _find(self, catalog: Catalog, now_us: int) -> int:
        """Give new tenants their first period, and open ones their calendar's end.

        Returns how many are new among those whose turn it is.
        """
        parts, since_us = self._parts, now_us - self._history_us(catalog)
        if not self._after:
            if parts.clock.monotonic() < self._sweep_at:
                return 0
            self._sweep_at = parts.clock.monotonic() + SWEEP_EVERY_S
        found = await parts.ledger.known(self._after, KNOWN_MAX, since_us)
        self._after = found[-1].tenant_id if len(found) == KNOWN_MAX else ""
        calendars = await self._calendars([each.tenant_id for each in found])
        new: list[Span] = []
        moved: list[Span] = []
        for each in found:
            calendar = calendars[each.tenant_id]
            if each.newest is None:
                first_us = each.first_use_us if each.first_use_us is not None else now_us
                window = period_at(calendar, min(first_us, now_us))
                new.append(Span(PeriodKey(each.tenant_id, window.start_us), window.end_us))
            elif (end_us := _other_end(each, calendar)) is not None:
                moved.append(replace(each.newest, end_us=end_us))
        if moved:
            await parts.ledger.resize(moved)
        return await parts.ledger.add(new, now_us) if new else 0

    async def _end(self, now_us: int) -> int:
        """Give periods that have ended their grace, and their tenants the next one."""
        parts = self._parts
        found = await parts.ledger.ended(now_us, ENDED_MAX)
        if not found:
            return 0
        calendars = await self._calendars([each.span.key.tenant_id for each in found])
        graces: dict[Span, int] = {}
        next_ones: list[Span] = []
        moved: list[Span] = []
        for each in found:
            key, calendar = each.span.key, calendars[each.span.key.tenant_id]
            span = _as_it_ends(each, calendar)
            if span.end_us > now_us:
                moved.append(span)
                continue
            graces[span] = span.end_us + self._grace_us(calendar)
            if not each.followed:
                start_us = span.end_us
                after = PeriodKey(key.tenant_id, start_us)
                next_ones.append(Span(after, following(calendar, start_us).end_us))
        if moved:
            await parts.ledger.resize(moved)
        await parts.ledger.end(graces, next_ones, now_us)
        return len(graces)

    async def _seal(self, catalog: Catalog, now_us: int) -> tuple[int, int]:
        """Seal what is due and whole, and corrections; hold the others. Returns how many of each.

        What was accepted before now is looked for after it: whatever was due is due before that.
        """
        parts, options = self._parts, self._options
        due = await parts.ledger.due(now_us, DUE_MAX)
        keys, held, lost = await self._judged(due, now_us) if due else ([], 0, 0)
        room = SEAL_MAX - len(keys[:SEAL_MAX])
        if room:
            keys += await parts.ledger.waiting(options.correction_delay_s, room)
        if not keys:
            return 0, held
        sealed = await parts.ledger.seal(
            Sealing(
                keys[:SEAL_MAX],
                catalog.meters,
                now_us,
                self._history_us(catalog),
                lost,
            )
        )
        await self._begin_earlier(sealed, now_us)
        return len(sealed.keys), held

    async def _judged(self, due: Sequence[Due], now_us: int) -> tuple[list[PeriodKey], int, int]:
        """Return what may be sealed, how many are newly held, and the loss that is accepted."""
        parts = self._parts
        accepted = await parts.ledger.accepted_lost()
        arrived = replace(await parts.arrivals.arrived(), accepted_lost=accepted)
        reasons: dict[PeriodKey, Held | None] = {}
        keys: list[PeriodKey] = []
        lost = 0
        for each in due:
            key = PeriodKey(each.period.tenant_id, each.period.start_us)
            reason = held_because(arrived, each.period.due_us, each.letters)
            if reason is not None and each.accept_missing:
                # Until the next number is lost, nobody has to say it again.
                lost = arrived.counted.lost if arrived.counted is not None else 0
                reason = None
            if reason is None:
                keys.append(key)
            if reason is not each.period.held:
                reasons[key] = reason
        held = await parts.ledger.hold(reasons, now_us) if reasons else 0
        return keys, held, lost

    async def _begin_earlier(self, sealed: Sealed, now_us: int) -> None:
        """Give tenants that were used before their first period the periods of that time."""
        spans: list[Span] = []
        earlier = sealed.earlier or {}
        calendars = await self._calendars([key.tenant_id for key in earlier])
        for key, first_us in earlier.items():
            window = period_at(calendars[key.tenant_id], first_us)
            while window.start_us < key.start_us:
                end_us = min(window.end_us, key.start_us)
                spans.append(Span(PeriodKey(key.tenant_id, window.start_us), end_us))
                window = following(calendars[key.tenant_id], end_us)
        if spans:
            await self._parts.ledger.add(spans, now_us)

    async def _close(self, now_us: int) -> int:
        """Close what is sealed; return how many were. Raises the first failure after all others."""
        closed = 0
        failure: TallygateError | None = None
        for revision in await self._parts.ledger.unfinished(CLOSE_MAX):
            try:
                closed += await self._finish(revision, now_us)
            except TallygateError as error:
                # One that is too large for its time must not keep the others from being closed.
                failure = failure or error
        if failure is not None:
            raise failure
        return closed

    async def _finish(self, revision: SealedRevision, now_us: int) -> bool:
        """Close a sealed revision unless something speaks against it; say whether it was not."""
        parts = self._parts

        async def keep_leading(_leaves: int) -> None:
            await parts.ledger.lead(self._options.holder, LEASE_MS)

        started = parts.clock.monotonic()
        found = await self._finishing.finish(revision, now_us, keep_leading)
        if found.closed:
            seconds = parts.clock.monotonic() - started
            parts.observer.closed(revision.cause, found.covered.events, seconds)
        return found.closed

    async def _calendars(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Calendar]:
        """Return tenants' calendars; who is not declared has calendar months in UTC."""
        declared = await self._parts.catalogs.tenants_named(ids) if ids else {}
        return {each: declared[each].calendar if each in declared else Calendar() for each in ids}

    def _history_us(self, catalog: Catalog) -> int:
        horizons = (meter.late_horizon_us for meter in catalog.meters.values())
        return max(self._options.history_us, max(horizons, default=0))

    def _grace_us(self, calendar: Calendar) -> int:
        own = calendar.billing.grace_us if calendar.billing is not None else 0
        return own or self._options.grace_us


def _other_end(known: KnownTenant, calendar: Calendar) -> int | None:
    """Return the end that a tenant's open period should have, None where it has it."""
    if known.newest is None or not known.open:
        return None
    end_us = following(calendar, known.newest.key.start_us).end_us
    return end_us if end_us != known.newest.end_us else None


def _as_it_ends(ended: Ended, calendar: Calendar) -> Span:
    """Return an ended period by the calendar of now, unless another one follows it already."""
    if ended.followed:
        return ended.span
    return replace(ended.span, end_us=following(calendar, ended.span.key.start_us).end_us)
