"""One call of `admit.lua`: its keys and arguments, and the meaning of its reply.

Guarantees: what is built here and what is read here is exactly what the script's header says.
Refuses to know: connections, retries, and other shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, assert_never

from tallygate.adapters.redis import keys
from tallygate.domain.answer import accounts_of
from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    BalanceRule,
    Broken,
    Changed,
    Charge,
    ConcurrencyRule,
    Crowded,
    Decided,
    Fenced,
    Known,
    LimitReading,
    LimitState,
    Moved,
    Operation,
    Outcome,
    Overflowed,
    RateRule,
    RefundExceeds,
    ReservationState,
    Reused,
    SlidingRule,
    Stale,
    TooLate,
    Unresolved,
    WindowRule,
)
from tallygate.domain.detail import (
    Credit,
    Detail,
    Extension,
    Given,
    Hold,
    Late,
    Rebuilt,
    Refund,
    Settlement,
)
from tallygate.domain.hold import pieces_text
from tallygate.domain.ids import (
    AccountId,
    EventId,
    LimitId,
    MeterName,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)

Argument = str | bytes | int

_ON_EXCEED: Final = {OnExceed.REFUSE: "r", OnExceed.ALLOW: "a", OnExceed.SHADOW: "s"}
_PLAIN: Final[dict[str, Outcome]] = {
    "U": Reused(),
    "M": Changed(),
    "H": Crowded(),
    "V": Moved(),
    "F": Fenced(),
}
_STATES: Final = {state.value: state for state in LimitState}


class EpochDiffers(Exception):
    """The shard's counters belong to another epoch, or to none."""


class NumbersLost(Exception):
    """The shard has given out fewer numbers than are known: its data is older than it was."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What every operation of a call shares. `now_us` 0 lets the server's clock decide.

    `source_id` names the epoch too. `known` is a number that the shard has given out under it, 0
    for none.
    """

    shard: int
    epoch: str
    source_id: SourceId
    memory_ms: int
    now_us: int = 0
    known: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a call came to: one outcome per operation, and the last number given out."""

    outcomes: list[Outcome]
    last_seq: int


def arguments(frame: Frame, operations: Sequence[Operation]) -> tuple[list[str], list[Argument]]:
    """Return KEYS and ARGV for operations of the frame's shard."""
    found = _Keys(frame.shard, frame.epoch)
    args: list[Argument] = [
        frame.now_us,
        frame.epoch,
        frame.source_id,
        frame.known,
        frame.memory_ms,
        len(keys.account_prefix(frame.shard, frame.epoch)),
        len(operations),
    ]
    for operation in operations:
        args += _operation(operation, found)
    return found.names(), args


def answers(
    reply: Sequence[bytes], operations: Sequence[Operation], source_id: SourceId
) -> Answers:
    """Return one outcome per operation of a call made under `source_id`.

    Raises `EpochDiffers` and `NumbersLost` when the script ran for none.
    """
    if len(reply) == 2:
        if reply[1].startswith(b"E"):
            raise EpochDiffers
        if reply[1].startswith(b"L"):
            raise NumbersLost
    outcomes = [
        _outcome(answer.decode(), operation, source_id)
        for answer, operation in zip(reply[1:], operations, strict=True)
    ]
    return Answers(outcomes, int(reply[0]))


class _Keys:
    """The call's KEYS, each once, and where they stand."""

    def __init__(self, shard: int, epoch: str) -> None:
        self._shard = shard
        self._epoch = epoch
        self._indices: dict[str, int] = {}
        self._of(keys.meta(shard))
        self._of(keys.stream(shard))
        self._of(keys.moves(shard))

    def _of(self, key: str) -> int:
        """Return the index of a key, from 1."""
        return self._indices.setdefault(key, len(self._indices) + 1)

    def account(self, account: AccountId) -> int:
        """Return the index of an account's counters; its holds follow."""
        index = self._of(keys.account(self._shard, self._epoch, account))
        if index == len(self._indices):
            self._of(keys.holds(self._shard, self._epoch, account))
        return index

    def operation(self, tenant: TenantId, of: OperationId) -> int:
        """Return the index of an operation's record."""
        return self._of(keys.operation(self._shard, self._epoch, tenant, of))

    def reservation(self, tenant: TenantId, of: ReservationId) -> int:
        """Return the index of a reservation's record."""
        return self._of(keys.reservation(self._shard, self._epoch, tenant, of))

    def refunded(self, tenant: TenantId, event: EventId) -> int:
        """Return the index of an event's refunded units."""
        return self._of(keys.refunded(self._shard, self._epoch, tenant, event))

    def names(self) -> list[str]:
        """Return all keys."""
        return list(self._indices)


def _operation(operation: Operation, found: _Keys) -> Iterator[Argument]:
    key_index = 0
    if operation.operation_id is not None:
        key_index = found.operation(operation.tenant_id, operation.operation_id)
    head: tuple[Argument, ...] = (
        operation.mode.value,
        key_index,
        operation.fingerprint,
        operation.event_time_us,
        operation.deadline_us,
        operation.event_count,
        operation.payload,
        operation.reject_reason,
        len(operation.charges),
    )
    charges = (_charge(charge, found) for charge in operation.charges)
    if operation.detail is None:
        return chain(head, *charges)
    return chain(head, *charges, _detail(operation, operation.detail, found))


