"""Closing billing periods, in Postgres: chains of periods, sealing, what is hashed, closing.

Guarantees: totals are frozen while nobody stores events, of all that was stored before, and what is
stored after finds its period sealed. The tables' own state keeps two processes that both believe
they lead from doing anything twice.
Refuses to know: calendars, and whether all has arrived.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final

import asyncpg

from tallygate.adapters.postgres import period_folds, period_messages
from tallygate.adapters.postgres.group_rollups import definition_of
from tallygate.adapters.postgres.period_reader import adjustments, frozen, period_of
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.catalog import Meter
from tallygate.domain.event import UNSTORABLE
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import (
    Cause,
    Figures,
    Held,
    PeriodKey,
    PeriodState,
)
from tallygate.domain.period_digest import Covered, Leaf, LeafKind, pieces
from tallygate.domain.period_fold import Fold, rule_of, shape
from tallygate.domain.window import Window
from tallygate.ports.period import (
    Due,
    Ended,
    KnownTenant,
    Sealed,
    SealedRevision,
    Sealing,
    Span,
    StateCount,
)

# One statement hashes so many in less than a second, on a starved machine well within its time.
PIECE_EVENTS_MAX: Final = 50_000


class PostgresPeriodLedger:
    """The `PeriodLedger` port."""

    def __init__(self, postgres: Postgres, piece_events_max: int = PIECE_EVENTS_MAX) -> None:
        self._postgres = postgres
        self._piece_events_max = piece_events_max

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take the lease or keep it; say whether it is ours."""
        async with self._postgres.connection() as connection:
            return bool(await connection.fetchval(query("period_lead"), holder, lease_ms))

    async def known(self, after: str, count: int, since_us: int) -> list[KnownTenant]:
        """Return up to `count` tenants by id; first uses are looked for from `since_us` on."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_known"), after, count, since_us)
        return [
            KnownTenant(
                TenantId(row["tenant_id"]),
                _span(row) if row["start_us"] is not None else None,
                bool(row["open"]),
                row["first_use_us"],
            )
            for row in rows
        ]

    async def add(self, spans: Sequence[Span], now_us: int) -> int:
        """Add open periods that are not there yet; return how many."""
        async with self._postgres.connection() as connection:
            return await _add(connection, spans, now_us)

    async def resize(self, spans: Sequence[Span]) -> None:
        """Give open periods, the newest of their tenants, other ends."""
        async with self._postgres.connection() as connection:
            await connection.execute(query("period_resize"), *_columns(spans))

    async def ended(self, now_us: int, count: int) -> list[Ended]:
        """Return up to `count` open periods that have ended."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_ended"), now_us, count)
        return [Ended(_span(row), row["followed"]) for row in rows]

    async def end(self, graces: Mapping[Span, int], following: Sequence[Span], now_us: int) -> None:
        """Give periods a grace until then, and add those that follow, in one step."""
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("period_end"), *_columns([*graces]), [*graces.values()])
            await _add(connection, following, now_us)

    async def due(self, now_us: int, count: int) -> list[Due]:
        """Return up to `count` periods whose grace is over, each the first unsealed of a tenant."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_due"), now_us, count, UNSTORABLE)
        return [Due(period_of(row), row["accept_missing"], row["letters"]) for row in rows]

    async def hold(self, reasons: Mapping[PeriodKey, Held | None], now_us: int) -> int:
        """Note why periods are held, or that they are not; tell each that is newly held."""
        async with self._postgres.connection() as connection, connection.transaction():
            rows = await connection.fetch(
                query("period_hold"),
                [key.tenant_id for key in reasons],
                [key.start_us for key in reasons],
                [reason or "" for reason in reasons.values()],
                now_us,
            )
            held = [period_of(row) for row in rows if row["held"]]
            await period_messages.tell_held(connection, held, now_us)
        return len(held)

    async def accepted_lost(self) -> int:
        """Return how many lost events periods have been closed without, by somebody's word."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("period_accepted")))

    async def waiting(self, delay_s: float, count: int) -> list[PeriodKey]:
        """Return up to `count` closed periods that have been due a correction for so long."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_waiting"), delay_s, count)
        return [_key(row) for row in rows]

    async def seal(self, asked: Sealing) -> Sealed:
        """Freeze the totals of periods. See the port."""
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("period_fence"))
            keys = _keys(asked.keys)
            rows = await connection.fetch(query("period_first_uses"), *keys, asked.history_us)
            earlier = {
                _key(row): int(row["first_use_us"])
                for row in rows
                if row["first_use_us"] is not None
            }
            wanted = [key for key in asked.keys if key not in earlier]
            rows = await connection.fetch(
                query("period_seal"), *_keys(wanted), asked.now_us, asked.accepted_lost
            )
            if rows:
                await _freeze(connection, rows, asked.meters)
        return Sealed([_key(row) for row in rows], earlier)

    async def unfinished(self, count: int) -> list[SealedRevision]:
        """Return up to `count` sealed revisions that are to be closed, the oldest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_unfinished"), count)
        return [
            SealedRevision(
                span=_span(row),
                revision=row["revision"],
                cause=Cause(row["cause"]),
                sealed_us=row["sealed_us"],
                before=None
                if row["digest_before"] is None
                else Covered(row["events_before"], row["digest_before"], {}),
                accept_missing=row["accept_missing"],
            )
            for row in rows
        ]

    async def leaves(self, revision: SealedRevision) -> AsyncIterator[Leaf]:
        """Iterate over what a revision covers beside those before it. See the port."""
        key, within = revision.span.key, Window(revision.span.key.start_us, revision.span.end_us)
        async with self._postgres.connection() as connection, connection.transaction():
            if revision.revision == 1:
                meters = await connection.fetchval(query("period_meters"), key.tenant_id)
                rows = await connection.fetch(
                    query("period_hours"), key.tenant_id, within.start_us, within.end_us
                )
                hours = [(row["hour_us"], row["events"]) for row in rows]
                for part in pieces(hours, within, self._piece_events_max) if hours else ():
                    rows = await connection.fetch(
                        query("period_leaves"), key.tenant_id, part.start_us, part.end_us, meters
                    )
                    for leaf in _leaves(rows):
                        yield leaf
            rows = await connection.fetch(
                query("period_late_leaves"), key.tenant_id, key.start_us, revision.revision
            )
        for leaf in _leaves(rows):
            yield leaf

    async def close(
        self, revision: SealedRevision, covered: Covered, folded: Fold, now_us: int
    ) -> bool:
        """Close a revision and write its message, in one step; say whether it was not before."""
        key = revision.span.key
        async with self._postgres.connection() as connection, connection.transaction():
            closed = await connection.fetchval(
                query("period_close"),
                key.tenant_id,
                key.start_us,
                revision.revision,
                now_us,
                covered.events,
                covered.digest,
            )
            if closed:
                await period_folds.freeze(connection, revision, folded)
                billed = period_messages.Billed(
                    await frozen(connection, key, revision.revision),
                    await adjustments(connection, key, revision.revision),
                )
                await period_messages.tell_closed(connection, revision, covered, billed, now_us)
        return bool(closed)

    async def states(self) -> list[StateCount]:
        """Count periods by state and by why they are held."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("period_states"))
        return [
            StateCount(
                PeriodState(row["state"]),
                Held(row["held"]) if row["held"] else None,
                row["periods"],
                row["held_us"] or 0,
            )
            for row in rows
        ]


async def _freeze(
    connection: Lent, sealed: Sequence[asyncpg.Record], meters: Mapping[MeterName, Meter]
) -> None:
    """Freeze what figures tell of what was just sealed, and settle what is to be folded of it."""
    keys = (
        [row["tenant_id"] for row in sealed],
        [row["start_us"] for row in sealed],
        [row["revision"] for row in sealed],
    )
    rules = [rule for meter in meters.values() if (rule := rule_of(meter)) is not None]
    await connection.execute(
        query("period_rules"),
        *keys,
        [rule.name for rule in rules],
        [definition_of(shape(rule)) for rule in rules],
        [rule.percentile_ppm for rule in rules],
    )
    kinds = ([*meters], [meter.aggregation.value for meter in meters.values()])
    await connection.execute(query("period_freeze"), *keys, *kinds)
    await connection.execute(query("period_adjust"), *keys, *kinds)
    await connection.execute(query("period_review"), *keys)
    await connection.execute(query("period_touch"), *keys)


async def _add(connection: Lent, spans: Sequence[Span], now_us: int) -> int:
    return int(await connection.fetchval(query("period_add"), *_columns(spans), now_us))


def _columns(spans: Sequence[Span]) -> tuple[list[str], list[int], list[int]]:
    return (*_keys([span.key for span in spans]), [span.end_us for span in spans])


def _keys(keys: Sequence[PeriodKey]) -> tuple[list[str], list[int]]:
    return [key.tenant_id for key in keys], [key.start_us for key in keys]


def _key(row: asyncpg.Record) -> PeriodKey:
    return PeriodKey(TenantId(row["tenant_id"]), row["start_us"])


def _span(row: asyncpg.Record) -> Span:
    return Span(_key(row), row["end_us"])


def _leaves(rows: Sequence[asyncpg.Record]) -> Iterator[Leaf]:
    for row in rows:
        own = row.get("own")
        kind = LeafKind.EVENTS if own is None else LeafKind.LATE if own else LeafKind.ADJUSTED
        yield Leaf(
            kind,
            row["minute_us"],
            MeterName(row["meter"]),
            row["events"],
            Figures(row["count"], int(row["sum"]), row["max"], row["min"]),
            row["digest"],
        )
