"""A ledger in memory, and what may be read from it.

Guarantees: passes the same contract tests as the ledger in Postgres; refuses the same values.
Refuses to know: deliveries. Which messages would be written is only counted.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import BalanceBurn, RejectedEvent, ThresholdCrossing, UsageEvent
from tallygate.domain.ids import EventId, LimitId, MeterName, SourceId, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import (
    LedgerBatch,
    Persisted,
    SourceProgress,
    UnstorableBatch,
    UsageQuery,
    UsageRow,
    UsageTotal,
)
from tallygate.ports.epochs import Ranges, Seen
from tallygate.ports.rebuild import Correction

INT64_MAX: Final = 2**63 - 1
LENGTHS_US: Final = {"minute": MINUTE_US, "hour": HOUR_US, "day": DAY_US}
EVENTS_PER_MESSAGE: Final = 500

# Whose it is; then a window and a ratio, or of a balance an instant and a threshold.
_CrossingKey = tuple[TenantId, LimitId, str, bool, int, int]
_LetterKey = tuple[SourceId, int, int, bytes]
_BurnKey = tuple[SourceId, int, str, int]


@dataclass(frozen=True, slots=True)
class EventKey:
    """What makes an event one of a kind."""

    tenant_id: TenantId
    event_id: EventId


class FakeLedger:
    """The `Ledger` and the `UsageReader` port.

    Set `down` to have no call answered. `wanted` are the message types some destination wants.
    `committed` is called after each transaction, for a test to break off there.
    """

    def __init__(self, committed: Callable[[], None] = lambda: None) -> None:
        self.events: dict[EventKey, UsageEvent] = {}
        self.crossings: dict[_CrossingKey, ThresholdCrossing] = {}
        self.dead_letters: dict[_LetterKey, RejectedEvent] = {}
        self.burns: dict[_BurnKey, BalanceBurn] = {}
        self.numbers: dict[tuple[SourceId, int], set[int]] = {}
        # The epoch that each shard's counters were last made anew in, and what they are due.
        self.current: dict[int, str] = {}
        self.corrections: dict[tuple[SourceId, int, int], Correction] = {}
        self.wanted: set[str] = set()
        # By which rule an event that is stored now is late for its period, None where it is not.
        self.late_of: Callable[[UsageEvent], str | None] = lambda _event: None
        self.down = False
        self._committed = committed

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store the batch whole, or raise and store nothing."""
        self.answer()
        _check(batch)
        fresh, corrections = 0, len(self.corrections)
        late: dict[str, int] = {}
        for event in batch.events:
            key = EventKey(TenantId(event.tenant_id), EventId(event.event_id))
            if key not in self.events:
                self.events[key] = event
                fresh += 1
                placed = self.late_of(event)
                if placed is not None:
                    late[placed] = late.get(placed, 0) + 1
                current = self.current.get(event.source_lane, event.counter_epoch)
                if current != event.counter_epoch:
                    self._correct(event, current, takes_back=False)
            elif event.counter_epoch and _numbers(self.events[key]) != _numbers(event):
                self._correct(event, event.counter_epoch, takes_back=True)
        letters = len(self.dead_letters)
        for rejected in batch.rejected:
            digest = hashlib.sha256(rejected.payload).digest()
            place = (rejected.source_id, rejected.source_lane, rejected.source_seq, digest)
            self.dead_letters.setdefault(place, rejected)
        crossings = len(self.crossings)
        for each in batch.crossings:
            self.crossings.setdefault(_crossing_key(each), each)
        burns = len(self.burns)
        for burn in batch.burns:
            lay = (burn.source_id, burn.source_lane, burn.entry_id, burn.number)
            self.burns.setdefault(lay, burn)
        for part in batch.ranges:
            seen = self.numbers.setdefault((part.source_id, part.source_lane), set())
            seen.update(range(part.first_seq, part.last_seq + 1))
        told = list(self.crossings.values())[crossings:]
        stored = Persisted(
            events=fresh,
            duplicates=len(batch.events) - fresh,
            rejected=len(self.dead_letters) - letters,
            crossings=len(told),
            messages=self._messages(fresh, told),
            burns=len(self.burns) - burns,
            corrections=len(self.corrections) - corrections,
            late=late,
            seen=self.seen({(each.source_id, each.source_lane) for each in batch.ranges}),
        )
        self._committed()
        return stored

    async def progress(self) -> list[SourceProgress]:
        """Return the progress of every source's lane, sorted."""
        self.answer()
        return [
            _progress(source, lane, sorted(seen))
            for (source, lane), seen in sorted(self.numbers.items())
            if seen
        ]

    def seen(self, lanes: Iterable[tuple[SourceId, int]]) -> tuple[Seen, ...]:
        """Return which numbers of these lanes are stored, for a test and for other fakes."""
        return tuple(
            Seen(*lane, _ranges(sorted(self.numbers[lane])))
            for lane in sorted(lanes)
            if self.numbers.get(lane)
        )

    def _correct(self, event: UsageEvent, epoch: str, *, takes_back: bool) -> None:
        number = len(self.corrections) + 1
        due = Correction(number, event.source_lane, epoch, takes_back, event)
        self.corrections.setdefault(_numbers(event), due)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return rows by tenant, meter and bucket, after `query.after`."""
        self.answer()
        length_us = LENGTHS_US.get(query.bucket)
        found: dict[tuple[str, str, int], list[UsageEvent]] = {}
        for event in self._of(query):
            at = event.event_time_us
            bucket = at - at % length_us if length_us else 0
            found.setdefault((event.tenant_id, event.meter, bucket), []).append(event)
        after = query.after and (query.after if length_us else (*query.after[:2], 0))
        rows = [
            _row(TenantId(tenant), MeterName(meter), bucket, events)
            for (tenant, meter, bucket), events in sorted(found.items())
            if after is None or (tenant, meter, bucket) > after
        ]
        return rows[: query.limit]

    async def totals(self, query: UsageQuery) -> list[UsageTotal]:
        """Return totals by meter over all rows the query covers, whatever its limit."""
        self.answer()
        found: dict[MeterName, list[UsageEvent]] = {}
        for event in self._of(query):
            found.setdefault(event.meter, []).append(event)
        return [
            UsageTotal(
                meter,
                len({event.tenant_id for event in events}),
                sum(not event.refund_of for event in events),
                sum(event.amount for event in events),
            )
            for meter, events in sorted(found.items())
        ]

    def _of(self, query: UsageQuery) -> Iterator[UsageEvent]:
        for event in self.events.values():
            # A bucket is covered when it begins in the stretch, whatever its length.
            at = event.event_time_us
            begins = at - at % LENGTHS_US.get(query.bucket, MINUTE_US)
            if (
                query.tenant_id in (None, event.tenant_id)
                and query.meter in (None, event.meter)
                and (query.from_us is None or begins >= query.from_us)
                and (query.to_us is None or begins < query.to_us)
            ):
                yield event

    def _messages(self, events: int, crossings: Iterable[ThresholdCrossing]) -> int:
        batches = -(-events // EVENTS_PER_MESSAGE) if "usage.batch" in self.wanted else 0
        types = ("limit.threshold_crossed", "balance.low")
        return batches + sum(types[each.of_balance] in self.wanted for each in crossings)

    def answer(self) -> None:
        """Raise what a ledger raises that is down."""
        if self.down:
            raise BackendUnavailable


def _numbers(event: UsageEvent) -> tuple[SourceId, int, int]:
    return event.source_id, event.source_lane, event.source_seq


def _ranges(numbers: list[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def _row(tenant: TenantId, meter: MeterName, bucket: int, events: Iterable[UsageEvent]) -> UsageRow:
    """Return what events add up to: refunds take from the sum, and are no use of their own."""
    found = list(events)
    amounts = [event.amount for event in found if not event.refund_of]
    return UsageRow(
        tenant,
        meter,
        bucket,
        len(amounts),
        sum(event.amount for event in found),
        max(amounts, default=0),
        min(amounts, default=0),
    )


def _crossing_key(crossing: ThresholdCrossing) -> _CrossingKey:
    if crossing.of_balance:
        place = (crossing.crossed_at_us, crossing.threshold)
    else:
        place = (crossing.window_start_us, crossing.ratio_ppm)
    whose = (crossing.tenant_id, crossing.limit_id, crossing.scope)
    return (*whose, crossing.of_balance, *place)


def _check(batch: LedgerBatch) -> None:
    """Refuse what no table could hold: the values of all parts, before any is stored."""
    for event in batch.events:
        _check_texts(_texts(event))
        if event.amount == 0 or abs(event.amount) > INT64_MAX:
            raise UnstorableBatch("amount")
        if (event.amount < 0) != bool(event.refund_of):
            raise UnstorableBatch("refund")
        if event.metadata_json:
            try:
                _check_texts(_strings(json.loads(event.metadata_json)))
            except ValueError as error:
                raise UnstorableBatch("metadata") from error
    for crossing in batch.crossings:
        _check_texts((crossing.tenant_id, crossing.limit_id, crossing.meter, crossing.scope))
        if max(crossing.used, crossing.limit, crossing.threshold) > INT64_MAX:
            raise UnstorableBatch("crossing")
    for burn in batch.burns:
        _check_texts((burn.tenant_id, burn.limit_id, burn.source_id, burn.counter_epoch))
        if burn.amount == 0 or abs(burn.amount) > INT64_MAX or burn.grant_seq < -1:
            raise UnstorableBatch("burn")
    for rejected in batch.rejected:
        _check_texts((rejected.tenant_id, rejected.event_id, rejected.reason, rejected.detail))


def _texts(event: UsageEvent) -> Iterator[str]:
    yield from (event.event_id, event.tenant_id, event.meter, event.operation_id)
    yield from (event.source_id, event.counter_epoch, event.metadata_json)
    yield from (event.refund_of, event.reservation_id)
    yield from (getattr(event.context, name) for name in event.context.__dataclass_fields__)
    yield from (part for item in event.dimensions.items() for part in item)


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _strings(each)
        case dict():
            for key, each in value.items():
                yield from (key, *_strings(each))


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise UnstorableBatch("text")


def _progress(source: SourceId, lane: int, seen: list[int]) -> SourceProgress:
    ends = [0, *seen]
    gaps = tuple(
        (before + 1, after - 1)
        for before, after in zip(ends, seen, strict=False)
        if after > before + 1
    )
    return SourceProgress(
        source_id=source,
        source_lane=lane,
        contiguous_seq=gaps[0][0] - 1 if gaps else seen[-1],
        highest_seq=seen[-1],
        seen=len(seen),
        gaps=gaps,
    )
