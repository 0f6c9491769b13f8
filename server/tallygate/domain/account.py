"""The specification of `admit.lua`: what a shard's accounts do with operations, in pure Python.

Guarantees: for the same operations at the same times, the script in Redis and this module give the
same outcomes, the same counters and the same stream. A property test holds the two together.
Refuses to know: Redis, encodings, and real time.

An operation passes whole or not at all. It is evaluated against every counter before the first
change; a refusal changes nothing and is not remembered, so that a retry after the window can pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
    Outcome,
    Overflowed,
    Reused,
    Stale,
)
from tallygate.domain.ids import LimitId, MeterName, OperationId, SourceId, TenantId
from tallygate.domain.limit import EMPTY, Counter, Moment, Verdict, evaluate, in_reach


@dataclass(frozen=True, slots=True)
class Remembered:
    """The first answer to an operation, and what it was given for."""

    fingerprint: str
    at_us: int
    answer: Decided


@dataclass(frozen=True, slots=True)
class Crossed:
    """A crossing as the stream has it."""

    account: TenantId
    limit_id: LimitId
    meter: MeterName
    ratio_ppm: int
    threshold: int
    used: int
    limit: int
    starts_us: int
    ends_us: int


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted operation in a stream entry. `reject_reason` is empty for usage."""

    first_seq: int
    event_count: int
    payload: bytes
    reject_reason: str = ""
    crossings: tuple[Crossed, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: what one call of the script has accepted."""

    at_us: int
    source_id: SourceId
    records: tuple[Record, ...]


@dataclass(slots=True)
class Accounts:
    """The state of one shard."""

    memory_us: int
    counters: dict[tuple[TenantId, str], Counter] = field(default_factory=dict)
    operations: dict[tuple[TenantId, OperationId], Remembered] = field(default_factory=dict)
    sequences: dict[SourceId, int] = field(default_factory=dict)
    stream: list[Entry] = field(default_factory=list)

    def decide(
        self, operations: Sequence[Operation], source_id: SourceId, now_us: int
    ) -> list[Outcome]:
        """Decide the operations in order, each by itself, and append one entry for all accepted."""
        records: list[Record] = []
        outcomes = [
            self._decide_one(operation, source_id, now_us, records) for operation in operations
        ]
        if records:
            self.stream.append(Entry(now_us, source_id, tuple(records)))
        return outcomes

    def _decide_one(
        self, operation: Operation, source_id: SourceId, now_us: int, records: list[Record]
    ) -> Outcome:
        known = self._remembered(operation, now_us)
        if known is not None:
            if known.fingerprint != operation.fingerprint:
                return Reused()
            return replace(known.answer, replayed=True)
        if not all(in_reach(charge.rule, now_us) for charge in operation.charges):
            return Stale(now_us)
        used_at_us = min(operation.event_time_us or now_us, now_us)
        moment = Moment(now_us, operation.mode, used_at_us)
        verdicts = [
            evaluate(charge, self.counters.get((charge.account, charge.field), EMPTY), moment)
            for charge in operation.charges
        ]
        if any(verdict.refuses for verdict in verdicts):
            return _refusal(operation.charges, verdicts, now_us)
        for charge, verdict in zip(operation.charges, verdicts, strict=True):
            if verdict.overflow:
                return Overflowed(charge.limit_id)
        if operation.mode is Mode.CHECK:
            return Decided(True, now_us, tuple(verdict.before for verdict in verdicts))
        return self._accept(operation, verdicts, source_id, now_us, records)

    def _accept(
        self,
        operation: Operation,
        verdicts: list[Verdict],
        source_id: SourceId,
        now_us: int,
        records: list[Record],
    ) -> Decided:
        crossed: list[Crossed] = []
        for charge, verdict in zip(operation.charges, verdicts, strict=True):
            self.counters[charge.account, charge.field] = verdict.counter
            crossed += _crossed(charge, verdict)
        first_seq = self.sequences.get(source_id, 0) + 1
        self.sequences[source_id] = first_seq + operation.event_count - 1
        records.append(
            Record(
                first_seq,
                operation.event_count,
                operation.payload,
                operation.reject_reason,
                tuple(crossed),
            )
        )
        answer = Decided(
            True, now_us, tuple(verdict.after for verdict in verdicts), first_seq=first_seq
        )
        if operation.operation_id is not None:
            key = (operation.tenant_id, operation.operation_id)
            self.operations[key] = Remembered(operation.fingerprint, now_us, answer)
        return answer

    def _remembered(self, operation: Operation, now_us: int) -> Remembered | None:
        if operation.operation_id is None:
            return None
        known = self.operations.get((operation.tenant_id, operation.operation_id))
        if known is None or now_us - known.at_us >= self.memory_us:
            return None
        return known


def _refusal(charges: Sequence[Charge], verdicts: Sequence[Verdict], now_us: int) -> Decided:
    refusing = [
        (charge.limit_id, verdict.retry_after_us)
        for charge, verdict in zip(charges, verdicts, strict=True)
        if verdict.refuses
    ]
    waits = [wait for _, wait in refusing if wait is not None]
    return Decided(
        allowed=False,
        at_us=now_us,
        readings=tuple(verdict.before for verdict in verdicts),
        refused_by=refusing[0][0],
        # The call passes when every refusing limit lets it, and never when one never does.
        retry_after_us=max(waits) if len(waits) == len(refusing) else None,
    )


def _crossed(charge: Charge, verdict: Verdict) -> list[Crossed]:
    return [
        Crossed(
            account=charge.account,
            limit_id=charge.limit_id,
            meter=charge.meter,
            ratio_ppm=crossing.ratio_ppm,
            threshold=crossing.threshold,
            used=crossing.used,
            limit=charge.limit,
            starts_us=crossing.starts_us,
            ends_us=crossing.ends_us,
        )
        for crossing in verdict.crossings
    ]
