"""The ledger: one transaction stores a batch of events, their rollups, progress and messages.

Guarantees: an event is stored once for its `(tenant_id, event_id)`, and counted in rollups only
then; what is stored again is a duplicate and changes nothing. A burn of credits is posted once for
the place where it lay in the stream. All of a batch is stored or nothing.
Rows are written in the order of their keys, so that two ingesters wait for each other, not forever.
Refuses to know: streams, and what is done with messages.
"""

import asyncio
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

from tallygate.adapters.postgres import (
    burns,
    corrections,
    event_rows,
    late_events,
    messages,
    rollups,
    traces,
)
from tallygate.adapters.postgres.columns import joined
from tallygate.adapters.postgres.group_rollups import KnownShapes
from tallygate.adapters.postgres.pool import Contended, Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.rebuild_ledger import seen_of
from tallygate.domain.event import RejectedEvent, SequenceRange, ThresholdCrossing, UsageEvent
from tallygate.domain.ids import SourceId
from tallygate.ports import LedgerBatch, Persisted, SourceProgress
from tallygate.ports.epochs import Seen

ATTEMPTS_MAX: Final = 5
# Often enough that a month's partition is there weeks before its first event.
PARTITIONS_EVERY_S: Final = 6 * 3600.0


class PostgresLedger:
    """The `Ledger` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._partitions_at = float("-inf")
        # As the last transaction found them; each asks whether there was a change.
        self._shapes = KnownShapes()

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
                    stored, self._shapes = await _persist(connection, batch, self._shapes)
                    return stored
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


async def _persist(
    connection: Lent, batch: LedgerBatch, shapes: KnownShapes
) -> tuple[Persisted, KnownShapes]:
    lanes = {event.source_lane for event in batch.events}
    lanes.update(each.source_lane for each in batch.ranges)
    # First: whoever makes counters anew, or seals periods, sees all that we store, or we see that
    # he has begun.
    sealed_until_us, epochs = await _hold(connection, sorted(lanes))
    events = _distinct(batch.events)
    fresh = await _insert_events(connection, events)
    corrected = await corrections.note(connection, batch.events, fresh, epochs)
    late = await late_events.note(connection, fresh, sealed_until_us)
    lows = [each for each in batch.crossings if each.of_balance]
    others = [each for each in batch.crossings if not each.of_balance]
    crossings = await _insert_crossings(connection, others)
    crossings += await burns.insert_lows(connection, lows)
    written = await messages.write(connection, fresh, crossings)
    await traces.note(connection, fresh)
    burnt = await burns.insert(connection, batch.burns)
    rejected = await _insert_dead_letters(connection, batch.rejected)
    # Last, as ingesters meet in these rows, of a busy tenant and of a source: what is written here
    # is held until the commit, and all that comes before runs beside other ingesters.
    shapes = await rollups.add(connection, fresh, shapes)
    seen = await _add_progress(connection, batch.ranges)
    stored = Persisted(
        events=len(fresh),
        duplicates=len(batch.events) - len(fresh),
        rejected=rejected,
        crossings=len(crossings),
        messages=written,
        burns=burnt,
        corrections=corrected,
        late=late,
        seen=seen,
    )
    return stored, shapes


async def _hold(connection: Lent, lanes: Sequence[int]) -> tuple[int | None, Mapping[int, str]]:
    """Keep the ledger as it is but for us; return until when periods are sealed, lanes' epochs."""
    if not lanes:
        return None, {}
    rows = await connection.fetch(query("ledger_hold"), lanes)
    epochs = {row["shard"]: row["epoch"] for row in rows if row["shard"] is not None}
    return rows[0]["sealed_until_us"], epochs


def _distinct(events: Sequence[UsageEvent]) -> list[UsageEvent]:
    """Return the first event of each id, sorted by key."""
    first: dict[tuple[str, str], UsageEvent] = {}
    for event in events:
        first.setdefault((event.tenant_id, event.event_id), event)
    return [first[key] for key in sorted(first)]


async def _insert_events(connection: Lent, events: list[UsageEvent]) -> list[UsageEvent]:
    """Store events, sorted by key, whose key is new; return those."""
    if not events:
        return []
    texts, mark = joined(
        [
            [event.tenant_id for event in events],
            [event.event_id for event in events],
            [str(event.event_time_us) for event in events],
        ]
    )
    rows = await connection.fetch(query("ledger_insert_keys"), *texts, mark, len(events))
    fresh = events
    if rows[0]["entered"] < len(events):
        new = {(row["tenant_id"], row["event_id"]) for row in rows[1:]}
        fresh = [event for event in events if (event.tenant_id, event.event_id) in new]
    if fresh:
        await connection.copy_to_table(
            "usage_event",
            schema_name="tallygate",
            columns=event_rows.COLUMNS,
            source=BytesIO(event_rows.encoded(fresh)),
            format="binary",
        )
    return fresh


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
    rows = _merged(ranges)
    if not rows:
        return ()
    columns = zip(*rows, strict=True)
    return seen_of(await connection.fetch(query("ledger_add_progress"), *map(list, columns)))


def _merged(ranges: Sequence[SequenceRange]) -> list[tuple[str, int, int, int]]:
    """Return source, lane, first and last of ranges, those that adjoin as one, sorted."""
    found = sorted(
        (each.source_id, each.source_lane, each.first_seq, each.last_seq)
        for each in ranges
        # An entry that announces no events has an empty range.
        if each.first_seq <= each.last_seq
    )
    merged: list[tuple[str, int, int, int]] = []
    for source, lane, first, last in found:
        before = merged[-1] if merged else None
        if before is not None and before[:2] == (source, lane) and first <= before[3] + 1:
            merged[-1] = (source, lane, before[2], max(last, before[3]))
        else:
            merged.append((source, lane, first, last))
    return merged


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
