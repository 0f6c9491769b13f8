"""Triggers write usage in the app's own transaction, and never fail the app for it."""

import asyncpg
import pytest

from tests.capture.world import TABLE, app
from tests.servers import connection


async def test_rows_are_captured_with_the_apps_own(empty_postgres_dsn: str) -> None:
    """Each row that is written is a row of the outbox; what is rolled back never was."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("written", "octet_length(body)", events="insert,update,delete")
        await world.insert("acme", "abc", "de")
        undone = world.sql.transaction()
        await undone.start()
        await world.insert("acme", "never")
        await undone.rollback()
        await world.sql.execute(f"update {TABLE} set body = body || 'x' where body = 'de'")
        await world.sql.execute(f"delete from {TABLE} where body = 'abc'")
        assert await world.captured("written") == [("acme", n) for n in (3, 2, 3, 3)]
        await world.insert("acme", "")
        assert len(await world.captured("written")) == 4, "nothing is no use"


async def test_a_bulk_insert_costs_one_insert(empty_postgres_dsn: str) -> None:
    """A statement's rows are measured together; with `per` they are one event of each tenant."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("each", "size", dimensions='{"kind": "upper(kind)"}')
        await world.capture("together", "size", per="statement")
        await world.sql.execute(
            f"insert into {TABLE} (org_id, size)"
            " select 'org-' || g % 2, 1 from generate_series(1, 2000) as g"
        )
        assert len(await world.captured("each")) == 2_000
        assert sorted(await world.captured("together")) == [("org-0", 1_000), ("org-1", 1_000)]
        kinds = "select distinct dimensions->>'kind' from tallygate.captured where meter = 'each'"
        assert await world.sql.fetchval(kinds) == "NOTE"
        calls = "select count(*) from tallygate.capture_rule"
        assert await world.sql.fetchval(calls) == 2


@pytest.mark.parametrize(
    ("tenant", "size", "why"),
    [
        (None, 1, "the tenant is null"),
        ("two words", 1, "the tenant is no id"),
        ("acme", -1, "the amount is below 0"),
    ],
)
async def test_what_cannot_be_measured_is_kept_with_its_reason(
    empty_postgres_dsn: str, tenant: str | None, size: int, why: str
) -> None:
    """The app's statement succeeds, its good rows are captured, and the others are counted."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "size")
        await world.sql.execute(
            f"insert into {TABLE} (org_id, size) values ($1, $2), ('beta', 7)", tenant, size
        )
        assert await world.captured("rows") == [("beta", 7)]
        assert await world.unmeasured() == [(1, why)]


async def test_an_expression_that_fails_fails_its_row_alone(empty_postgres_dsn: str) -> None:
    """Where a row makes the expression fail, the others of its statement are captured."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "body::int")
        await world.insert("acme", "1", "x", "3")
        assert await world.captured("rows") == [("acme", 1), ("acme", 3)]
        ((count, reason),) = await world.unmeasured()
        assert count == 1
        assert reason.startswith("22P02")


async def test_strict_fails_the_statement(empty_postgres_dsn: str) -> None:
    """With `strict` a row that cannot be measured is not written."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "size", strict=True)
        with pytest.raises(asyncpg.CheckViolationError, match="tenant is null"):
            await world.sql.execute(f"insert into {TABLE} (size) values (1)")
        assert await world.sql.fetchval(f"select count(*) from {TABLE}") == 0


async def test_a_lost_outbox_does_not_fail_the_app(empty_postgres_dsn: str) -> None:
    """Where nothing at all can be kept, the app is warned and goes on."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows")
        await world.sql.execute(
            "drop table tallygate.captured, tallygate.capture_unmeasured cascade"
        )
        warnings: list[str] = []
        world.sql.add_log_listener(lambda _, message: warnings.append(str(message)))
        await world.insert("acme", "abc")
        assert await world.sql.fetchval(f"select count(*) from {TABLE}") == 1
        assert any("nothing is captured" in each for each in warnings)


