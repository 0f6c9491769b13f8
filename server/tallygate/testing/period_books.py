"""The books that billing periods in memory are kept in: rows, totals, late events.

Guarantees: what is late, what is frozen and what is adjusted follows `domain/period.py`.
Refuses to know: ports, which `testing/period.py` serves from these books.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from tallygate.domain.catalog import Aggregation, LatePolicy, Meter
from tallygate.domain.errors import BackendUnavailable, NotFound
from tallygate.domain.event import UNSTORABLE, UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import (
    Act,
    Cause,
    Figures,
    MeterTotal,
    PeriodKey,
    PeriodState,
    Place,
    Sealable,
    adjustment,
    after,
    place,
)
from tallygate.domain.period_digest import Covered
from tallygate.domain.period_fold import FoldedAdjustment, rule_of
from tallygate.ports.period import (
    Adjustment,
    BillingPeriod,
    KnownTenant,
    PeriodAction,
    PeriodAsked,
    Revision,
    Sealing,
    Span,
)
from tallygate.testing.ledger import FakeLedger

# Where what is before a tenant's first period has its place.
BEFORE_ALL_US: Final = -(2**62)


@dataclass(slots=True)
class PeriodRow:
    """A period, and what only closing asks of it."""

    period: BillingPeriod
    created_us: int
    cause: Cause = Cause.GRACE_OVER
    accept_missing: bool = False
    sealed_us: int = 0
    revisions: list[tuple[Revision, Covered]] = field(default_factory=list)

    @property
    def key(self) -> PeriodKey:
        """What names it."""
        return PeriodKey(self.period.tenant_id, self.period.start_us)

    @property
    def span(self) -> Span:
        """From when until when it is."""
        return Span(self.key, self.period.end_us)


@dataclass(frozen=True, slots=True)
class LateEvent:
    """An event that came late, for which period, and where it belongs instead."""

    event: UsageEvent
    closed: PeriodKey | None
    place: Place


class PeriodBooks:
    """What `FakePeriods` keeps, and how it changes."""

    def __init__(self, ledger: FakeLedger, correcting: Iterable[MeterName] = ()) -> None:
        self.correcting = {*correcting}
        self.declared: set[TenantId] = set()
        self.told: list[tuple[str, PeriodKey, int]] = []
        self.down = False
        self._ledger = ledger
        self._rows: dict[PeriodKey, PeriodRow] = {}
        self._totals: dict[tuple[PeriodKey, int], list[MeterTotal]] = {}
        self._adjusted: dict[PeriodKey, list[tuple[Adjustment, Figures, Aggregation]]] = {}
        self._rules: dict[tuple[PeriodKey, MeterName], Meter] = {}
        self._touched: set[tuple[PeriodKey, MeterName]] = set()
        self._folded: dict[PeriodKey, list[FoldedAdjustment]] = {}
        self._reviews: dict[PeriodKey, set[tuple[PeriodKey, MeterName]]] = {}
        self._late: dict[tuple[str, str], LateEvent] = {}
        self._actions: dict[PeriodKey, list[PeriodAction]] = {}
        self._accepted_lost = 0
        ledger.late_of = self._note

    @property
    def noted(self) -> list[LateEvent]:
        """What came late."""
        return [*self._late.values()]

    def _note(self, event: UsageEvent) -> str | None:
        """Say by which rule an event that is stored now is late, None where it is not."""
        rows = self._of(event.tenant_id)
        before = [row for row in rows if row.period.start_us <= event.event_time_us]
        row = before[-1] if before else None
        unsealed = [each for each in rows if not each.period.revision]
        if len(unsealed) == len(rows) or (row and event.event_time_us >= row.period.end_us):
            return None
        correct = event.meter in self.correcting
        found = place(
            _sealable(row) if row is not None else None,
            _sealable(unsealed[0]),
            LatePolicy.CORRECT if correct else LatePolicy.NEXT_PERIOD,
        )
        if found is None:
            return None
        late = LateEvent(event, row.key if row is not None else None, found)
        self._late[event.tenant_id, event.event_id] = late
        self._touched.add((late.closed or before_all(event), event.meter))
        return found.placed

    def _seal(self, row: PeriodRow, asked: Sealing) -> None:
        again = row.period.state is PeriodState.CLOSED
        row.cause = Cause.LATE_EVENTS if again else row.cause
        act = Act.CORRECT if again else Act.SEAL
        number = row.period.revision + 1
        row.period = replace(
            row.period,
            state=after(row.period.state, act),
            revision=number,
            held=None,
            held_since_us=0,
        )
        row.sealed_us, row.accept_missing = asked.now_us, False
        self._settle(row, asked)
        known = {each.meter: each for each in self._totals.get((row.key, number - 1), ())}
        figures = {meter: each.figures for meter, each in known.items()}
        for meter, events in self._own(row, number).items():
            figures[meter] = figures.get(meter, Figures()).merged(figures_of(events))
        self._totals[row.key, number] = [
            MeterTotal(
                meter,
                known[meter].aggregation if meter in known else _aggregation(asked, meter),
                figures[meter],
            )
            for meter in sorted(figures)
            if self._rule(row.key, meter) is None
        ]
        if number == 1:
            self._adjust(row, asked)
            self._review(row)
        for late in self._late.values():
            if number > 1 and late.closed == row.key and allocated(late) == spot(row, number):
                self._touched.add((row.key, late.event.meter))

    def _adjust(self, row: PeriodRow, asked: Sealing) -> None:
        found: dict[tuple[PeriodKey, MeterName], list[UsageEvent]] = {}
        for key, meter in self._touched:
            if key.tenant_id == row.key.tenant_id:
                found[key, meter] = []
        for late in self._late.values():
            if late.event.tenant_id == row.key.tenant_id and allocated(late) == spot(row, 1):
                place_ = (late.closed or before_all(late.event), late.event.meter)
                found.setdefault(place_, []).append(late.event)
        for (key, meter), events in sorted(found.items(), key=_by_start):
            if self._rule(key, meter) is not None:
                continue
            frozen, earlier = self._frozen(key, meter), self._adjustments_of(key, meter)
            kind = frozen.aggregation if frozen is not None else None
            kind = kind or next((kind for _, _, kind in earlier), _aggregation(asked, meter))
            own = frozen.figures if frozen is not None else Figures()
            late_ones, billed = figures_of(events), sum(each.quantity for each, _, _ in earlier)
            known = late_ones
            for _, figures, _ in earlier:
                known = known.merged(figures)
            change = adjustment(own, known, billed, kind)
            if events or change:
                made = Adjustment(meter, (), change, late_ones.count, start_of(key))
                self._adjusted.setdefault(row.key, []).append((made, late_ones, kind))

    def _frozen(self, key: PeriodKey, meter: MeterName) -> MeterTotal | None:
        """Return what the newest revision of a period has of a meter without groups."""
        row = self._rows.get(key)
        totals = self._totals.get((key, row.period.revision), []) if row is not None else []
        return next((each for each in totals if each.meter == meter and not each.group), None)

    def _adjustments_of(
        self, closed: PeriodKey, meter: MeterName
    ) -> list[tuple[Adjustment, Figures, Aggregation]]:
        """Return all that periods have adjusted of a meter's closed period."""
        return [
            found
            for key, made in self._adjusted.items()
            for found in made
            if key.tenant_id == closed.tenant_id
            and (found[0].closed_start_us, found[0].meter) == (start_of(closed), meter)
        ]

    def _settle(self, row: PeriodRow, asked: Sealing) -> None:
        """Settle by which rules periods are folded that this one freezes or adjusts."""
        number = row.period.revision
        rules = {name: rule for name, each in asked.meters.items() if (rule := rule_of(each))}
        levels = {
            name for name, rule in rules.items() if rule.aggregation is Aggregation.TIME_WEIGHTED
        }
        wanted: set[tuple[PeriodKey, MeterName]] = set()
        for event in self._events(row.key.tenant_id) if number == 1 else ():
            lasts = event.meter in levels or event.event_time_us >= row.key.start_us
            if lasts and event.event_time_us < row.period.end_us:
                wanted.add((row.key, event.meter))
        late_ones = {each for each in self._touched if each[0].tenant_id == row.key.tenant_id}
        for late in self._late.values():
            if late.event.tenant_id == row.key.tenant_id and allocated(late) == spot(row, number):
                late_ones.add((late.closed or before_all(late.event), late.event.meter))
        for key, meter in late_ones:
            wanted.add((key, meter))
            for later in self._of(row.key.tenant_id) if meter in levels else ():
                if later.key.start_us > key.start_us and later.period.revision:
                    wanted.add((later.key, meter))
        for key, meter in wanted:
            told = any(
                place[0] == key and any(each.meter == meter for each in totals)
                for place, totals in self._totals.items()
            )
            if meter in rules and not told and not self._adjustments_of(key, meter):
                self._rules.setdefault((key, meter), rules[meter])

    def _review(self, row: PeriodRow) -> None:
        """Settle what the period is to look at again."""
        found = self._reviews.setdefault(row.key, set())
        own = [each for each in self._touched if each[0].tenant_id == row.key.tenant_id]
        for key, meter in own:
            self._touched.discard((key, meter))
            for (other, name), rule in self._rules.items():
                lasts = rule.aggregation is Aggregation.TIME_WEIGHTED
                same = (other.tenant_id, name) == (key.tenant_id, meter)
                if (
                    same
                    and key.start_us <= other.start_us < row.key.start_us
                    and (other == key or lasts)
                ):
                    found.add((other, name))

    def _rule(self, key: PeriodKey, meter: MeterName) -> Meter | None:
        return self._rules.get((key, meter))

    def _own(self, row: PeriodRow, number: int) -> dict[MeterName, list[UsageEvent]]:
        found: dict[MeterName, list[UsageEvent]] = {}
        for event in self._events(row.key.tenant_id):
            late = self._late.get((event.tenant_id, event.event_id))
            if late is None:
                inside = row.key.start_us <= event.event_time_us < row.period.end_us
                mine = inside and number == 1
            else:
                mine = late.closed == row.key and allocated(late) == spot(row, number)
            if mine:
                found.setdefault(event.meter, []).append(event)
        return found

    def _known(self, tenant_id: TenantId, since_us: int) -> KnownTenant:
        rows = self._of(tenant_id)
        if rows:
            newest = rows[-1]
            return KnownTenant(
                tenant_id, newest.span, newest.period.state is PeriodState.OPEN, None
            )
        uses = [each.event_time_us for each in self._events(tenant_id)]
        first_us = min((each for each in uses if each >= since_us), default=None)
        return KnownTenant(tenant_id, None, False, first_us)

    def _first_use(self, key: PeriodKey, history_us: int) -> int | None:
        row = self._rows[key]
        if row.period.revision or row is not self._of(key.tenant_id)[0]:
            return None
        uses = [each.event_time_us for each in self._events(key.tenant_id)]
        since_us = row.created_us - history_us
        return min((each for each in uses if since_us <= each < key.start_us), default=None)

    def _is_due(self, row: PeriodRow, now_us: int) -> bool:
        if row.period.state is not PeriodState.GRACE or row.period.due_us > now_us:
            return False
        return self._first_unsealed(row)

    def _is_waiting(self, row: PeriodRow) -> bool:
        wanted = spot(row, row.period.revision + 1)
        return row.period.state is PeriodState.CLOSED and any(
            late.closed == row.key and allocated(late) == wanted for late in self._late.values()
        )

    def _first_unsealed(self, row: PeriodRow) -> bool:
        rows = self._of(row.key.tenant_id)
        return all(each.period.revision for each in rows[: rows.index(row)])

    def _followed(self, row: PeriodRow) -> bool:
        return PeriodKey(row.key.tenant_id, row.period.end_us) in self._rows

    def _letters(self, row: PeriodRow) -> int:
        return sum(
            letter.tenant_id == row.key.tenant_id
            and letter.reason == UNSTORABLE
            and row.key.start_us <= letter.received_at_us < row.period.due_us
            for letter in self._ledger.dead_letters.values()
        )

    def _of(self, tenant_id: TenantId) -> list[PeriodRow]:
        rows = [row for row in self._rows.values() if row.period.tenant_id == tenant_id]
        return sorted(rows, key=lambda row: row.period.start_us)

    def _events(self, tenant_id: TenantId) -> list[UsageEvent]:
        return [each for each in self._ledger.events.values() if each.tenant_id == tenant_id]

    def _asked(self, asked: PeriodAsked) -> PeriodRow:
        self._answer()
        row = self._rows.get(asked.key)
        if row is None:
            raise NotFound(field="start")
        return row

    def _act(self, asked: PeriodAsked, action: str) -> None:
        made = PeriodAction(action, asked.actor, asked.reason, asked.now_us)
        self._actions.setdefault(asked.key, []).append(made)

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


