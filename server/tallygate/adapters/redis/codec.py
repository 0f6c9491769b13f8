"""What a stream entry holds: usage as protobuf, and what the script says beside it.

Guarantees: `decode_entry` never raises for what an entry holds: what cannot be read becomes a
rejected event that keeps its bytes and its sequence numbers, so that nothing is dropped unseen.
Refuses to know: where entries come from and go to.

An entry's fields: `t` the time in us, `s` the source id, `e` the epoch; then per accepted operation
`uFIRST+COUNT` with a `UsageEventBatch`, or `jFIRST+COUNT` with `REASON|` and a batch that was
refused; `xN` per crossing and `bN` per part of a balance that has gone, whose last part is the
account. `rFIRST+COUNT`, empty, is of numbers whose events come again under other numbers.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.adapters.redis.one_event import one_event
from tallygate.domain.event import (
    NO_CONTEXT,
    BalanceBurn,
    EventContext,
    RejectedEvent,
    SequenceRange,
    StreamEntry,
    ThresholdCrossing,
    UsageEvent,
)
from tallygate.domain.ids import (
    AccountId,
    EventId,
    LimitId,
    MeterName,
    OperationId,
    SourceId,
    TenantId,
    scope_of,
    tenant_of,
)
from tallygate.domain.trace import NOWHERE, stored
from tallygate.gen.v1 import event_pb2

MALFORMED: Final = "MALFORMED_PAYLOAD"
# The last second of the year 9999, after which there is no timestamp.
SECONDS_MAX: Final = 253_402_300_799

# What an entry says of all that it holds.
_OF_ALL: Final = frozenset((b"t", b"s", b"e"))
_NUMBER = re.compile(r"\d{1,16}")
_SIGNED = re.compile(r"-?\d{1,16}")
_BURN = re.compile(rb"b\d{1,6}")
_RECORD = re.compile(rb"([uj])(\d{1,16})\+(\d{1,6})")
# Ids of all kinds are strings: to say so seven times per event costs more than to read them.
_event: Final[Callable[..., UsageEvent]] = UsageEvent
_HANDED_IN = re.compile(rb"r([1-9]\d{0,15})\+([1-9]\d{0,15})")


class ProtobufEventEncoder:
    """Encodes one operation's events as a `UsageEventBatch`."""

    def encode(self, events: Sequence[UsageEvent]) -> bytes:
        """Return the batch's bytes, without what the stream entry says for all.

        The same events give the same bytes, so that a digest of them tells repeats from reuse.
        """
        batch = event_pb2.UsageEventBatch()
        for event in events:
            _fill(batch.events.add(), event)
        return batch.SerializeToString(deterministic=True)

    def one_event(
        self, tenant_id: TenantId, meter: MeterName, amount: int
    ) -> Callable[[EventId, OperationId], bytes]:
        """Return what makes the batch of one event of them and its ids, with nothing else."""
        return one_event(tenant_id, meter, amount)

    def decode(self, payload: bytes, at_us: int) -> list[UsageEvent]:
        """Return the events of one or more batches, accepted at `at_us`. Raises ValueError."""
        try:
            batch = event_pb2.UsageEventBatch.FromString(payload)
        except DecodeError as error:
            raise ValueError("the bytes are no batch of events") from error
        stamp = _Stamp(at_us, SourceId(""), 0, "")
        return [_to_event(message, 0, stamp) for message in batch.events]


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What an entry says of all its records."""

    at_us: int
    source_id: SourceId
    lane: int
    epoch: str


def decode_entry(shard: int, entry_id: str, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """Return the entry of a shard's stream; the shard is also the source's lane."""
    try:
        at_us = int(fields.get(b"t", b"0"))
    except ValueError:
        at_us = 0
    # The id's first half is the time in ms, whatever became of the fields.
    at_us = at_us or int(entry_id.partition("-")[0]) * 1000
    source_id = SourceId(_name(fields.get(b"s", b"")))
    stamp = _Stamp(at_us, source_id, shard, _name(fields.get(b"e", b"")))
    events: list[UsageEvent] = []
    crossings: list[ThresholdCrossing] = []
    burns: list[BalanceBurn] = []
    rejected: list[RejectedEvent] = []
    ranges: list[SequenceRange] = []
    trace = NOWHERE
    for name, value in fields.items():
        if name in _OF_ALL:
            continue
        if record := _RECORD.fullmatch(name):
            kind, first_seq, length = record.groups()
            first, count = int(first_seq), int(length)
            ranges.append(SequenceRange(source_id, shard, first, first + count - 1))
            found, refused = _read_record(kind == b"j", first, count, value, stamp)
            events += found
            rejected += refused
            # What a record's call has crossed comes after it.
            trace = found[0].trace if found else NOWHERE
        elif handed_in := _HANDED_IN.fullmatch(name):
            first, count = int(handed_in[1]), int(handed_in[2])
            ranges.append(SequenceRange(source_id, shard, first, first + count - 1))
        elif name.startswith(b"x"):
            crossing = _read_crossing(value, stamp)
            if crossing is None:
                rejected.append(_malformed(value, 0, stamp, "unreadable crossing"))
            else:
                crossings.append(replace(crossing, trace=trace) if trace else crossing)
        elif _BURN.fullmatch(name):
            burn = _read_burn(int(name[1:]), value, entry_id, stamp)
            if burn is None:
                rejected.append(_malformed(value, 0, stamp, "unreadable use of a balance"))
            else:
                burns.append(burn)
        else:
            rejected.append(_malformed(name + b"=" + value, 0, stamp, "unknown field"))
    return StreamEntry(
        shard=shard,
        entry_id=entry_id,
        received_at_us=at_us,
        events=tuple(events),
        crossings=tuple(crossings),
        rejected=tuple(rejected),
        ranges=tuple(ranges),
        burns=tuple(burns),
    )


def _fill(message: event_pb2.UsageEvent, event: UsageEvent) -> None:
    message.event_id = event.event_id
    message.tenant_id = event.tenant_id
    message.meter = event.meter
    message.amount = event.amount
    message.operation_id = event.operation_id
    message.schema_version = event.schema_version
    message.refund_of = event.refund_of
    message.reservation_id = event.reservation_id
    if event.event_time_us:
        message.event_time.FromMicroseconds(event.event_time_us)
    if event.dimensions:
        message.dimensions.update(event.dimensions)
    if event.metadata_json:
        ParseDict(json.loads(event.metadata_json), message.metadata)
    if event.context != NO_CONTEXT:
        context = message.context
        for name in EventContext.__dataclass_fields__:
            value = getattr(event.context, name)
            if value:
                setattr(context, name, value)


def _read_record(
    refused: bool, first: int, count: int, value: bytes, stamp: _Stamp
) -> tuple[list[UsageEvent], list[RejectedEvent]]:
    reason, payload = "", value
    if refused:
        reason_bytes, _, payload = value.partition(b"|")
        reason = _printable(reason_bytes)
    try:
        batch = event_pb2.UsageEventBatch.FromString(payload)
        if len(batch.events) != count:
            raise DecodeError(f"{len(batch.events)} events where {count} were announced")
        found = batch.trace_context
        trace = stored(found) if found else NOWHERE
        events = [
            _to_event(message, first + index, stamp, trace)
            for index, message in enumerate(batch.events)
        ]
    except (DecodeError, ValueError) as error:
        return [], [_malformed(value, first, stamp, str(error))]
    if not refused:
        return events, []
    return [], list(_rejected(events, batch, reason, stamp))


def _to_event(
    message: event_pb2.UsageEvent, seq: int, stamp: _Stamp, trace: bytes = NOWHERE
) -> UsageEvent:
    context = NO_CONTEXT
    if message.HasField("context"):
        names = EventContext.__dataclass_fields__
        context = EventContext(**{name: getattr(message.context, name) for name in names})
    metadata_json = ""
    if message.HasField("metadata"):
        metadata_json = json.dumps(MessageToDict(message.metadata), separators=(",", ":"))
    shown = message.dimensions
    # By position, and without naming each id's type: this runs once per event of the ledger.
    return _event(
        message.event_id,
        message.tenant_id,
        message.meter,
        message.amount,
        _instant(message.event_time) if message.HasField("event_time") else stamp.at_us,
        message.operation_id,
        context,
        # `dict(shown)` would look for its keys twice.
        {key: shown[key] for key in shown},
        metadata_json,
        stamp.at_us,
        stamp.source_id,
        stamp.lane,
        seq,
        stamp.epoch,
        message.schema_version,
        message.refund_of,
        message.reservation_id,
        trace,
    )


def _instant(time: Timestamp) -> int:
    """Return a timestamp in microseconds. Raises ValueError for one that is none."""
    seconds, nanos = time.seconds, time.nanos
    if 0 <= seconds <= SECONDS_MAX and 0 <= nanos < 1_000_000_000:
        return seconds * 1_000_000 + nanos // 1000
    return time.ToMicroseconds()


def _rejected(
    events: Sequence[UsageEvent], batch: event_pb2.UsageEventBatch, reason: str, stamp: _Stamp
) -> Iterator[RejectedEvent]:
    for event, message in zip(events, batch.events, strict=True):
        yield RejectedEvent(
            tenant_id=event.tenant_id,
            event_id=event.event_id,
            reason=reason,
            detail="refused when it was recorded",
            payload=message.SerializeToString(),
            received_at_us=stamp.at_us,
            source_id=stamp.source_id,
            source_lane=stamp.lane,
            source_seq=event.source_seq,
        )


def _read_crossing(value: bytes, stamp: _Stamp) -> ThresholdCrossing | None:
    parts = value.decode(errors="replace").split(",", 8)
    if len(parts) != 9 or not all(_NUMBER.fullmatch(part) for part in parts[2:8]):
        return None
    ratio_ppm, threshold, used, limit, starts, ends = (int(part) for part in parts[2:8])
    account = AccountId(parts[8])
    return ThresholdCrossing(
        tenant_id=tenant_of(account),
        limit_id=LimitId(parts[0]),
        meter=MeterName(parts[1]),
        ratio_ppm=ratio_ppm,
        threshold=threshold,
        used=used,
        limit=limit,
        window_start_us=starts,
        window_end_us=ends,
        crossed_at_us=stamp.at_us,
        scope=scope_of(account),
    )


def _read_burn(number: int, value: bytes, entry_id: str, stamp: _Stamp) -> BalanceBurn | None:
    parts = value.decode(errors="replace").split(",", 3)
    if len(parts) != 4 or not all(_SIGNED.fullmatch(part) for part in parts[1:3]):
        return None
    return BalanceBurn(
        tenant_id=tenant_of(AccountId(parts[3])),
        limit_id=LimitId(parts[0]),
        grant_seq=int(parts[1]),
        amount=int(parts[2]),
        source_id=stamp.source_id,
        source_lane=stamp.lane,
        entry_id=entry_id,
        number=number,
        burned_at_us=stamp.at_us,
        counter_epoch=stamp.epoch,
    )


def _malformed(payload: bytes, seq: int, stamp: _Stamp, detail: str) -> RejectedEvent:
    return RejectedEvent(
        tenant_id="",
        event_id="",
        reason=MALFORMED,
        detail=_printable(detail.encode())[:256],
        payload=payload,
        received_at_us=stamp.at_us,
        source_id=stamp.source_id,
        source_lane=stamp.lane,
        source_seq=seq,
    )


def _printable(value: bytes) -> str:
    return value.decode(errors="replace").replace("\x00", "�")


# Of sources and epochs: entry after entry has the same few.
_name: Final = lru_cache(maxsize=1_024)(_printable)