@pytest.mark.parametrize(
    "amount",
    [
        "sum(size)",
        "(select 1)",
        "nothing",
        "body",
        "1.5",
        "size) , (size",
        "size) is not null or (1",
    ],
)
async def test_expressions_are_checked_at_once(empty_postgres_dsn: str, amount: str) -> None:
    """What is no whole number of one row is refused when it is asked for, and leaves nothing."""
    async with app(empty_postgres_dsn) as world:
        with pytest.raises(asyncpg.PostgresError, match="tallygate: amount"):
            await world.capture("rows", amount)
        assert await world.sql.fetchval("select count(*) from tallygate.capture_rule") == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"events": "insert,drop"}, "events is a list"),
        ({"meter": "No Name"}, "no name of a meter"),
        ({"dimensions": '{"": "kind"}'}, "dimension's name"),
    ],
)
async def test_options_are_checked_at_once(
    empty_postgres_dsn: str, options: dict[str, str], why: str
) -> None:
    """So is what is no option's value."""
    async with app(empty_postgres_dsn) as world:
        with pytest.raises(asyncpg.PostgresError, match=why):
            await world.capture(**options)


async def test_an_app_needs_no_right_to_the_outbox(empty_postgres_dsn: str) -> None:
    """Who may only write documents has them captured; his search_path decides nothing of it."""
    async with app(empty_postgres_dsn) as world:
        # It says IS NOT NULL itself, by which expressions are found.
        await world.capture("rows", "case when body is not null then octet_length(body) end")
        await world.sql.execute(
            "drop role if exists capture_app; create role capture_app;"
            f"grant usage on schema app to capture_app; grant insert on {TABLE} to capture_app;"
            'grant usage on sequence app."Documents_id_seq" to capture_app;'
            "create schema evil authorization capture_app"
        )
        try:
            await world.sql.execute(
                "set role capture_app; set search_path = evil, pg_catalog;"
                "create function evil.octet_length(text) returns int language sql as 'select 99'"
            )
            await world.insert("acme", "abc")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await world.sql.fetch("select * from tallygate.captured")
            await world.sql.execute("reset role; reset search_path")
            assert await world.captured("rows") == [("acme", 3)]
        finally:
            await world.sql.execute("reset role; drop owned by capture_app; drop role capture_app")


async def test_uncapture_ends_it(empty_postgres_dsn: str) -> None:
    """Afterwards nothing is captured, and the same can be captured anew; never twice at once."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows")
        with pytest.raises(asyncpg.DuplicateObjectError):
            await world.capture("rows")
        assert await world.sql.fetchval("select tallygate.uncapture($1, 'rows')", TABLE)
        assert not await world.sql.fetchval("select tallygate.uncapture($1, 'rows')", TABLE)
        await world.insert("acme", "abc")
        assert await world.captured("rows") == []
        await world.capture("rows")
        await world.insert("acme", "abc")
        assert await world.captured("rows") == [("acme", 1)]
        ended = await world.sql.fetch("select ended_at is null as live from tallygate.captures")
        assert [row["live"] for row in ended] == [False, True]


async def test_it_installs_again_and_beside_a_ledger(postgres_dsn: str) -> None:
    """The package comes a second time without harm, also into a database that has a ledger."""
    async with app(postgres_dsn) as world:
        await world.capture("rows")
        await world.insert("acme", "abc")
    async with connection(postgres_dsn) as again:
        from tallygate.adapters.capture.outbox import install_script  # noqa: PLC0415

        await again.execute(install_script(roles=True))
        assert await again.fetchval("select count(*) from tallygate.captured") == 1


async def test_a_table_may_be_renamed(empty_postgres_dsn: str) -> None:
    """Its rows are captured on, each alone where one fails; a column that is gone is no fault."""
    async with app(empty_postgres_dsn) as world:
        await world.capture("rows", "body::int")
        await world.sql.execute(
            f"alter table {TABLE} rename to papers; alter schema app rename to paper_app"
        )
        # Another session, in which nothing is compiled.
        async with connection(empty_postgres_dsn) as other:
            write = "insert into paper_app.papers (org_id, body) values ($1, $2), ($1, '5')"
            await other.execute(write, "acme", "4")
            await other.execute(write, "beta", "four")
            expected = [("acme", 4), ("acme", 5), ("beta", 5)]
            assert await world.captured("rows") == expected
            await other.execute("alter table paper_app.papers rename column body to content")
            await other.execute("insert into paper_app.papers (org_id, content) values ('a', '1')")
            assert await world.captured("rows") == expected
        (_, text), (_, column) = await world.unmeasured()
        assert text.startswith("22P02")
        assert column.startswith("42703")
        named = "select relation::text from tallygate.captures"
        assert await world.sql.fetchval(named) == "paper_app.papers"
