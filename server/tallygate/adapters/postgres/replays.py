"""What was made of the ledger, made again: rollups of its events, deliveries of its messages.

Guarantees: a day of a tenant's meter is one transaction, and so is a batch of messages; each may
be given again. Rows are locked in the order in which ingesters write them.
Refuses to know: which range is made again, and who asked.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from tallygate.adapters.postgres.lineage_reads import archived_month
from tallygate.adapters.postgres.pool import Contended, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.drift import NOTHING, Figures, Level, Unequal
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import DAY_US
from tallygate.ports import UnstorableBatch
from tallygate.ports.archive import ArchivedMonth
from tallygate.ports.audit import FOUND_MAX
from tallygate.ports.recompute import DayAsked
from tallygate.ports.redeliver import RedeliverAsked, RedeliverBatch, RedeliverCounts

ATTEMPTS_MAX: Final = 5
# A day of a large ledger is added up in minutes.
PATIENCE_S: Final = 3_600


class PostgresRollupRecompute:
    """The `RollupRecompute` port, of usage by minute, hour and day."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def archived(self, day_us: int) -> ArchivedMonth | None:
        """Return where the events of a day are, if they were dropped."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("archive_of_instant"), day_us)
        return archived_month(row) if row is not None else None

    async def differences(self, asked: DayAsked) -> Sequence[Unequal]:
        """Return the buckets of a day that are not what their events come to."""
        scope = (asked.day_us, asked.day_us + DAY_US, asked.tenant_id, asked.meter)
        async with (
            self._postgres.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
            cursor = await connection.cursor(
                query("recompute_differences"), *scope, timeout=PATIENCE_S
            )
            rows = await cursor.fetch(FOUND_MAX, timeout=PATIENCE_S)
        return [
            Unequal(
                level=Level(row["kind"]),
                tenant_id=TenantId(row["tenant_id"]),
                meter=MeterName(row["meter"]),
                bucket_us=row["bucket_us"],
                finer=_figures(row, "fine"),
                coarser=_figures(row, "coarse"),
            )
            for row in rows
        ]

    async def recompute(self, tenant_id: TenantId, meter: MeterName, day_us: int) -> int:
        """Make the buckets of a tenant's meter on a day anew. See the port."""
        attempt = 1
        while True:
            try:
                async with self._postgres.connection() as connection, connection.transaction():
                    await connection.execute(query("replay_patience"), str(PATIENCE_S * 1000))
                    asked = (tenant_id, meter, day_us)
                    changed = await connection.fetchval(
                        query("recompute_usage"), *asked, timeout=PATIENCE_S
                    )
                    return int(changed)
            except Contended:
                if attempt == ATTEMPTS_MAX:
                    raise
                attempt += 1
            except UnstorableBatch:
                # The function's own refusal: only of a month that was dropped meanwhile.
                raise InvalidField("the day's events were dropped", field="--from") from None


class PostgresMessageReplay:
    """The `MessageReplay` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def counts(self, asked: RedeliverAsked) -> RedeliverCounts:
        """Return what would be sent again. Raises `NotFound` for an unknown destination."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                query("redeliver_counts"), *_scope(asked), timeout=PATIENCE_S
            )
        assert row is not None
        if not row["known"]:
            missing = f"there is no active destination {asked.destination!r}"
            raise NotFound(missing, field="--destination")
        names = RedeliverCounts.__dataclass_fields__
        return RedeliverCounts(**{name: row[name] for name in names})

    async def again(
        self, asked: RedeliverAsked, after: tuple[str, int] | None, limit: int
    ) -> RedeliverBatch:
        """Give some messages back, after a place, all or none; `after` is None at the end."""
        place = after or (None, None)
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("redeliver_batch"), *_scope(asked), *place, limit)
        assert row is not None
        more = row["seen"] == limit
        last = (row["last_xid"], row["last_seq"]) if more else None
        return RedeliverBatch(row["seen"], row["again"], last)


def _scope(asked: RedeliverAsked) -> tuple[str, str, int, int, str]:
    return asked.destination, asked.replay_id, asked.from_us, asked.to_us, asked.type


def _figures(row: asyncpg.Record, side: str) -> Figures:
    if row[f"{side}_count"] is None:
        return NOTHING
    return Figures(*(int(row[f"{side}_{name}"]) for name in ("count", "sum", "max", "min")))
