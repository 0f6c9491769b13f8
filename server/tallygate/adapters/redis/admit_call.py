"""One call of `admit.lua`: its keys and arguments, and the meaning of its reply.

Guarantees: what is built here and what is read here is exactly what the script's header says.
Refuses to know: connections, retries, and other shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from tallygate.adapters.redis import keys
from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    Broken,
    Charge,
    Decided,
    LimitReading,
    LimitState,
    Operation,
    Outcome,
    Overflowed,
    Reused,
    Stale,
    WindowRule,
)
from tallygate.domain.ids import LimitId, MeterName, SourceId

Argument = str | bytes | int

_ON_EXCEED: Final = {OnExceed.REFUSE: "r", OnExceed.ALLOW: "a", OnExceed.SHADOW: "s"}
_STATES: Final = {state.value: state for state in LimitState}


class EpochDiffers(Exception):
    """The shard's counters belong to another epoch, or to none."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What every operation of a call shares. `now_us` 0 lets the server's clock decide."""

    shard: int
    epoch: str
    source_id: SourceId
    memory_ms: int
    now_us: int = 0


def arguments(frame: Frame, operations: Sequence[Operation]) -> tuple[list[str], list[Argument]]:
    """Return KEYS and ARGV for operations of the frame's shard."""
    indices: dict[str, int] = {}
    for key in (keys.meta(frame.shard), keys.stream(frame.shard)):
        indices[key] = len(indices) + 1
    args: list[Argument] = [
        frame.now_us,
        frame.epoch,
        frame.source_id,
        frame.memory_ms,
        len(keys.account_prefix(frame.shard)),
        len(operations),
    ]
    for operation in operations:
        args += _operation(operation, frame.shard, indices)
    return list(indices), args


def outcomes(reply: Sequence[bytes], operations: Sequence[Operation]) -> list[Outcome]:
    """Return one outcome per operation. Raises `EpochDiffers` when the script ran for none."""
    if len(reply) == 2 and reply[1].startswith(b"E"):
        raise EpochDiffers
    return [
        _outcome(answer.decode(), operation)
        for answer, operation in zip(reply[1:], operations, strict=True)
    ]


def _operation(operation: Operation, shard: int, indices: dict[str, int]) -> Iterator[Argument]:
    key_index = 0
    if operation.operation_id is not None:
        key = keys.operation(shard, operation.tenant_id, operation.operation_id)
        key_index = indices.setdefault(key, len(indices) + 1)
    head: tuple[Argument, ...] = (
        operation.mode.value,
        key_index,
        operation.fingerprint,
        operation.event_time_us,
        operation.event_count,
        operation.payload,
        operation.reject_reason,
        len(operation.charges),
    )
    return chain(head, *(_charge(charge, shard, indices) for charge in operation.charges))


def _charge(charge: Charge, shard: int, indices: dict[str, int]) -> tuple[Argument, ...]:
    key = keys.account(shard, charge.account)
    head = (
        indices.setdefault(key, len(indices) + 1),
        charge.field,
        charge.limit_id,
        charge.meter,
        charge.amount,
        charge.limit,
        _ON_EXCEED[charge.on_exceed],
    )
    rule = charge.rule
    if isinstance(rule, WindowRule):
        bounds = (rule.starts_us, rule.turns_us, rule.ends_us, len(rule.thresholds))
        return (*head, "w", *bounds, *chain.from_iterable(rule.thresholds))
    return (*head, "g", rule.weight, rule.drain, rule.period_us)


def _outcome(answer: str, operation: Operation) -> Outcome:
    verdict, *parts = answer.split(";")
    match verdict:
        case "G" | "P":
            granted = Decided(
                allowed=True,
                at_us=int(parts[0]),
                readings=tuple(_reading(part) for part in parts[2:]),
                first_seq=int(parts[1]),
            )
            return replace(granted, replayed=True) if verdict == "P" else granted
        case "R":
            wait = int(parts[2])
            return Decided(
                allowed=False,
                at_us=int(parts[0]),
                readings=tuple(_reading(part) for part in parts[3:]),
                refused_by=operation.charges[int(parts[1])].limit_id,
                retry_after_us=wait if wait >= 0 else None,
            )
        case "U":
            return Reused()
        case "S":
            return Stale(int(parts[0]))
        case "O":
            return Overflowed(operation.charges[int(parts[0])].limit_id)
        case _:
            return Broken("a stored counter or operation record cannot be read")


def _reading(text: str) -> LimitReading:
    limit_id, meter, state, used, limit, remaining, resets_at = text.split(",")
    return LimitReading(
        limit_id=LimitId(limit_id),
        meter=MeterName(meter),
        state=_STATES[state],
        used=int(used),
        limit=int(limit),
        remaining=int(remaining),
        resets_at_us=int(resets_at),
    )
