"""What ingest writes all day is laid out so that it can: in place, in order, ahead of time."""

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tests.servers import connection

ROLLUPS = ("usage_minute", "usage_hour", "usage_day")
CALL = (
    "select tallygate.add_usage($1::text[], $2::text[], $3::bigint[], $4::bigint[],"
    " $5::bigint[]::numeric[], $6::bigint[], $7::bigint[])"
)
HOUR_US = 3_600_000_000


async def test_rollups_are_updated_in_place(postgres_dsn: str) -> None:
    """No index holds what an update changes, and pages keep room: an update writes no index."""
    async with connection(postgres_dsn) as admin:
        for name in ROLLUPS:
            indexed = await admin.fetch(
                "select distinct a.attname::text from pg_index i join pg_attribute a"
                " on a.attrelid = i.indrelid and a.attnum = any(i.indkey)"
                " where i.indrelid = $1::text::regclass",
                f"tallygate.{name}",
            )
            assert {row["attname"] for row in indexed} == {"tenant_id", "meter", "bucket"}
            options = await admin.fetchval(
                "select reloptions from pg_class where oid = $1::text::regclass",
                f"tallygate.{name}",
            )
            assert {"fillfactor=80", "autovacuum_vacuum_scale_factor=0.02"} <= set(options)


async def test_partitions_are_vacuumed_in_small_parts(postgres_dsn: str) -> None:
    """Every partition of events and keys, one that is made later too."""
    async with connection(postgres_dsn) as admin:
        await admin.fetchval(query("ledger_ensure_partitions"))
        leaves = await admin.fetch(
            "select c.relname::text, c.reloptions from pg_inherits i"
            " join pg_class c on c.oid = i.inhrelid where i.inhparent in"
            " ('tallygate.event_key'::regclass, 'tallygate.usage_event'::regclass)"
        )
    assert len(leaves) > 16 + 3
    for row in leaves:
        assert row["reloptions"] == ["autovacuum_vacuum_insert_scale_factor=0.02"], row["relname"]


async def test_months_are_there_weeks_ahead(postgres_dsn: str) -> None:
    """What ingest runs every few hours makes the months of all events that may come for weeks."""
    async with connection(postgres_dsn) as admin:
        await admin.fetchval(query("ledger_ensure_partitions"))
        missing = await admin.fetchval(
            "select count(*) from generate_series(current_date - 35, current_date + 60,"
            " interval '1 day') as day where to_regclass('tallygate.usage_event_'"
            " || to_char(day, 'YYYYMM')) is null"
        )
        assert missing == 0
        assert await admin.fetchval(query("ledger_ensure_partitions")) == 0


async def test_minutes_make_hours_and_days(postgres_dsn: str) -> None:
    """Each minute is in the hour and day that it lies in, those before 1970 as well."""
    minutes = [-HOUR_US - 60_000_000, -60_000_000, 0, HOUR_US, 24 * HOUR_US]
    postgres = Postgres(postgres_dsn)
    try:
        async with postgres.connection() as lent:
            names = (["a"] * 5, ["m"] * 5)
            for _ in range(2):
                await lent.execute(CALL, *names, minutes, [1] * 5, [2, 3, 5, 7, 11], *_ends())
            hours = await lent.fetch(_buckets("hour"))
            days = await lent.fetch(_buckets("day"))
    finally:
        await postgres.close()
    assert [tuple(row) for row in hours] == [
        (-2 * HOUR_US, 2, 4, 2, 2),
        (-HOUR_US, 2, 6, 3, 3),
        (0, 2, 10, 5, 5),
        (HOUR_US, 2, 14, 7, 7),
        (24 * HOUR_US, 2, 22, 11, 11),
    ]
    assert [tuple(row) for row in days] == [
        (-24 * HOUR_US, 4, 10, 3, 2),
        (0, 4, 24, 7, 5),
        (24 * HOUR_US, 2, 22, 11, 11),
    ]


def _ends() -> tuple[list[int], list[int]]:
    return [2, 3, 5, 7, 11], [2, 3, 5, 7, 11]


def _buckets(length: str) -> str:
    return (
        "select tallygate.microseconds(bucket), count, sum::bigint, max, min"
        f" from tallygate.usage_{length} order by bucket"
    )
