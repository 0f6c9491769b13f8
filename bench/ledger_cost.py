"""The servers of a ledger's benchmark, and what they spend: time, processor, log and room.

Guarantees: a server's processor time is that of its whole family of processes, those that have
ended too. Refuses to know: what is measured.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import asyncpg

from bench.processes import family_s
from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.postgres.migrate import migrate

_SIZES: Final = """
    select case
        when name like 'usage_event%' and kind = 'r' then 'events'
        when name like 'usage_event%' then 'indexes of events'
        when name like 'event_key%' and kind = 'r' then 'keys of events'
        when name like 'event_key%' then 'index of keys'
        when name like 'outbox%' or name like 'delivery%' then 'outbox and deliveries'
        when name like 'usage_%' then 'rollups'
    end as what, sum(size)::bigint as size
    from (
        select relname as name, relkind::text as kind, pg_table_size(oid) as size
        from pg_class where relnamespace = 'tallygate'::regnamespace and relkind in ('r', 'i')
    ) as relation
    group by 1 having sum(size) > 0 and count(*) > 0 order by 2 desc
"""
_WAITS: Final = """
    select exists (
        select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'
    )
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """A Redis and a Postgres with the schema, their own for a benchmark."""

    redis_url: str
    dsn: str
    postmaster: int

    async def sizes(self) -> dict[str, int]:
        """Return how many bytes the parts of the ledger take, the largest first."""
        admin = await asyncpg.connect(self.dsn)
        try:
            rows = await admin.fetch(_SIZES)
        finally:
            await admin.close()
        return {row["what"]: row["size"] for row in rows if row["what"]}

    async def lock_waits(self, done: asyncio.Event, every_s: float) -> float:
        """Return in which share of samples some transaction waited for another's row."""
        admin = await asyncpg.connect(self.dsn)
        samples = waiting = 0
        try:
            while not done.is_set():
                waiting += await admin.fetchval(_WAITS)
                samples += 1
                await asyncio.sleep(every_s)
        finally:
            await admin.close()
        return waiting / max(1, samples)


@dataclass(frozen=True, slots=True)
class Cost:
    """What was spent by a moment, or between two."""

    seconds: float
    own_s: float
    postgres_s: float
    wal_bytes: int

    @classmethod
    async def now(cls, on: Servers) -> Self:
        """Return what this process and Postgres have spent so far."""
        admin = await asyncpg.connect(on.dsn)
        try:
            wal = await admin.fetchval("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
        finally:
            await admin.close()
        return cls(time.perf_counter(), time.process_time(), family_s(on.postmaster), int(wal))

    def since(self, before: "Cost") -> "Cost":
        """Return what was spent since then."""
        return Cost(
            self.seconds - before.seconds,
            self.own_s - before.own_s,
            self.postgres_s - before.postgres_s,
            self.wal_bytes - before.wal_bytes,
        )


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Servers]:
    """Run both while the block runs."""
    async with (
        EmbeddedRedis(folder / "redis") as redis,
        EmbeddedPostgres(folder / "postgres") as postgres,
    ):
        dsn = postgres.dsn_of("tallygate")
        await migrate(dsn)
        lock = folder / "postgres" / "cluster" / "postmaster.pid"
        yield Servers(redis.url, dsn, int(lock.read_text().split()[0]))
