"""The ledger: one transaction stores a batch of events, their rollups, progress and messages.

Guarantees: an event is stored once for its `(tenant_id, event_id)`, and counted in rollups only
then; what is stored again is a duplicate and changes nothing. A burn of credits is posted once for
the place where it lay in the stream. All of a batch is stored or nothing.
Rows are written in the order of their keys, so that two ingesters wait for each other, not forever.
Refuses to know: streams, and what is done with messages.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallygate.adapters.postgres import burns, corrections, messages
from tallygate.adapters.postgres.pool import Contended, Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.rebuild_ledger import seen_of
from tallygate.domain.event import RejectedEvent, SequenceRange, ThresholdCrossing, UsageEvent
from tallygate.domain.ids import SourceId
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tallygate.ports import LedgerBatch, Persisted, SourceProgress
from tallygate.ports.epochs import Seen

ATTEMPTS_MAX: Final = 5
# Often enough that a month's partition is there weeks before its first event.
PARTITIONS_EVERY_S: Final = 6 * 3600.0
BUCKETS: Final = {"minute": MINUTE_US, "hour": HOUR_US, "day": DAY_US}


@dataclass(slots=True)
class _Sum:
    """What events add to one bucket."""

    count: int
    sum: int
    max: int
    min: int


class PostgresLedger:
    """The `Ledger` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._partitions_at = float("-inf")

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store the batch whole, or nothing. See the port."""
        now = asyncio.get_running_loop().time()
        if now >= self._partitions_at:
            self._partitions_at = now + PARTITIONS_EVERY_S
            await self._prepare_months()
        attempt = 1
        while True:
            try:
                async with self._postgres.connection() as connection, connection.transaction():
                    return await _persist(connection, batch)
            except Contended:
                if attempt == ATTEMPTS_MAX:
                    raise
                attempt += 1

    async def ensure_partitions(self) -> int:
        """Create the partitions around today that are missing; return how many."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("ledger_ensure_partitions")))

    async def _prepare_months(self) -> None:
        try:
            await self.ensure_partitions()
        except Contended:
            # Others are at it; until then the default partition takes every event.
            self._partitions_at = float("-inf")

    async def progress(self) -> list[SourceProgress]:
        """Return the progress of every source's lane."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("ledger_progress"))
        parts: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for row in rows:
            lane = (row["source_id"], row["source_lane"])
            parts.setdefault(lane, []).append((row["first_seq"], row["last_seq"]))
        return [_progress(SourceId(source), lane, seen) for (source, lane), seen in parts.items()]


async def _persist(connection: Lent, batch: LedgerBatch) -> Persisted:
    lanes = {event.source_lane for event in batch.events}
    lanes.update(each.source_lane for each in batch.ranges)
    # First: whoever makes counters anew sees all that we store, or we see that he has begun.
    epochs = await corrections.hold(connection, sorted(lanes))
    events = _distinct(batch.events)
    fresh = await _insert_events(connection, events)
    corrected = await corrections.note(connection, batch.events, fresh, epochs)
    await _roll_up(connection, fresh)
    lows = [each for each in batch.crossings if each.of_balance]
    others = [each for each in batch.crossings if not each.of_balance]
    crossings = await _insert_crossings(connection, others)
    crossings += await burns.insert_lows(connection, lows)
    written = await messages.write(connection, fresh, crossings)
    burnt = await burns.insert(connection, batch.burns)
    rejected = await _insert_dead_letters(connection, batch.rejected)
    # Last, as every ingester of a source meets in its row: it is held for the shortest time.
    seen = await _add_progress(connection, batch.ranges)
    return Persisted(
        events=len(fresh),
        duplicates=len(batch.events) - len(fresh),
        rejected=rejected,
        crossings=len(crossings),
        messages=written,
        burns=burnt,
        corrections=corrected,
        seen=seen,
    )


def _distinct(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """Return the first event of each id, sorted by key."""
    first: dict[tuple[str, str], UsageEvent] = {}
    for event in events:
        first.setdefault((event.tenant_id, event.event_id), event)
    return [first[key] for key in sorted(first)]


async def _insert_events(connection: Lent, events: list[UsageEvent]) -> list[UsageEvent]:
    if not events:
        return []
    columns = zip(*map(_row, events), strict=True)
    rows = await connection.fetch(query("ledger_insert_events"), *map(list, columns))
    stored = {(row["tenant_id"], row["event_id"]) for row in rows}
    return [event for event in events if (event.tenant_id, event.event_id) in stored]


def _row(event: UsageEvent) -> tuple[object, ...]:
    context = event.context
    return (
        event.tenant_id,
        event.event_id,
        event.meter,
        event.amount,
        event.event_time_us,
        event.received_at_us,
        event.operation_id,
        event.source_id,
        event.source_lane,
        event.source_seq,
        event.counter_epoch,
        event.schema_version,
        context.subject_id,
        context.resource_id,
        context.session_id,
        context.region,
        context.sku,
        context.correlation_id,
        context.sdk,
        messages.as_json(event.dimensions) if event.dimensions else "{}",
        event.metadata_json or None,
        event.refund_of,
        event.reservation_id,
    )


async def _roll_up(connection: Lent, events: Iterable[UsageEvent]) -> None:
    minutes = _sums((event.tenant_id, event.meter, event.event_time_us, event) for event in events)
    if not minutes:
        return
    for name, length_us in BUCKETS.items():
        buckets = minutes if length_us == MINUTE_US else _coarser(minutes, length_us)
        rows = [
            (tenant, meter, bucket, each.count, Decimal(each.sum), each.max, each.min)
            for (tenant, meter, bucket), each in sorted(buckets.items())
        ]
        columns = zip(*rows, strict=True)
        await connection.execute(query(f"ledger_roll_{name}"), *map(list, columns))


_Buckets = dict[tuple[str, str, int], _Sum]


def _sums(events: Iterable[tuple[str, str, int, UsageEvent]]) -> _Buckets:
    sums: _Buckets = {}
    for tenant, meter, at_us, event in events:
        key = (tenant, meter, at_us - at_us % MINUTE_US)
        amount = event.amount
        # A refund takes from the sum; it is no use of its own, and so no smallest one.
        new = _Sum(0, amount, 0, 0) if event.refund_of else _Sum(1, amount, amount, amount)
        _add(sums, key, new)
    return sums


def _coarser(fine: _Buckets, length_us: int) -> _Buckets:
    sums: _Buckets = {}
    for (tenant, meter, bucket), each in fine.items():
        key = (tenant, meter, bucket - bucket % length_us)
        _add(sums, key, _Sum(each.count, each.sum, each.max, each.min))
    return sums


def _add(sums: _Buckets, key: tuple[str, str, int], more: _Sum) -> None:
    found = sums.get(key)
    if found is None:
        sums[key] = more
        return
    if more.count:
        found.max = max(found.max, more.max) if found.count else more.max
        found.min = min(found.min, more.min) if found.count else more.min
    found.count += more.count
    found.sum += more.sum


async def _insert_crossings(
    connection: Lent, crossings: Sequence[ThresholdCrossing]
) -> list[ThresholdCrossing]:
    if not crossings:
        return []
    first = {
        (each.tenant_id, each.limit_id, each.scope, each.window_start_us, each.ratio_ppm): each
        for each in reversed(crossings)
    }
    rows = [
        (
            each.tenant_id,
            each.limit_id,
            each.window_start_us,
            each.ratio_ppm,
            each.meter,
            each.threshold,
            each.used,
            each.limit,
            each.window_end_us,
            each.crossed_at_us,
            each.scope,
        )
        for _, each in sorted(first.items())
    ]
    columns = zip(*rows, strict=True)
    stored = await connection.fetch(query("ledger_insert_crossings"), *map(list, columns))
    names = ("tenant_id", "limit_id", "scope", "window_start_us", "ratio_ppm")
    return [first[tuple(row[name] for name in names)] for row in stored]


async def _insert_dead_letters(connection: Lent, rejected: Sequence[RejectedEvent]) -> int:
    if not rejected:
        return 0
    rows = [
        (
            each.tenant_id,
            each.event_id,
            each.reason,
            each.detail,
            each.payload,
            each.received_at_us,
            each.source_id,
            each.source_lane,
            each.source_seq,
        )
        for each in rejected
    ]
    columns = zip(*rows, strict=True)
    return int(await connection.fetchval(query("ledger_insert_dead_letters"), *map(list, columns)))


async def _add_progress(connection: Lent, ranges: Sequence[SequenceRange]) -> tuple[Seen, ...]:
    rows = [
        (each.source_id, each.source_lane, each.first_seq, each.last_seq)
        for each in ranges
        # An entry that announces no events has an empty range.
        if each.first_seq <= each.last_seq
    ]
    if not rows:
        return ()
    columns = zip(*rows, strict=True)
    return seen_of(await connection.fetch(query("ledger_add_progress"), *map(list, columns)))


def _progress(source: SourceId, lane: int, seen: list[tuple[int, int]]) -> SourceProgress:
    ends = [(0, 0), *seen]
    gaps = [
        (before[1] + 1, after[0] - 1)
        for before, after in zip(ends, seen, strict=False)
        if after[0] > before[1] + 1
    ]
    return SourceProgress(
        source_id=source,
        source_lane=lane,
        contiguous_seq=seen[0][1] if seen[0][0] == 1 else 0,
        highest_seq=seen[-1][1],
        seen=sum(last - first + 1 for first, last in seen),
        gaps=tuple(gaps),
    )
