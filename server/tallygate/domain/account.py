"""The specification of `admit.lua`: what a shard's accounts do with operations, in pure Python.

Guarantees: for the same operations at the same times, the script in Redis and this module give the
same outcomes, the same counters and the same stream. A property test holds the two together.
Refuses to know: Redis, encodings, and real time.

An operation passes whole or not at all. It is evaluated against every counter before the first
change; a refusal changes nothing and is not remembered, so that a retry after the window can pass.
What a reservation holds counts as used until it is settled, comes back or expires.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.answer import asking, leaves_traces, refusal, replayed, shares_told, touched
from tallygate.domain.balance import Balance, add_grants, read_balance
from tallygate.domain.call import Call
from tallygate.domain.decision import (
    BalanceRule,
    Broken,
    Changed,
    Charge,
    Crowded,
    Decided,
    Fenced,
    LimitReading,
    Mode,
    Moved,
    Operation,
    Outcome,
    Overflowed,
    RefundExceeds,
    Reservation,
    ReservationState,
    Reused,
    Stale,
    TooLate,
    Unresolved,
)
from tallygate.domain.detail import (
    Credit,
    Extension,
    Hold,
    Late,
    Rebuilt,
    Refund,
    Settlement,
    Share,
)
from tallygate.domain.entry import Entry
from tallygate.domain.fence import is_fenced, not_begun, rebuild
from tallygate.domain.given import given_in, known_among, remembered_given
from tallygate.domain.hold import Account, left_of, settle, share_text, shares_of
from tallygate.domain.ids import (
    AccountId,
    EventId,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.domain.limit import HELD, Verdict, evaluate, in_reach, refund, reset
from tallygate.domain.remembered import Kept, Remembered
from tallygate.domain.verdict import Moment


@dataclass(slots=True)
class Accounts:
    """The state of one shard: what it holds in one epoch, and its stream and numbers in all.

    While it is not `open`, its counters are being rebuilt: hard limits are not decided by them.
    While it is `lost` too, its balances have not been given their grants again.
    """

    memory_us: int
    accounts: dict[AccountId, Account] = field(default_factory=dict)
    operations: dict[tuple[TenantId, OperationId], Remembered] = field(default_factory=dict)
    reservations: dict[tuple[TenantId, ReservationId], Kept] = field(default_factory=dict)
    refunded: dict[tuple[TenantId, EventId], int] = field(default_factory=dict)
    sequences: dict[SourceId, int] = field(default_factory=dict)
    stream: list[Entry] = field(default_factory=list)
    # Tenants whose counters are elsewhere, or not here yet.
    moved: set[TenantId] = field(default_factory=set)
    epoch: str = ""
    open: bool = True
    lost: bool = field(default=False, repr=False)

    def decide(
        self, operations: Sequence[Operation], source_id: SourceId, now_us: int
    ) -> list[Outcome]:
        """Decide the operations in order, each by itself, and append one entry for all accepted.

        `source_id` names the source, and the epoch in which its events are numbered.
        """
        call = Call(now_us, source_id, self.sequences.get(source_id, 0))
        outcomes = [call.signed(self._decide_one(operation, call)) for operation in operations]
        if call.parts:
            self.stream.append(Entry(now_us, source_id, tuple(call.parts)))
            self.sequences[source_id] = call.last_seq
        return outcomes

    def renew(self, epoch: str) -> None:
        """Begin a new epoch, which knows nothing; the stream and the numbers stay."""
        self.epoch = epoch
        self.accounts.clear()
        self.operations.clear()
        self.reservations.clear()
        self.refunded.clear()
        self.open, self.lost = False, True

    def reservation(
        self, tenant_id: TenantId, of: ReservationId, now_us: int
    ) -> Reservation | None:
        """Return a reservation that is known still."""
        kept = self.reservations.get((tenant_id, of))
        return kept.reservation if kept is not None and now_us < kept.until_us else None

    def _account(self, of: AccountId) -> Account:
        return self.accounts.setdefault(of, Account())

    def _decide_one(self, operation: Operation, call: Call) -> Outcome:
        if operation.tenant_id in self.moved and leaves_traces(operation):
            return Moved()
        known = self._remembered(operation, call.now_us)
        if known is not None:
            if known.fingerprint != operation.fingerprint:
                return Reused()
            return replayed(known.answer, operation)
        if 0 < operation.deadline_us < call.now_us:
            return TooLate(call.now_us)
        if not self.open:
            known_hold = self._known(operation, call.now_us)
            if is_fenced(operation, known=known_hold, lost=self.lost):
                return Fenced()
        refused = self._closed(operation, call.now_us)
        if refused is not None:
            return refused
        if not all(in_reach(charge.rule, call.now_us) for charge in operation.charges):
            return Stale(call.now_us)
        if isinstance(operation.detail, Rebuilt) and not_begun(operation, call.now_us):
            return Stale(call.now_us)
        for of in touched(operation):
            self._account(of).expire(call.now_us)
        return self._do(operation, call)

    def _do(self, operation: Operation, call: Call) -> Outcome:
        if not self._holds(operation):
            # Its units have come back; a clock that was set back does not take them again.
            return Unresolved(ReservationState.EXPIRED)
        known = known_among(operation, self.operations, call.now_us)
        if known is not None:
            return known
        match operation.detail:
            case Settlement() as settlement:
                return self._settle(operation, settlement, call)
            case Extension() as extension:
                return self._extend(operation, extension, call)
            case Refund() as taken:
                return self._refund(operation, taken, call)
            case Credit() as credit:
                return self._credit(operation, credit, call)
            case Rebuilt() as rebuilt:
                return self._rebuild(operation, rebuilt, call)
            case Hold() | Late() | None:
                pass
        if operation.mode is Mode.RESET:
            return self._reset(operation, call)
        return self._charge(operation, call)

    def _known(self, operation: Operation, now_us: int) -> bool:
        """Say whether the reservation that the operation settles or extends is known."""
        if not isinstance(operation.detail, Settlement | Extension):
            return True
        of = operation.detail.reservation_id
        return self.reservation(operation.tenant_id, of, now_us) is not None

    def _closed(self, operation: Operation, now_us: int) -> Outcome | None:
        """Return why a reservation cannot be made, settled or extended, None when it can."""
        if not isinstance(operation.detail, Hold | Settlement | Extension):
            return None
        found = self.reservation(operation.tenant_id, operation.detail.reservation_id, now_us)
        if isinstance(operation.detail, Hold):
            return Reused() if found is not None else None
        if found is None:
            return Unresolved(ReservationState.UNKNOWN)
        if found.state is not ReservationState.HELD:
            return Unresolved(found.state)
        if found.expires_us <= now_us:
            return Unresolved(ReservationState.EXPIRED)
        return None if shares_told(operation) == found.shares else Changed()

    def _holds(self, operation: Operation) -> bool:
        """Say whether all that the operation settles or extends is held."""
        if not isinstance(operation.detail, Settlement | Extension):
            return True
        of = operation.detail.reservation_id
        return all(
            share_text(share, of) in self._account(share.account).holds
            for share in shares_told(operation)
        )

    def _verdicts(self, operation: Operation, call: Call) -> list[Verdict]:
        used_at_us = min(operation.event_time_us or call.now_us, call.now_us)
        verdicts: list[Verdict] = []
        for charge in operation.charges:
            account = self._account(charge.account)
            moment = Moment(call.now_us, asking(operation), used_at_us, account.next_hold_us)
            verdicts.append(evaluate(charge, account.counters.get(charge.field), moment))
        return verdicts

    def _charge(self, operation: Operation, call: Call) -> Outcome:
        full = (self._account(charge.account).full for charge in operation.charges)
        if operation.mode is Mode.RESERVE and any(full):
            return Crowded()
        verdicts = self._verdicts(operation, call)
        if any(verdict.refuses for verdict in verdicts):
            return refusal(operation.charges, verdicts, call.now_us)
        for charge, verdict in zip(operation.charges, verdicts, strict=True):
            if verdict.overflow:
                return Overflowed(charge.limit_id)
        if operation.mode is Mode.CHECK:
            return Decided(True, call.now_us, tuple(verdict.before for verdict in verdicts))
        first_seq = 0
        if isinstance(operation.detail, Hold):
            self._hold(operation, operation.detail, verdicts, call)
        else:
            first_seq = call.append(operation, operation.payload, operation.event_count)
        self._apply(operation.charges, verdicts, call, burns=operation.mode is not Mode.RESERVE)
        readings = tuple(verdict.after for verdict in verdicts)
        answer = call.answer(readings, first_seq)
        return self._answer(operation, answer, operation.payload if first_seq else b"")

    def _hold(
        self, operation: Operation, hold: Hold, verdicts: Sequence[Verdict], call: Call
    ) -> None:
        ends_us = call.now_us + hold.ttl_us
        shares = shares_of(operation.charges, [verdict.slots for verdict in verdicts])
        for share in shares:
            text = share_text(share, hold.reservation_id)
            self._account(share.account).hold(text, share, ends_us)
        self._keep(
            operation.tenant_id,
            hold.reservation_id,
            Reservation(ReservationState.HELD, call.now_us, ends_us, shares, operation.payload),
            ends_us + self.memory_us,
        )

    def _settle(self, operation: Operation, settlement: Settlement, call: Call) -> Outcome:
        key = (operation.tenant_id, settlement.reservation_id)
        found = self.reservations[key].reservation
        first_seq = call.append(operation, operation.payload, operation.event_count)
        recorded = operation.payload
        shares: list[Share] = []
        for portion in settlement.portions:
            account = self._account(portion.share.account)
            del account.holds[share_text(portion.share, settlement.reservation_id)]
            settled = settle(portion)
            for each in settled:
                account.give_back(each.field, each.back)
                if each.field.endswith(HELD):
                    # Concurrency counts what is held: nothing of it is ever used up.
                    account.give_back(each.field, each.used)
                call.burn(portion.share.account, each.field, each.used)
            left = Share(portion.share.account, left_of(settled))
            if left.pieces:
                account.hold(share_text(left, settlement.reservation_id), left, found.expires_us)
                shares.append(left)
        verdicts = self._verdicts(operation, call)
        over = [
            charge.limit_id
            for charge, verdict in zip(operation.charges, verdicts, strict=True)
            if verdict.refuses or verdict.overflow
        ]
        if not over:
            count = settlement.excess_count
            excess_seq = call.append(operation, settlement.excess_payload, count)
            first_seq = first_seq or excess_seq
            recorded += settlement.excess_payload
            self._apply(operation.charges, verdicts, call, burns=True)
        if operation.mode is Mode.SETTLE:
            kept = replace(found, shares=tuple(shares))
            self._keep(*key, kept, self.reservations[key].until_us)
        else:
            state = ReservationState.COMMITTED
            if operation.mode is Mode.RELEASE:
                state = ReservationState.RELEASED
            self._keep(*key, replace(found, state=state), call.now_us + self.memory_us)
        readings = tuple(verdict.before if over else verdict.after for verdict in verdicts)
        refused_by = over[0] if over else None
        answer = call.answer(readings, first_seq, refused_by)
        return self._answer(operation, answer, recorded)

    def _extend(self, operation: Operation, extension: Extension, call: Call) -> Outcome:
        ends_us = call.now_us + extension.ttl_us
        key = (operation.tenant_id, extension.reservation_id)
        for share in extension.shares:
            text = share_text(share, extension.reservation_id)
            self._account(share.account).hold(text, share, ends_us)
        found = self.reservations[key].reservation
        self._keep(*key, replace(found, expires_us=ends_us), ends_us + self.memory_us)
        return Decided(True, call.now_us, ())

    def _refund(self, operation: Operation, taken: Refund, call: Call) -> Outcome:
        key = (operation.tenant_id, taken.event_id)
        before = self.refunded.get(key, 0)
        if before + taken.units > taken.units_max:
            return RefundExceeds(taken.units_max - before)
        first_seq = call.append(operation, operation.payload, operation.event_count)
        self.refunded[key] = before + taken.units
        whole = not taken.counted or before + taken.units == taken.units_max
        readings: list[LimitReading] = []
        for charge in operation.charges:
            account = self._account(charge.account)
            used_at_us = min(operation.event_time_us or call.now_us, call.now_us)
            moment = Moment(call.now_us, operation.mode, used_at_us, account.next_hold_us)
            slots, state = refund(charge, account.counters.get(charge.field), moment)
            if state is not None and charge.amount > 0 and whole:
                account.counters[charge.field] = state
                call.burn(charge.account, charge.field, slots)
            readings.append(self._read(charge, call.now_us))
        answer = call.answer(readings, first_seq)
        return self._answer(operation, answer, operation.payload)

    def _reset(self, operation: Operation, call: Call) -> Outcome:
        readings: list[LimitReading] = []
        for charge in operation.charges:
            account = self._account(charge.account)
            readings.append(self._read(charge, call.now_us))
            stored = account.counters.get(charge.field)
            state = reset(charge, stored, account.held(charge.field), call.now_us)
            if state is not None:
                account.counters[charge.field] = state
            readings.append(self._read(charge, call.now_us))
        return self._answer(operation, call.answer(readings, 0))

    def _credit(self, operation: Operation, credit: Credit, call: Call) -> Outcome:
        (charge,) = operation.charges
        account = self._account(charge.account)
        stored = account.counters.get(charge.field, Balance())
        if not isinstance(charge.rule, BalanceRule) or not isinstance(stored, Balance):
            return Broken("the counter is not a balance")
        added = add_grants(stored, credit, charge.rule, call.now_us)
        if added is None:
            return Overflowed(charge.limit_id)
        slots, balance = added
        if balance != Balance():
            account.counters[charge.field] = balance
        call.burn(charge.account, charge.field, slots)
        reading = read_balance(charge, charge.rule, balance, False, call.now_us)
        return Decided(True, call.now_us, (reading,))

    def _read(self, charge: Charge, now_us: int) -> LimitReading:
        account = self._account(charge.account)
        moment = Moment(now_us, Mode.CHECK, now_us, account.next_hold_us)
        return evaluate(
            replace(charge, amount=0), account.counters.get(charge.field), moment
        ).before

    def _apply(
        self, charges: Sequence[Charge], verdicts: Sequence[Verdict], call: Call, *, burns: bool
    ) -> None:
        for charge, verdict in zip(charges, verdicts, strict=True):
            if verdict.counter is not None:
                self._account(charge.account).counters[charge.field] = verdict.counter
            if burns:
                call.burn(charge.account, charge.field, verdict.slots)
            call.cross(charge, verdict.crossings)

    def _rebuild(self, operation: Operation, rebuilt: Rebuilt, call: Call) -> Outcome:
        again = False
        if operation.charges:
            account = self._account(operation.charges[0].account)
            again = not rebuild(account, operation.charges, rebuilt, call.now_us)
        readings = tuple(self._read(charge, call.now_us) for charge in operation.charges)
        return Decided(True, call.now_us, readings, replayed=again)

    def _keep(
        self, tenant_id: TenantId, of: ReservationId, reservation: Reservation, until_us: int
    ) -> None:
        self.reservations[tenant_id, of] = Kept(reservation, until_us)

    def _answer(self, operation: Operation, answer: Decided, payload: bytes = b"") -> Decided:
        """Remember the answer with the events that a refund may name, by calls where it has any."""
        self.operations.update(remembered_given(operation, answer, self.memory_us))
        payload = b"" if given_in(operation) else payload
        if operation.operation_id is not None:
            memory_us = self.memory_us
            if isinstance(operation.detail, Hold):
                # As long as its reservation is known.
                memory_us += operation.detail.ttl_us
            key = (operation.tenant_id, operation.operation_id)
            until_us = answer.at_us + memory_us
            self.operations[key] = Remembered(operation.fingerprint, until_us, answer, payload)
        return answer

    def _remembered(self, operation: Operation, now_us: int) -> Remembered | None:
        if operation.operation_id is None:
            return None
        known = self.operations.get((operation.tenant_id, operation.operation_id))
        return known if known is not None and now_us < known.until_us else None
