"""Billing periods in memory, and what closes, reads and reopens them.

Guarantees: passes the same contract tests as the ledger in Postgres; events are read from a
`FakeLedger`, which asks the books which of them are late.
Refuses to know: who leads. Whoever asks does.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import (
    Act,
    Cause,
    Held,
    MeterTotal,
    PeriodKey,
    PeriodNotSo,
    PeriodState,
    Placed,
    after,
)
from tallygate.domain.period_digest import Covered, Leaf, LeafKind, minute_digest
from tallygate.domain.period_fold import Fold
from tallygate.domain.window import MINUTE_US
from tallygate.ports.period import (
    Adjustment,
    BillingPeriod,
    Due,
    Ended,
    FrozenTotal,
    KnownTenant,
    LateCount,
    PeriodAction,
    PeriodAsked,
    PeriodQuery,
    Revision,
    Sealed,
    SealedRevision,
    Sealing,
    Span,
    StateCount,
)
from tallygate.testing.period_books import PeriodRow, allocated, figures_of
from tallygate.testing.period_folds import FoldBooks


class FakePeriods(FoldBooks):
    """The `PeriodLedger`, the `PeriodFolds`, the `PeriodReader` and the `PeriodDesk` port.

    Set `down` to have no call answered. `correcting` are meters whose late events make corrections,
    `declared` tenants of the catalog. `told` are the messages: their type, period and revision.
    """

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Say that the lease is the caller's."""
        self._answer()
        return True

    async def known(self, after: str, count: int, since_us: int) -> list[KnownTenant]:
        """Return up to `count` tenants by id; first uses are looked for from `since_us` on."""
        self._answer()
        used = {event.tenant_id for event in self._ledger.events.values()}
        found = sorted(each for each in {*used, *self.declared} if each > after)[:count]
        return [self._known(each, since_us) for each in found]

    async def add(self, spans: Sequence[Span], now_us: int) -> int:
        """Add open periods that are not there yet; return how many."""
        self._answer()
        before = len(self._rows)
        for span in spans:
            start = BillingPeriod(
                span.key.tenant_id, span.key.start_us, span.end_us, PeriodState.OPEN, 0
            )
            self._rows.setdefault(span.key, PeriodRow(start, now_us))
        return len(self._rows) - before

    async def resize(self, spans: Sequence[Span]) -> None:
        """Give open periods, the newest of their tenants, other ends."""
        self._answer()
        for span in spans:
            row = self._rows[span.key]
            if row.period.state is PeriodState.OPEN and row is self._of(span.key.tenant_id)[-1]:
                row.period = replace(row.period, end_us=span.end_us)

    async def ended(self, now_us: int, count: int) -> list[Ended]:
        """Return up to `count` open periods that have ended."""
        self._answer()
        found = [
            row
            for row in self._rows.values()
            if row.period.state is PeriodState.OPEN and row.period.end_us <= now_us
        ]
        found.sort(key=lambda row: (row.period.end_us, row.period.tenant_id))
        return [Ended(row.span, self._followed(row)) for row in found[:count]]

    async def end(self, graces: Mapping[Span, int], following: Sequence[Span], now_us: int) -> None:
        """Give periods a grace until then, and add those that follow, in one step."""
        self._answer()
        for span, due_us in graces.items():
            row = self._rows[span.key]
            if row.period.state is PeriodState.OPEN:
                state = after(row.period.state, Act.END)
                row.period = replace(row.period, state=state, end_us=span.end_us, due_us=due_us)
        await self.add(following, now_us)

    async def due(self, now_us: int, count: int) -> list[Due]:
        """Return up to `count` periods whose grace is over, each the first unsealed of a tenant."""
        self._answer()
        found = [row for row in self._rows.values() if self._is_due(row, now_us)]
        found.sort(
            key=lambda row: (row.period.held is not None, row.period.due_us, row.period.tenant_id)
        )
        return [Due(row.period, row.accept_missing, self._letters(row)) for row in found[:count]]

    async def hold(self, reasons: Mapping[PeriodKey, Held | None], now_us: int) -> int:
        """Note why periods are held, or that they are not; tell each that is newly held."""
        self._answer()
        told = len(self.told)
        for key, reason in reasons.items():
            row = self._rows[key]
            if row.period.held is reason:
                continue
            since_us = now_us if reason is not None else 0
            row.period = replace(row.period, held=reason, held_since_us=since_us)
            if reason is not None:
                self.told.append(("period.held", key, row.period.revision))
        return len(self.told) - told

    async def accepted_lost(self) -> int:
        """Return how many lost events periods have been closed without, by somebody's word."""
        self._answer()
        return self._accepted_lost

    async def waiting(self, delay_s: float, count: int) -> list[PeriodKey]:
        """Return up to `count` closed periods that are due a correction; delays are none here."""
        self._answer()
        found = [row.key for row in self._rows.values() if self._is_waiting(row)]
        return found[:count]

    async def seal(self, asked: Sealing) -> Sealed:
        """Freeze the totals of periods. See the port."""
        self._answer()
        earlier = {
            key: first_us
            for key in asked.keys
            if (first_us := self._first_use(key, asked.history_us)) is not None
        }
        sealed: list[PeriodKey] = []
        for key in asked.keys:
            row = self._rows[key]
            ready = self._is_due(row, asked.now_us) or self._is_waiting(row)
            if key not in earlier and ready and self._followed(row):
                self._seal(row, asked)
                sealed.append(key)
        if sealed:
            self._accepted_lost = max(self._accepted_lost, asked.accepted_lost)
        return Sealed(sealed, earlier)

    async def unfinished(self, count: int) -> list[SealedRevision]:
        """Return up to `count` sealed revisions that are to be closed, the oldest first."""
        self._answer()
        found = [
            row
            for row in self._rows.values()
            if row.period.state is PeriodState.SEALED
            and (row.period.held in (None, Held.METER_NOT_FROZEN) or row.accept_missing)
            and not self._waits(row)
        ]
        found.sort(key=lambda row: row.sealed_us)
        return [
            SealedRevision(
                row.span,
                row.period.revision,
                row.cause,
                row.sealed_us,
                replace(row.revisions[-1][1], figures={}) if row.revisions else None,
                row.accept_missing,
            )
            for row in found[:count]
        ]

    async def leaves(self, revision: SealedRevision) -> AsyncIterator[Leaf]:
        """Iterate over what a revision covers beside those before it. See the port."""
        self._answer()
        key = revision.span.key
        found: dict[tuple[bool, bool, int, MeterName], list[UsageEvent]] = {}
        for event in self._events(key.tenant_id):
            late = self._late.get((event.tenant_id, event.event_id))
            minute_us = event.event_time_us - event.event_time_us % MINUTE_US
            inside = key.start_us <= event.event_time_us < revision.span.end_us
            if late is None and inside and revision.revision == 1:
                found.setdefault((False, False, minute_us, event.meter), []).append(event)
            elif late is not None and allocated(late) == (key.start_us, revision.revision):
                other = late.closed != key
                found.setdefault((True, other, minute_us, event.meter), []).append(event)
        for (is_late, other, minute_us, meter), events in sorted(found.items()):
            kind = LeafKind.EVENTS if not is_late else LeafKind.LATE
            yield Leaf(
                LeafKind.ADJUSTED if other else kind,
                minute_us,
                meter,
                len(events),
                figures_of(events),
                minute_digest(events),
            )

    async def close(
        self, revision: SealedRevision, covered: Covered, folded: Fold, now_us: int
    ) -> bool:
        """Close a revision and write its message; say whether it was not before."""
        self._answer()
        row = self._rows[revision.span.key]
        is_it = row.period.revision == revision.revision
        if row.period.state is not PeriodState.SEALED or not is_it:
            return False
        state = after(row.period.state, Act.CLOSE)
        row.period = replace(row.period, state=state, held=None, held_since_us=0)
        row.accept_missing = False
        self._freeze(row.key, revision.revision, folded)
        number, digest = revision.revision, covered.digest.hex()
        made = Revision(number, row.cause, now_us, covered.events, digest)
        row.revisions.append((made, covered))
        self.told.append(("period.closed", row.key, revision.revision))
        return True

    async def states(self) -> list[StateCount]:
        """Count periods by state and by why they are held."""
        self._answer()
        found: dict[tuple[PeriodState, Held | None], list[int]] = {}
        for row in self._rows.values():
            place_ = (row.period.state, row.period.held)
            found.setdefault(place_, []).append(row.period.held_since_us)
        return [StateCount(*place_, len(since), min(since)) for place_, since in found.items()]

    async def periods(self, query: PeriodQuery) -> list[BillingPeriod]:
        """Return periods by tenant and start, at most `query.limit`."""
        self._answer()
        found = [
            row.period
            for row in self._rows.values()
            if query.tenant_id in (None, row.period.tenant_id)
            and (not query.states or row.period.state in query.states)
            and (not query.held or row.period.held is not None)
            and (query.from_us is None or row.period.end_us > query.from_us)
            and (query.to_us is None or row.period.start_us < query.to_us)
            and (query.after is None or _place(row.period) > query.after)
        ]
        return sorted(found, key=_place)[: query.limit]

    async def period(self, tenant_id: TenantId, start_us: int) -> BillingPeriod | None:
        """Return the period of a tenant that starts then, None when there is none."""
        self._answer()
        row = self._rows.get(PeriodKey(tenant_id, start_us))
        return row.period if row is not None else None

    async def newest(self, tenant_id: TenantId) -> BillingPeriod | None:
        """Return the newest period that was sealed, else the newest, None where there is none."""
        self._answer()
        rows = self._of(tenant_id)
        return max((row.period for row in rows), key=_sealed_first, default=None)

    async def totals(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[FrozenTotal]:
        """Return the totals of one revision by meter and group, without adjustments."""
        return [
            FrozenTotal(each.meter, each.group, each.quantity, each.figures.count)
            for each in await self.frozen(tenant_id, start_us, revision)
        ]

    async def frozen(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[MeterTotal]:
        """Return the totals of one revision as they were frozen, by meter and group."""
        self._answer()
        return self._totals.get((PeriodKey(tenant_id, start_us), revision), [])

    async def adjustments(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[Adjustment]:
        """Return what the revision bills, beside its totals, of periods that were closed before."""
        self._answer()
        found = self._adjusted.get(PeriodKey(tenant_id, start_us), []) if revision else []
        return [each for each, _, _ in found]

    async def revisions(self, tenant_id: TenantId, start_us: int) -> Sequence[Revision]:
        """Return the closings of a period that are complete, the first one first."""
        self._answer()
        row = self._rows.get(PeriodKey(tenant_id, start_us))
        return [each for each, _ in row.revisions] if row is not None else []

    async def ask_close(self, asked: PeriodAsked, *, accept_missing: bool) -> BillingPeriod:
        """Have a period that has ended be due now; return it. See the port."""
        row = self._asked(asked)
        if row.period.state not in (PeriodState.GRACE, PeriodState.SEALED):
            raise PeriodNotSo(field="start")
        row.period = replace(row.period, due_us=min(row.period.due_us, asked.now_us))
        row.accept_missing = row.accept_missing or accept_missing
        self._act(asked, "close")
        return row.period

    async def reopen(self, asked: PeriodAsked, due_us: int) -> BillingPeriod:
        """Open a closed period again until then; return it. See the port."""
        row = self._asked(asked)
        state = after(row.period.state, Act.REOPEN)
        row.period = replace(row.period, state=state, due_us=due_us)
        row.cause = Cause.REOPENED
        self._act(asked, "reopen")
        self.told.append(("period.reopened", row.key, row.period.revision))
        return row.period

    async def late(self, key: PeriodKey) -> Sequence[LateCount]:
        """Return what came late for a period."""
        self._answer()
        found: dict[tuple[int, int, Placed], int] = {}
        for each in self._late.values():
            if each.closed == key:
                spot = (each.place.start_us, each.place.revision, each.place.placed)
                found[spot] = found.get(spot, 0) + 1
        return [
            LateCount(placed, start_us, revision, events)
            for (start_us, revision, placed), events in sorted(found.items())
        ]

    async def actions(self, key: PeriodKey) -> Sequence[PeriodAction]:
        """Return what was done to a period by hand, the first one first."""
        self._answer()
        return self._actions.get(key, [])


def _sealed_first(period: BillingPeriod) -> tuple[bool, int]:
    return period.revision > 0, period.start_us


def _place(period: BillingPeriod) -> tuple[str, int]:
    return period.tenant_id, period.start_us
