"""One call of `admit.lua`: its keys and arguments, and the meaning of its reply.

Guarantees: what is built here and what is read here is exactly what the script's header says.
Refuses to know: connections, retries, and other shards.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, assert_never

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.outcomes import outcome
from tallygate.adapters.redis.templates import Templates
from tallygate.domain.decision import Mode, Operation, Outcome
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
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.domain.made import stem_of
from tallygate.domain.request import LIMITS_MAX
from tallygate.domain.varint import sized

Argument = str | bytes | int

# Time in us, a number known, memory in ms; length of the account prefix, operations, templates.
_FRAME: Final = struct.Struct("<dddHHH")
_SIZE: Final = struct.Struct("<H")
# Mode, indices of the operation's key and its stem's, event time and deadline in us, events, index
# of the template.
_HEAD: Final = "<cHHddHH"
# `UsageEventBatch.trace_context`: behind the events, so that their bytes and what is told by them
# stay the same. With its 25 bytes an entry has 27 more for a call that is recorded.
TRACE_TAG: Final = b"\x12"
# An operation's own mode is read in every call, and an enumeration's members are slow to find.
_REJECT: Final = Mode.REJECT
# Of calls alike: index of their stem's key, how many, events of each, bytes of each.
_RUN: Final = struct.Struct("<HHHd")


def _head(charges: int) -> struct.Struct:
    return struct.Struct(_HEAD + "Hd" * charges)


_HEADS: Final = tuple(_head(charges) for charges in range(LIMITS_MAX + 1))


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


def arguments(
    frame: Frame, operations: Sequence[Operation], templates: Templates
) -> tuple[list[str], list[Argument]]:
    """Return KEYS and ARGV for operations of the frame's shard."""
    found = _Keys(frame.shard, frame.epoch)
    numbers: dict[bytes, int] = {}
    asked: list[Argument] = []
    for operation in operations:
        text = templates.of(operation.charges)
        number = numbers.setdefault(text, len(numbers) + 1) if text else 0
        asked += _operation(operation, number, found)
    head = _FRAME.pack(
        frame.now_us,
        frame.known,
        frame.memory_ms,
        len(keys.account_prefix(frame.shard, frame.epoch)),
        len(operations),
        len(numbers),
    )
    head += b"".join(map(_sized, (frame.epoch, frame.source_id)))
    return found.names(), [head, *numbers, *asked]


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
        outcome(answer, operation, source_id)
        for answer, operation in zip(reply[1:], operations, strict=True)
    ]
    return Answers(outcomes, int(reply[0]))


class _Keys:
    """The call's KEYS, each once, and where they stand."""

    def __init__(self, shard: int, epoch: str) -> None:
        self._shard = shard
        self._epoch = epoch
        self._names = [keys.meta(shard), keys.stream(shard), keys.moves(shard)]
        self._indices: dict[str, int] = {}
        self._accounts: dict[AccountId, int] = {}
        # Spelt once: each of the operations of a call has a key that begins so.
        self._of_accounts = keys.account_prefix(shard, epoch)
        self._of_holds = keys.holds_prefix(shard, epoch)
        self._of_operations = keys.operation_prefix(shard, epoch)

    def _of(self, key: str) -> int:
        """Return the index of a key, from 1."""
        index = self._indices.get(key)
        if index is None:
            self._names.append(key)
            index = self._indices[key] = len(self._names)
        return index

    def account(self, account: AccountId) -> int:
        """Return the index of an account's counters; its holds follow."""
        index = self._accounts.get(account)
        if index is None:
            self._names.append(self._of_accounts + account)
            index = self._accounts[account] = len(self._names)
            self._names.append(self._of_holds + account)
        return index

    def operation(self, tenant: TenantId, of: OperationId) -> int:
        """Return the index of an operation's record."""
        return self._of(f"{self._of_operations}{tenant} {of}")

    def stem(self, tenant: TenantId, of: str) -> int:
        """Return the index of a stem's record."""
        return self._of(keys.stem(self._shard, self._epoch, tenant, of))

    def reservation(self, tenant: TenantId, of: ReservationId) -> int:
        """Return the index of a reservation's record."""
        return self._of(keys.reservation(self._shard, self._epoch, tenant, of))

    def refunded(self, tenant: TenantId, event: EventId) -> int:
        """Return the index of an event's refunded units."""
        return self._of(keys.refunded(self._shard, self._epoch, tenant, event))

    def names(self) -> list[str]:
        """Return all keys."""
        return self._names


def _sized(name: str) -> bytes:
    text = name.encode()
    return _SIZE.pack(len(text)) + text


def _operation(operation: Operation, number: int, found: _Keys) -> list[Argument]:
    key_index, stem_index, of = 0, 0, operation.operation_id
    if of is not None:
        key_index = found.operation(operation.tenant_id, of)
        stem = stem_of(of)
        if stem:
            stem_index = found.stem(operation.tenant_id, stem)
    charges = operation.charges
    spots: list[int] = []
    for charge in charges:
        spots += (found.account(charge.account), charge.amount)
    count = len(charges)
    head = (_HEADS[count] if count < len(_HEADS) else _head(count)).pack(
        operation.mode.encode(),
        key_index,
        stem_index,
        operation.event_time_us,
        operation.deadline_us,
        operation.event_count,
        number,
        *spots,
    )
    payload = operation.payload
    if operation.trace and operation.event_count:
        payload += sized(TRACE_TAG, operation.trace)
    args: list[Argument] = [head, operation.fingerprint, payload]
    if operation.mode is _REJECT:
        args.append(operation.reject_reason)
    if operation.detail is not None:
        args += _detail(operation, operation.detail, found)
    return args


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


def _given(operation: Operation, given: Sequence[Given], found: _Keys) -> Iterator[Argument]:
    yield len(given)
    for run in given:
        stem = found.stem(operation.tenant_id, run.stem) if run.stem else 0
        parts = [_RUN.pack(stem, len(run.operation_ids), run.event_count, run.size_bytes)]
        if stem:
            yield parts[0] + _sized(run.fingerprints[0])
            continue
        for of, fingerprint in zip(run.operation_ids, run.fingerprints, strict=True):
            index = 0 if of is None else found.operation(operation.tenant_id, of)
            parts += (_SIZE.pack(index), _sized(fingerprint))
        yield b"".join(parts)
