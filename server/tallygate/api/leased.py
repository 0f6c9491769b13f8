"""CheckAndConsume from leases: what comes in together is granted and journaled together.

Guarantees: a reply is what deciding its call by itself would have said; it is sent once what was
granted is as safe as it says. What is not granted here is left as it came.
Refuses to know: transports, and how what is left is decided.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.message import DecodeError

from tallygate.api import convert
from tallygate.api.batched import Answering, Call
from tallygate.api.content import without_id
from tallygate.api.leased_replies import Form
from tallygate.domain import ids
from tallygate.domain.errors import NotDurable, TallygateError
from tallygate.domain.ids import OperationId
from tallygate.domain.made import STEM_DIGITS, made_ids, stem_of_digits
from tallygate.domain.request import Durability
from tallygate.flow.granted import Name, Repeatable
from tallygate.flow.heat import granted_at_us
from tallygate.flow.lease import Leases, lefts
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


@dataclass(slots=True)
class _Kind:
    """Calls that came together with one content, and their ids: as long as the others, or none."""

    pattern: Pattern
    calls: list[Call]
    ids: list[OperationId]


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
        self._forms: dict[Pattern, Form] = {}
        # How often contents have come that have no pattern yet.
        self._met: dict[bytes, int] = {}

    def take(self, calls: Sequence[Call], answering: Answering) -> Sequence[Call]:
        """Answer what is granted from leases, now or once it is written; return the others."""
        if not self._patterns.begin():
            return calls
        now_s = self._leases.parts.clock.monotonic()
        turn = _Turn(answering, now_s, [], [], [])
        known, rest = self._known, list[Call]()
        kinds: dict[tuple[Pattern, int], _Kind] = {}
        met: set[Name] = set()
        for call in calls:
            _, content, expires_at = call
            if expires_at <= now_s:
                rest.append(call)
                continue
            pattern, named = known.get(content), ""
            if pattern is None:
                pattern, named = self._looked_at(content)
                if pattern is None or (named and not self._is_new(pattern, named, met)):
                    rest.append(call)
                    continue
            kind = kinds.get((pattern, len(named)))
            if kind is None:
                kind = kinds[pattern, len(named)] = _Kind(pattern, [], [])
            kind.calls.append(call)
            if named:
                kind.ids.append(OperationId(named))
        for kind in kinds.values():
            rest += self._answer(turn, kind)
        self._end(turn)
        return rest

    def _is_new(self, pattern: Pattern, named: str, met: set[Name]) -> bool:
        """Say whether a call may be the first of its name: a repeat is answered otherwise."""
        name = (pattern.request.tenant_id, OperationId(named))
        if name in met or not _may_be_new(named) or self._leases.recent.get(name) is not None:
            return False
        met.add(name)
        return True

    def _looked_at(self, data: bytes) -> tuple[Pattern | None, str]:
        """Return the pattern of a call, and its operation id."""
        found = without_id(data)
        if found is not None:
            pattern = self._known.get(found[0])
            if pattern is not None:
                return pattern, found[1]
        try:
            message = quota_pb2.CheckAndConsumeRequest.FromString(data)
        except DecodeError:
            return None, ""
        named = message.operation_id
        if named:
            message.ClearField("operation_id")
            data = message.SerializeToString(deterministic=True)
        return self._known.get(data) or self._meet(data, message), named

    def _answer(self, turn: _Turn, kind: _Kind) -> Sequence[Call]:
        """Grant calls, those without ids on stems of ours; return those that have no answer."""
        pattern, calls, ids_left = kind.pattern, kind.calls, kind.ids
        synced = pattern.request.min_durability > Durability.BUFFERED
        told = turn.synced if synced else turn.written
        while calls:
            lease = self._patterns.lease(pattern, turn.now_s)
            if lease is None:
                break
            amounts, left = pattern.amounts, lease.left
            few = min([units // amount for units, amount in zip(left, amounts, strict=True)])
            count = min(few, pattern.room, len(calls), BATCH_MAX)
            stem = "" if ids_left else stem_of_digits(secrets.token_hex(STEM_DIGITS // 2))
            of = ids_left[:count] or made_ids(stem, 0, count)
            alike = self._patterns.alike(pattern, len(of[0]))
            if alike is None:
                break
            at_us = granted_at_us(lease, turn.now_s)
            group = Granted(alike, amounts, at_us, of, stem=stem)
            turn.groups.append((lease, pattern, group))
            after = lefts(lease, amounts, count)
            replies = self._form(pattern, lease, synced=synced).many(of, after)
            told += [(call[0], reply) for call, reply in zip(calls, replies, strict=False)]
            if not stem:
                self._remember(lease, group, after)
            lease.left[:] = [each[-1] for each in after]
            pattern.room -= count
            calls, ids_left = calls[count:], ids_left[count:]
        return calls

    def _remember(self, lease: Lease, group: Granted, after: Sequence[range]) -> None:
        """Keep what repeats are answered by: what is left after each of the calls."""
        tenant_id, recent = group.alike.tenant_id, self._leases.recent
        for of, left in zip(group.operation_ids, zip(*after, strict=True), strict=True):
            recent.put((tenant_id, of), Repeatable(group.alike, group, lease, left))

    def _form(self, pattern: Pattern, lease: Lease, *, synced: bool) -> Form:
        """Return what replies to the pattern's calls say alike."""
        form = self._forms.get(pattern)
        if form is None or form.lease is not lease:
            level = self._level(synced=synced)
            form = self._forms[pattern] = Form(len(pattern.request.items), lease, level)
        return form

    def _end(self, turn: _Turn) -> None:
        """Enter what was granted, and answer once that is done."""
        mark, whole = 0, True
        for lease, pattern, group in turn.groups:
            assert pattern.hot is not None
            self._leases.called(pattern.hot, turn.now_s, len(group.operation_ids))
            self._leases.enter(lease, group)
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


def _tell(answering: Answering, told: Sequence[tuple[int, bytes]], reached: bool) -> None:
    """Answer the calls; none is told that it is safe where it is not."""
    if reached:
        respond = answering.respond
        for number, reply in told:
            respond(number, reply)
        return
    for number, _ in told:
        answering.fail(number, NotDurable())