def _charge(charge: Charge, found: _Keys) -> tuple[Argument, ...]:
    head = (
        found.account(charge.account),
        charge.field,
        charge.limit_id,
        charge.meter,
        charge.amount,
        charge.limit,
        _ON_EXCEED[charge.on_exceed],
    )
    match charge.rule:
        case WindowRule() as rule:
            bounds = (rule.starts_us, rule.turns_us, rule.ends_us, len(rule.thresholds))
            return (*head, "w", *bounds, *chain.from_iterable(rule.thresholds))
        case RateRule() as rule:
            return (*head, "g", rule.weight, rule.drain, rule.period_us)
        case SlidingRule() as rule:
            return (*head, "s", rule.width_us, rule.buckets)
        case ConcurrencyRule():
            return (*head, "h")
        case BalanceRule() as rule:
            return (*head, "b", rule.overdraft, len(rule.low_at), *rule.low_at)
        case _:
            assert_never(charge.rule)


def _detail(operation: Operation, detail: Detail, found: _Keys) -> Iterator[Argument]:
    tenant = operation.tenant_id
    match detail:
        case Hold(reservation_id, ttl_us):
            yield from (found.reservation(tenant, reservation_id), reservation_id)
            yield ttl_us
        case Settlement():
            of = detail.reservation_id
            yield from (found.reservation(tenant, of), of)
            yield from (detail.excess_payload, detail.excess_count, int(detail.record_excess))
            yield len(detail.portions)
            for portion in detail.portions:
                yield found.account(portion.share.account)
                yield pieces_text(portion.share.pieces)
                pairs = zip(portion.settled, portion.given_back, strict=True)
                yield from chain.from_iterable(pairs)
            yield from _given(operation, detail.given, found)
        case Late(given):
            yield from _given(operation, given, found)
        case Extension(reservation_id, ttl_us, shares):
            yield from (found.reservation(tenant, reservation_id), reservation_id)
            yield from (ttl_us, len(shares))
            for share in shares:
                yield from (found.account(share.account), pieces_text(share.pieces))
        case Refund(event_id, units, units_max, counted):
            yield from (found.refunded(tenant, event_id), units, units_max)
            yield int(counted)
        case Credit(grants, owed):
            yield from (owed, len(grants))
            for grant in grants:
                yield from (grant.seq, grant.priority, grant.starts_us, grant.expires_us)
                yield from (grant.granted, grant.remaining)
        case Rebuilt(of_charges):
            for slots in of_charges:
                yield len(slots)
                yield from chain.from_iterable(slots)
        case _:
            assert_never(detail)


def _given(operation: Operation, given: Sequence[Given], found: _Keys) -> list[Argument]:
    args: list[Argument] = [len(given)]
    for run in given:
        args += (len(run.operation_ids), run.event_count, run.size_bytes)
        indices = [
            0 if of is None else found.operation(operation.tenant_id, of)
            for of in run.operation_ids
        ]
        args += chain.from_iterable(zip(indices, run.fingerprints, strict=True))
    return args


def _outcome(answer: str, operation: Operation, source_id: SourceId) -> Outcome:
    verdict, *parts = answer.split(";")
    if verdict in ("P", "p"):
        # The first answer may have been given to another sidecar, under its numbers.
        source_id = SourceId(parts.pop(0)) or source_id
    match verdict:
        case "G" | "P":
            return Decided(
                allowed=True,
                at_us=int(parts[0]),
                readings=_readings(parts[2:], operation),
                first_seq=int(parts[1]),
                replayed=verdict == "P",
                source_id=source_id,
            )
        case "Q" | "p":
            return Decided(
                allowed=True,
                at_us=int(parts[0]),
                readings=_readings(parts[3:], operation),
                refused_by=LimitId(parts[3 + int(parts[2])].partition(",")[0]),
                first_seq=int(parts[1]),
                replayed=verdict == "p",
                source_id=source_id,
            )
        case "R":
            wait = int(parts[2])
            return Decided(
                allowed=False,
                at_us=int(parts[0]),
                readings=_readings(parts[3:], operation),
                refused_by=operation.charges[int(parts[1])].limit_id,
                retry_after_us=wait if wait >= 0 else None,
                source_id=source_id,
            )
        case _:
            return _undecided(verdict, parts, operation)


def _undecided(verdict: str, parts: Sequence[str], operation: Operation) -> Outcome:
    """Return why nothing was done."""
    match verdict:
        case "S":
            return Stale(int(parts[0]))
        case "O":
            return Overflowed(operation.charges[int(parts[0])].limit_id)
        case "T":
            return Unresolved(ReservationState(parts[0]))
        case "X":
            return RefundExceeds(int(parts[0]))
        case "K":
            told = (part.split(",") for part in parts)
            return Known(tuple((int(place), how) for place, how in told))
        case "D":
            return TooLate(int(parts[0]))
        case _:
            broken = Broken("a stored counter or operation record cannot be read")
            return _PLAIN.get(verdict, broken)


def _readings(texts: Sequence[str], operation: Operation) -> tuple[LimitReading, ...]:
    ids = [text.partition(",")[0] for text in texts]
    accounts = accounts_of(ids, operation)
    return tuple(_reading(text, account) for text, account in zip(texts, accounts, strict=True))


def _reading(text: str, account: AccountId) -> LimitReading:
    limit_id, meter, state, used, limit, remaining, resets_at = text.split(",")
    return LimitReading(
        account=account,
        limit_id=LimitId(limit_id),
        meter=MeterName(meter),
        state=_STATES[state],
        used=int(used),
        limit=int(limit),
        remaining=int(remaining),
        resets_at_us=int(resets_at),
    )
