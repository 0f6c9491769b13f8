"""CheckAndConsume from leases: what comes in together is granted and journaled together.

Guarantees: a reply is what deciding its call by itself would have said; it is sent once what was
granted is as safe as it says. What is not granted here is left as it came.
Refuses to know: transports, and how what is left is decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError

from tallygate.api import convert
from tallygate.api.batched import Answering, Call
from tallygate.api.replies import Replies
from tallygate.domain import ids
from tallygate.domain.decision import Decided, LimitState, WindowRule
from tallygate.domain.errors import NotDurable, TallygateError
from tallygate.domain.ids import OperationId
from tallygate.domain.request import ConsumeResult, Durability, event_id_of
from tallygate.flow.granted import Repeatable
from tallygate.flow.heat import granted_at_us, readings_of
from tallygate.flow.lease import Leases, debit
from tallygate.flow.pattern import Pattern, Patterns
from tallygate.flow.settle import BATCH_MAX, Granted, Lease
from tallygate.gen.v1 import quota_pb2

# Contents of calls; each takes some kilobytes.
PATTERNS_MAX: Final = 2_000
# A content that comes less often is not worth a pattern.
MET_MIN: Final = 4
MET_MAX: Final = 20_000
# A sync takes milliseconds; a write less.
WAIT_S: Final = 1.0

_OK: Final = convert.STATES[LimitState.OK]
_WARNING: Final = convert.STATES[LimitState.WARNING]


class _Form:
    """A reply with room for what differs between the calls of a pattern and a lease."""

    def __init__(self, pattern: Pattern, lease: Lease, level: Durability) -> None:
        """Fill in what all replies say alike."""
        self.lease: Final = lease
        self._items = len(pattern.request.items)
        answer = Decided(True, 0, readings_of(lease, lease.left), leased=True)
        event_ids = tuple(event_id_of(OperationId(""), index) for index in range(self._items))
        self._message = quota_pb2.CheckAndConsumeResponse.FromString(
            Replies().consumed(ConsumeResult(answer, event_ids, level))
        )
        self._event_ids = self._message.event_ids
        self._limits = [
            (status, taken.used, charge.limit, _warns_from(lease, place))
            for place, (status, taken, charge) in enumerate(
                zip(self._message.limits, lease.readings, lease.charges, strict=True)
            )
        ]

    def encoded(self, of: str) -> bytes:
        """Return the reply to a call that was just granted."""
        left = self.lease.left
        for place, (status, taken, limit, warns_from) in enumerate(self._limits):
            used = taken - left[place]
            used = max(used, 0)
            status.used = used
            status.remaining = limit - used if limit > used else 0
            status.state = _WARNING if used >= warns_from else _OK
        event_ids = self._event_ids
        for index in range(self._items):
            event_ids[index] = f"{of}:{index}"
        encoded: bytes = self._message.SerializeToString()
        return encoded


@dataclass(slots=True)
class _Turn:
    """The calls that came together, as far as they are granted."""

    answering: Answering
    now_s: float
    groups: list[tuple[Lease, Pattern, Granted]]
    # The replies that need to be written, and those that need to be synced.
    written: list[tuple[int, bytes]]
    synced: list[tuple[int, bytes]]


class LeasedCalls:
    """Takes calls of CheckAndConsume, and answers those that are granted from leases."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._patterns = Patterns(leases)
        self._journal = leases.parts.journal
        self._known: dict[bytes, Pattern] = {}
        self._forms: dict[Pattern, _Form] = {}
        # How often contents have come that have no pattern yet.
        self._met: dict[bytes, int] = {}

    def take(self, calls: Sequence[Call], answering: Answering) -> Sequence[Call]:
        """Answer what is granted from leases, now or once it is written; return the others."""
        if not self._patterns.begin():
            return calls
        now_s = self._leases.parts.clock.monotonic()
        turn = _Turn(answering, now_s, [], [], [])
        read = quota_pb2.CheckAndConsumeRequest.FromString
        rest: list[Call] = []
        for call in calls:
            number, data, expires_at = call
            try:
                message = read(data)
            except DecodeError:
                rest.append(call)
                continue
            named = message.operation_id
            if named:
                message.ClearField("operation_id")
                data = message.SerializeToString(deterministic=True)
            pattern = self._known.get(data) or self._meet(data, message)
            if (
                pattern is None
                or expires_at <= now_s
                or not self._answer(turn, number, pattern, named)
            ):
                rest.append(call)
        self._end(turn)
        return rest

    def _answer(self, turn: _Turn, number: int, pattern: Pattern, named: str) -> bool:
        """Grant a call, or repeat its answer; say whether it has one."""
        lease = self._patterns.lease(pattern, turn.now_s)
        if lease is None:
            return False
        of = named or convert.operation_id_of("")
        alike = self._patterns.alike(pattern, len(of))
        if alike is None:
            return False
        name = (pattern.request.tenant_id, OperationId(of))
        synced = pattern.request.min_durability > Durability.BUFFERED
        told = turn.synced if synced else turn.written
        # A repeat is answered by whoever decides what is left; so is an id that is none.
        if named and (not _may_be_new(named) or self._leases.recent.get(name) is not None):
            return False
        debit(lease, pattern.amounts)
        pattern.room -= 1
        group = pattern.group
        if group is None or group.alike is not alike or len(group.operation_ids) >= BATCH_MAX:
            at_us = granted_at_us(lease, turn.now_s)
            group = pattern.group = Granted(alike, pattern.amounts, at_us, [])
            turn.groups.append((lease, pattern, group))
        group.operation_ids.append(name[1])
        if named:
            self._leases.recent.put(name, Repeatable(alike, group, lease, tuple(lease.left)))
        form = self._forms.get(pattern)
        if form is None or form.lease is not lease:
            form = self._forms[pattern] = _Form(pattern, lease, self._level(synced=synced))
        told.append((number, form.encoded(of)))
        return True

    def _end(self, turn: _Turn) -> None:
        """Enter what was granted, and answer once that is done."""
        mark, whole = 0, True
        for lease, pattern, group in turn.groups:
            assert pattern.hot is not None
            self._leases.called(pattern.hot, turn.now_s, len(group.operation_ids))
            self._leases.enter(lease, group)
            pattern.group = None
            mark, whole = max(mark, group.mark), whole and group.mark > 0
        for synced, told in ((False, turn.written), (True, turn.synced)):
            if not told:
                continue
            if self._journal is None:
                _tell(turn.answering, told, True)
            elif not whole:
                # It is granted, and counts; but nobody may be told that it is safe.
                _tell(turn.answering, told, False)
            else:
                then = partial(_tell, turn.answering, told)
                self._journal.when(mark, WAIT_S, then, synced=synced)

    def _meet(self, data: bytes, message: quota_pb2.CheckAndConsumeRequest) -> Pattern | None:
        """Return a pattern for a content that has come often, None for another one."""
        often = self._met.get(data, 0) + 1
        if often < MET_MIN:
            if len(self._met) >= MET_MAX:
                self._met.clear()
            self._met[data] = often
            return None
        self._met.pop(data, None)
        if len(self._known) >= PATTERNS_MAX:
            self._known.clear()
            self._forms.clear()
        try:
            pattern = Pattern(convert.consume_request(message))
        except TallygateError:
            # Whoever decides the call says why.
            return None
        self._known[data] = pattern
        return pattern

    def _level(self, *, synced: bool) -> Durability:
        """Return what a reply says that was waited for."""
        if self._journal is None:
            return Durability.UNSPECIFIED
        return Durability.JOURNAL if synced else Durability.BUFFERED


def _may_be_new(named: str) -> bool:
    try:
        ids.operation_id(named)
    except TallygateError:
        return False
    return True


def _warns_from(lease: Lease, place: int) -> int:
    """Return from how many units used a limit warns, one more than it may hold for never."""
    rule = lease.charges[place].rule
    if isinstance(rule, WindowRule) and rule.thresholds:
        return min(units for _, units in rule.thresholds)
    return ids.AMOUNT_MAX + 1


def _tell(answering: Answering, told: Sequence[tuple[int, bytes]], reached: bool) -> None:
    """Answer the calls; none is told that it is safe where it is not."""
    if reached:
        respond = answering.respond
        for number, reply in told:
            respond(number, reply)
        return
    for number, _ in told:
        answering.fail(number, NotDurable())
