"""Intents and sends in memory.

Guarantees: passes the same contract tests as the store in Postgres.
Refuses to know: rollups; usage is put in by hand, and dimensions are not told apart.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import (
    ADDING,
    NEXT,
    Intent,
    IntentId,
    IntentKind,
    IntentPlace,
    SendState,
    WindowGap,
)
from tallygate.domain.window import Window
from tallygate.ports.stripe_store import (
    Claim,
    Claimed,
    Cut,
    GapQuery,
    LeftSend,
    PeriodSend,
    ReportedError,
    ReportNoted,
    SendResult,
    StripeDepth,
)
from tallygate.testing.stripe_rows import (
    NOT_DONE,
    TAKEN,
    Lane,
    LateUse,
    Row,
    counted,
    measured,
    outdone,
    place_of,
    window,
    window_of,
)


@dataclass(slots=True)
class FakeStripeStore:
    """The `StripeIntents`, `StripeSends` and `StripeUpkeep` ports.

    `used` holds tenant, time and units, `late` which of it later periods bill. `now_us` is the
    store's own time. Set `down` to have it not answer.
    """

    now_us: Callable[[], int]
    down: bool = False
    used: list[tuple[TenantId, int, int]] = field(default_factory=list)
    late: list[LateUse] = field(default_factory=list)
    periods: dict[TenantId, list[Window]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    lanes: dict[tuple[str, str, MeterName], Lane] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)

    async def gaps(self, query: GapQuery) -> list[WindowGap]:
        """Return windows whose usage is not what is intended of them, earliest first."""
        self._answer()
        totals: dict[tuple[object, ...], tuple[IntentPlace, int | None, list[int]]] = {}
        for cut in query.cuts:
            for at_us, units, closed_us in counted(query, cut, self.used, self.late):
                place = window(query, cut, at_us)
                if place.end_us <= query.settled_us:
                    key = (place.tenant_id, place.start_us, place.end_us, closed_us)
                    totals.setdefault(key, (place, closed_us, []))[2].append(units)
        for row in self.rows:
            cuts = [cut for cut in query.cuts if self._lies_in(row, query, cut)]
            if cuts and row.intent.place.end_us <= query.settled_us and not query.latest:
                place = replace(row.intent.place, customer=cuts[0].customer)
                closed_us = row.intent.closed_start_us
                key = (place.tenant_id, place.start_us, place.end_us, closed_us)
                totals.setdefault(key, (place, closed_us, []))
        found = [self._gap(query, *each) for each in totals.values()]
        open_ = [gap for gap in found if gap is not None]
        return sorted(open_, key=lambda gap: gap.place.start_us)[: query.limit]

    async def chains(
        self, tenants: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the billing periods that tenants have between two instants, in order."""
        self._answer()
        found = {
            each: [
                window
                for window in self.periods.get(each, [])
                if window.end_us > from_us and window.start_us < to_us
            ]
            for each in tenants
        }
        return {tenant: windows for tenant, windows in found.items() if windows}

    async def intend(
        self, intents: Sequence[Intent], now_us: int, *, shadow: bool = False
    ) -> Sequence[str]:
        """Write intents; return the identifiers of those new."""
        self._answer()
        state = SendState.SHADOW if shadow else SendState.PENDING
        return [each.identifier for each in intents if self._write(each, now_us, state)]

    async def items(
        self, destination: str, places: Sequence[IntentPlace]
    ) -> Mapping[tuple[TenantId, str], str]:
        """Return the identifiers of items that are intended, by tenant and dimensions."""
        self._answer()
        asked = {(place.tenant_id, place.meter, place.dimensions) for place in places}
        return {
            (row.intent.place.tenant_id, row.intent.place.dimensions): row.intent.identifier
            for row in self.rows
            if row.intent.destination == destination
            and row.intent.kind is IntentKind.ITEM
            and row.intent.seq == 1
            and (row.intent.place.tenant_id, row.intent.place.meter, row.intent.place.dimensions)
            in asked
        }

    async def claim(
        self, destination: str, now_us: int, *, lanes: int, per_lane: int, lease_ms: int
    ) -> Claim:
        """Lease lanes that are due, and the first sends of each."""
        self._answer()
        token = str(uuid.uuid4())
        found: list[tuple[Claimed, ...]] = []
        for key, lane in sorted(self.lanes.items()):
            due = [each for each in self._of(key) if each.due_us <= now_us]
            free = not lane.token or lane.leased_until_us <= self.now_us()
            if key[0] != destination or not due or not free or lane.quiet_us > now_us:
                continue
            if len(found) == lanes:
                break
            lane.token, lane.leased_until_us = token, self.now_us() + lease_ms * 1000
            due.sort(key=lambda row: (row.state is SendState.PENDING, row.due_us, row.intent_id))
            chosen = sorted(due[:per_lane], key=lambda row: row.intent_id)
            found.append(tuple(self._claimed(each, token, now_us) for each in chosen))
        return Claim(token, tuple(found))

    async def finish(
        self, token: str, results: Sequence[SendResult], replacements: Sequence[Intent] = ()
    ) -> int:
        """Note results, and write what replaces some, at once."""
        self._answer()
        by_id = {row.intent_id: row for row in self.rows}
        ours = [each for each in results if by_id[each.intent_id].token == token]
        ids = {each.intent_id for each in ours}
        again = [each for each in replacements if each.replaces in ids]
        self._replace(again, min((each.due_us for each in ours), default=0))
        for each in ours:
            row = by_id[each.intent_id]
            row.state, row.due_us, row.doubtful = each.state, each.due_us, each.doubtful
            row.attempts -= each.unsent
            if not each.doubtful and each.state in NOT_DONE:
                row.first_us = None
            row.alone = row.alone or each.alone
            row.batch_key = each.batch_key or row.batch_key
            row.code, row.reason, row.token = each.code, each.reason, ""
        return len(ours)

    async def release(
        self, token: str, quiet: Mapping[tuple[str, MeterName], int] | None = None
    ) -> None:
        """Give back every lane of a claim."""
        self._answer()
        for (_, customer, meter), lane in self.lanes.items():
            if lane.token == token:
                lane.token = ""
                lane.quiet_us = (quiet or {}).get((customer, meter), lane.quiet_us)

    async def period(
        self, destination: str, customer: str, meter: MeterName, window: Window
    ) -> list[PeriodSend]:
        """Return what adds up in a stretch."""
        self._answer()
        return [
            PeriodSend(
                row.intent_id,
                Decimal(row.intent.value),
                row.state not in TAKEN,
                row.first_us or 0,
                row.last_us or 0,
            )
            for row in self.rows
            if row.lane == (destination, customer, meter)
            and window.holds(row.intent.timestamp_us)
            and row.intent.kind in ADDING
            and (row.state in TAKEN or row.doubtful)
            and row.state not in (SendState.REJECTED, SendState.SHADOW)
            and not self._replaced(row.intent_id)
        ]

    async def depths(self, late_before_us: int) -> list[StripeDepth]:
        """Return what is not done."""
        self._answer()
        found: dict[tuple[str, SendState], list[int]] = {}
        for row in self.rows:
            if row.state not in (*TAKEN, SendState.SHADOW):
                key = (row.intent.destination, row.state)
                found.setdefault(key, []).append(row.intent.timestamp_us)
        return [
            StripeDepth(*key, len(times), min(times), sum(each < late_before_us for each in times))
            for key, times in sorted(found.items())
        ]

    async def report(
        self, destination: str, event_id: str, errors: Sequence[ReportedError], now_us: int
    ) -> ReportNoted:
        """Reject the sends that a report names, once per report."""
        self._answer()
        if event_id in self.noted:
            return ReportNoted(new=False, rejected=0, opened=0)
        self.noted.add(event_id)
        rejected = opened = 0
        for error in errors:
            for row in [each for each in self.rows if each.intent.destination == destination]:
                own = error.key in (row.intent.idempotency_key, row.intent.identifier)
                if own and row.state in (*NOT_DONE, SendState.DELIVERED):
                    row.state, row.doubtful = SendState.REJECTED, False
                    rejected += 1
                elif error.key == row.batch_key and row.state is SendState.DELIVERED:
                    row.state, row.doubtful, row.alone = SendState.AMBIGUOUS, True, True
                    row.due_us = now_us
                    opened += 1
                else:
                    continue
                row.code, row.reason = error.code, error.reason
        return ReportNoted(new=True, rejected=rejected, opened=opened)

    async def left(
        self,
        destination: str,
        states: Sequence[SendState],
        *,
        code: str = "",
        ids: Sequence[IntentId] | None = None,
        after: IntentId = IntentId(0),  # noqa: B008  a number
        limit: int = 1_000,
    ) -> list[LeftSend]:
        """Return sends in these states that nothing replaces, by number."""
        self._answer()
        found = [
            LeftSend(
                *(row.intent_id, row.intent, row.state, row.doubtful),
                *(row.attempts, row.code, row.reason),
            )
            for row in self.rows
            if row.intent.destination == destination
            and row.state in states
            and code in ("", row.code)
            and (ids is None or row.intent_id in ids)
            and row.intent_id > after
            and not self._replaced(row.intent_id)
        ]
        return found[:limit]

    async def replace(self, destination: str, replacements: Sequence[Intent], now_us: int) -> int:
        """Write what replaces open sends, and close these, all or none."""
        self._answer()
        self._replace(replacements, now_us)
        closed = [each.replaces for each in replacements if each.replaces is not None]
        return await self.decide(destination, closed, "sent again under another identifier")

    async def decide(self, destination: str, ids: Sequence[IntentId], reason: str) -> int:
        """Close open sends as settled."""
        self._answer()
        open_ = (SendState.PENDING, SendState.AMBIGUOUS, SendState.REJECTED, SendState.TOO_OLD)
        closed = [row for row in self.rows if row.intent_id in ids and row.state in open_]
        for row in closed:
            row.state, row.reason = SendState.SETTLED, reason
        return len(closed)

    async def leave_shadow(self, destination: str, from_us: int, now_us: int) -> int:
        """Have what was planned in shadow sent."""
        self._answer()
        shown = [
            row
            for row in self.rows
            if row.state is SendState.SHADOW and row.intent.place.start_us >= from_us
        ]
        for row in shown:
            row.state, row.due_us = SendState.PENDING, now_us
            self.lanes.setdefault(row.lane, Lane())
        return len(shown)

    def _write(self, intent: Intent, now_us: int, state: SendState) -> bool:
        place = intent.place
        same = [row.intent for row in self.rows if place_of(row.intent) == place_of(intent)]
        if intent.seq == NEXT:
            intent = replace(intent, seq=max((each.seq for each in same), default=0) + 1)
        taken = any(each.seq == intent.seq for each in same) or any(
            row.intent.identifier == intent.identifier
            or (intent.replaces is not None and row.intent.replaces == intent.replaces)
            for row in self.rows
        )
        if taken:
            return False
        row = Row(IntentId(len(self.rows) + 1), intent, state, now_us)
        self.rows.append(row)
        if state is SendState.PENDING:
            self.lanes.setdefault((intent.destination, place.customer, place.meter), Lane())
        return True

    def _replace(self, replacements: Sequence[Intent], now_us: int) -> None:
        if any(self._replaced(each.replaces) for each in replacements if each.replaces):
            raise BackendUnavailable("a send is replaced already")
        for each in replacements:
            self._write(each, now_us, SendState.PENDING)

    def _replaced(self, intent_id: IntentId) -> bool:
        return any(row.intent.replaces == intent_id for row in self.rows)

    def _of(self, lane: tuple[str, str, MeterName]) -> list[Row]:
        return [row for row in self.rows if row.lane == lane and row.state in NOT_DONE]

    def _claimed(self, row: Row, token: str, now_us: int) -> Claimed:
        row.doubtful = row.doubtful or row.state is not SendState.PENDING
        row.state, row.token, row.last_us = SendState.SENDING, token, now_us
        row.attempts += 1
        row.first_us = row.first_us or now_us
        names = {each.intent_id: each.intent.identifier for each in self.rows}
        return Claimed(
            intent_id=row.intent_id,
            intent=row.intent,
            attempt=row.attempts,
            doubtful=row.doubtful,
            alone=row.alone,
            first_us=row.first_us,
            code=row.code,
            cancelled="" if row.intent.cancels is None else names[row.intent.cancels],
            outdone=outdone(row, self.rows),
        )

    def _lies_in(self, row: Row, query: GapQuery, cut: Cut) -> bool:
        place = row.intent.place
        return (
            (row.intent.destination, place.meter, place.tenant_id)
            == (query.destination, query.meter, cut.tenant_id)
        ) and cut.from_us <= place.start_us < cut.to_us

    def _gap(
        self, query: GapQuery, place: IntentPlace, closed_us: int | None, units: list[int]
    ) -> WindowGap | None:
        rows = [
            row
            for row in self.rows
            if place_of(row.intent) == (query.destination, *window_of(place), closed_us)
        ]
        counting = [row for row in rows if not self._replaced(row.intent_id)]
        total = measured(query.measure, units)
        last = max((row.intent.seq for row in rows), default=0)
        if query.latest:
            told = max(counting, key=lambda row: row.intent.seq, default=None)
            if told is not None and told.intent.quantity == total:
                return None
            had = 0 if told is None else told.intent.quantity
            return WindowGap(place, total, had, last)
        intended = sum(row.intent.quantity for row in counting)
        if intended == total:
            return None
        cancellable = [
            row.intent_id
            for row in counting
            if row.intent.kind is IntentKind.DELTA
            and row.state is SendState.DELIVERED
            and row.intent.quantity == intended - total
            and (row.first_us or 0) > query.cancel_after_us
            and not any(each.intent.cancels == row.intent_id for each in self.rows)
        ]
        last_told = cancellable[-1] if cancellable else None
        return WindowGap(place, total, intended, last, last_told, closed_us)

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable
