"""A level is what lies in the table, exactly, whoever writes to it at once."""

import asyncio
import random

import asyncpg
import pytest

from tallygate.adapters.capture.outbox import install_script
from tests.capture.world import TABLE, App, app
from tests.servers import connection

WRITERS = 6
STATEMENTS = 25
TENANTS = ("acme", "beta", "gamma")


async def _write(dsn: str, seed: int) -> None:
    """Insert, update, move between tenants, delete and roll back, at random."""
    chance = random.Random(seed)
    async with connection(dsn) as opened:
        for _ in range(STATEMENTS):
            doing = opened.transaction()
            await doing.start()
            size, tenant = chance.randrange(40), chance.choice(TENANTS)
            match chance.randrange(4):
                case 0 | 1:
                    await opened.execute(
                        f"insert into {TABLE} (org_id, body)"
                        " select $1, repeat('x', $2 + n) from generate_series(1, 3) as n",
                        tenant,
                        size,
                    )
                case 2:
                    await opened.execute(
                        f"update {TABLE} set org_id = $1, body = repeat('y', $2) where id in"
                        f" (select id from {TABLE} where id % 7 = $3 order by id limit 2"
                        " for update skip locked)",
                        tenant,
                        size,
                        chance.randrange(7),
                    )
                case _:
                    await opened.execute(
                        f"delete from {TABLE} where id in (select id from {TABLE}"
                        " where id % 5 = $1 order by id limit 2 for update skip locked)",
                        chance.randrange(5),
                    )
            await (doing.rollback() if chance.random() < 0.2 else doing.commit())


async def test_levels_are_exact_under_writers(empty_postgres_dsn: str) -> None:
    """Levels and changes come to the table at any moment of writing, and what is told, after it."""
    async with app(empty_postgres_dsn) as world, connection(empty_postgres_dsn) as looker:
        await world.insert("acme", "was here before")
        await world.level()
        writing = asyncio.gather(*(_write(empty_postgres_dsn, seed) for seed in range(WRITERS)))
        looks = 0
        while not writing.done():
            await world.fold()
            async with looker.transaction(isolation="repeatable_read", readonly=True):
                rows = await looker.fetch(
                    "select tenant_id, sum(units)::bigint as units"
                    " from tallygate.capture_sums(1) group by tenant_id"
                )
                known = {row["tenant_id"]: row["units"] for row in rows if row["units"]}
                assert known == await App(looker).lying()
            looks += 1
            await asyncio.sleep(0)
        await writing
        assert looks > 3
        while await world.fold():
            continue
        lying = await world.lying()
        assert await world.levels() == lying
        told = dict(await world.captured("storage"))
        assert {tenant: amount for tenant, amount in told.items() if amount} == lying
        late = await world.sql.fetchval(
            "select count(*) from (select captured_at <= lag(captured_at) over"
            " (partition by tenant_id order by captured_id) as late from tallygate.captured) as s"
            " where late"
        )
        assert late == 0, "a level's times rise"
        assert await world.unmeasured() == []


async def test_nothing_left_is_a_level_of_nothing(empty_postgres_dsn: str) -> None:
    """Deleting, truncating and ending with `to_zero` bring a level to 0, and 0 is told."""
    async with app(empty_postgres_dsn) as world:
        await world.level()
        await world.insert("acme", "abc")
        await world.insert("beta", "de")
        await world.fold()
        await world.sql.execute(f"delete from {TABLE} where org_id = 'acme'")
        await world.fold()
        await world.sql.execute(f"truncate {TABLE}")
        await world.fold()
        await world.insert("gamma", "f")
        await world.sql.execute("select tallygate.uncapture($1, 'storage', true)", TABLE)
        await world.fold()
        assert await world.captured("storage") == [
            ("acme", 3), ("beta", 2), ("acme", 0), ("beta", 0),
        ]  # fmt: skip
        assert await world.levels() == {}


async def test_changes_that_cancel_out_tell_nothing(empty_postgres_dsn: str) -> None:
    """An update that leaves the amount as it was has no event."""
    async with app(empty_postgres_dsn) as world:
        await world.level()
        await world.insert("acme", "abc")
        await world.fold()
        await world.sql.execute(f"update {TABLE} set body = 'xyz'")
        assert await world.fold() == 0
        assert await world.captured("storage") == [("acme", 3)]


async def test_levels_are_told_once_in_a_span(empty_postgres_dsn: str) -> None:
    """Changes of a span are one level, at the time of its last; a span that lasts is waited for."""
    async with app(empty_postgres_dsn) as world:
        await world.level(every_s=60)
        await world.insert("acme", "abc")
        await world.insert("acme", "de")
        # Two spans ago, and one; what has no time set is of the span that lasts.
        for minutes, number in ((3, 1), (3, 2)):
            await world.sql.execute(
                "update tallygate.capture_delta set captured_at = date_trunc('minute', now())"
                " - $1 * interval '1 minute' + $2 * interval '1 second' where delta_id = $2",
                minutes,
                number,
            )
        await world.insert("acme", "f")
        await world.sql.execute(
            "update tallygate.capture_delta set captured_at = now() + interval '1 hour'"
            " where delta_id = 3"
        )
        assert await world.fold() == 2
        assert await world.captured("storage") == [("acme", 5)]
        second = "select extract(second from captured_at)::int from tallygate.captured"
        assert await world.sql.fetchval(second) == 2


async def test_a_level_is_counted_anew(empty_postgres_dsn: str) -> None:
    """What was written behind the triggers' back is made good by a recount, which says how much."""
    async with app(empty_postgres_dsn) as world:
        await world.level()
        await world.insert("acme", "abc")
        await world.sql.execute(f"alter table {TABLE} disable trigger user")
        await world.insert("acme", "behind")
        await world.insert("beta", "x")
        await world.sql.execute(f"alter table {TABLE} enable trigger user")
        recount = "select tallygate.capture_recount($1, 'storage')"
        assert await world.sql.fetchval(recount, TABLE) == 2
        assert await world.sql.fetchval(recount, TABLE) == 0
        await world.fold()
        assert await world.levels() == await world.lying()


async def test_levels_need_steady_expressions(empty_postgres_dsn: str) -> None:
    """What may be another number when the row is deleted is refused; so is an old snapshot."""
    async with app(empty_postgres_dsn) as world:
        with pytest.raises(asyncpg.PostgresError, match="another value for the same row"):
            await world.level(amount="(random() * 10)::int")
        with pytest.raises(asyncpg.PostgresError, match="read committed"):
            async with world.sql.transaction(isolation="serializable"):
                await world.level()


async def test_every_way_of_writing_is_seen(empty_postgres_dsn: str) -> None:
    """COPY, upserts, MERGE, cascades and partitions change levels as plain statements do."""
    async with connection(empty_postgres_dsn) as sql:
        await sql.execute(install_script(roles=False))
        await sql.execute(
            "create table org (id text primary key);"
            "create table note (id int, org_id text references org on delete cascade, body text,"
            " length int generated always as (length(body)) stored, primary key (org_id, id))"
            " partition by list (org_id);"
            "create table note_acme partition of note for values in ('acme');"
            "create table note_rest partition of note default;"
            "insert into org values ('acme'), ('beta'), ('gamma')"
        )
        await sql.execute(
            "select tallygate.capture_level('note', 'storage', 'org_id', 'length', every_s => 0)"
        )
        rows = [(1, "acme", "abc"), (2, "beta", "de"), (3, "gamma", "f")]
        names = ["id", "org_id", "body"]
        await sql.copy_records_to_table("note", records=rows, columns=names)
        upsert = (
            "insert into note values (1, 'acme', 'abcdef'), (4, 'acme', 'g')"
            " on conflict (org_id, id) do update set body = excluded.body"
        )
        await sql.execute(upsert)
        await sql.execute(
            "merge into note using (values (2, 'xyzw'), (5, 'new')) as given (id, body)"
            " on note.id = given.id when matched then update set body = given.body"
            " when not matched then insert (id, org_id, body) values (given.id, 'beta', given.body)"
        )
        # A row that moves is deleted here and inserted there.
        await sql.execute("update note set org_id = 'beta' where id = 4")
        await sql.execute("delete from org where id = 'gamma'")
        await sql.execute("with gone as (delete from note where id = 5 returning 1) select 1")
        lying = await sql.fetch("select org_id, sum(length) as n from note group by 1 order by 1")
        known = await sql.fetch(
            "select tenant_id, sum(units)::bigint as units from tallygate.capture_sums(1)"
            " group by 1 having sum(units) <> 0 order by 1"
        )
        assert [tuple(row) for row in known] == [tuple(row) for row in lying]
        assert [tuple(row) for row in lying] == [("acme", 6), ("beta", 5)]
        assert await sql.fetchval("select count(*) from tallygate.capture_unmeasured") == 0