def allocated(late: LateEvent) -> tuple[int, int]:
    """Return the start and the revision that a late event is allocated to."""
    return late.place.start_us, late.place.revision


def spot(row: PeriodRow, number: int) -> tuple[int, int]:
    """Return what late events of a revision are allocated to."""
    return row.key.start_us, number


def before_all(event: UsageEvent) -> PeriodKey:
    """Return what stands for all before the first period of an event's tenant."""
    return PeriodKey(event.tenant_id, BEFORE_ALL_US)


def start_of(key: PeriodKey) -> int | None:
    """Return when a period starts, None for all before the first."""
    return None if key.start_us == BEFORE_ALL_US else key.start_us


def _by_start(found: tuple[tuple[PeriodKey, MeterName], object]) -> tuple[int, MeterName]:
    (key, meter), _ = found
    return key.start_us, meter


def _aggregation(asked: Sealing, meter: MeterName) -> Aggregation:
    return asked.meters[meter].aggregation if meter in asked.meters else Aggregation.SUM


def _sealable(row: PeriodRow) -> Sealable:
    return Sealable(row.key.start_us, row.period.state, row.period.revision)


def figures_of(events: Iterable[UsageEvent]) -> Figures:
    """Return what events add up to."""
    found = Figures()
    for event in events:
        one = Figures(1, event.amount, event.amount, event.amount)
        found = found.merged(Figures(sum=event.amount) if event.refund_of else one)
    return found
