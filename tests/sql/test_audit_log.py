"""The audit log takes rows from its own function alone, and what was done to it is found."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.domain.trail import ChainCheck, TrailEntry
from tallygate.flow.trail import verify_trail
from tallygate.ports.trail import TrailQuery
from tests.servers import connection

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ROWS = 6


@pytest.fixture
async def log(postgres_dsn: str) -> AsyncIterator[PostgresTrailLog]:
    """A log with some rows."""
    postgres = Postgres(postgres_dsn)
    log = PostgresTrailLog(postgres)
    await log.append([TrailEntry("ada", "control", f"Act{number}") for number in range(ROWS)])
    yield log
    await postgres.close()


async def tamper(dsn: str, statements: str) -> None:
    """Do what only who owns the tables can: take the triggers off, and change rows."""
    async with connection(dsn) as admin:
        await admin.execute("alter table tallygate.audit_log disable trigger user;" + statements)


CLOSED_UP = """
    delete from tallygate.audit_log where seq = 3;
    update tallygate.audit_log set seq = seq - 1 where seq > 3
"""
SWAPPED = """
    update tallygate.audit_log set seq = 99 where seq = 2;
    update tallygate.audit_log set seq = 2 where seq = 3;
    update tallygate.audit_log set seq = 3 where seq = 99
"""
PUT_IN = """
    insert into tallygate.audit_log
    select 7, at, actor, role, action, tenant_id, call_id, request, request_sha256, outcome,
        prev_hash, hash
    from tallygate.audit_log where seq = 6
"""
TOUCHED = [
    ("update tallygate.audit_log set actor = 'eve' where seq = 3", [(3, "changed")]),
    (
        "update tallygate.audit_log set at = at + interval '1 microsecond' where seq = 1",
        [(1, "changed")],
    ),
    ("delete from tallygate.audit_log where seq = 3", [(3, "removed")]),
    ("delete from tallygate.audit_log where seq = 1", [(1, "removed")]),
    ("delete from tallygate.audit_log where seq > 4", [(5, "removed")]),
    ("delete from tallygate.audit_log", [(1, "removed")]),
    (CLOSED_UP, [(3, "changed"), (4, "changed"), (5, "changed"), (6, "removed")]),
    (SWAPPED, [(2, "changed"), (3, "changed"), (4, "detached")]),
    (PUT_IN, [(7, "changed"), (7, "detached")]),
    ("delete from tallygate.audit_head", [(6, "detached")]),
]


@pytest.mark.parametrize(("statements", "found"), TOUCHED)
async def test_what_was_done_is_found(
    postgres_dsn: str, log: PostgresTrailLog, statements: str, found: list[tuple[int, str]]
) -> None:
    """Rows that were changed, taken out, moved or put in are found, each at its place."""
    assert await verify_trail(log, ChainCheck()) == []
    await tamper(postgres_dsn, statements)
    assert [(each.seq, each.flaw) for each in await verify_trail(log, ChainCheck())] == found


async def test_a_chain_made_anew_is_found_by_a_noted_hash(
    postgres_dsn: str, log: PostgresTrailLog
) -> None:
    """Who owns the tables can make a whole chain that holds, but none that has the noted hash."""
    async with log.chain() as chain:
        noted = {chain.head.seq: chain.head.hash}
    await tamper(
        postgres_dsn,
        "delete from tallygate.audit_log;"
        "update tallygate.audit_head set seq = 0, hash = decode(repeat('00', 32), 'hex')",
    )
    await log.append([TrailEntry("eve", "control", f"Act{number}") for number in range(ROWS)])
    assert await verify_trail(log, ChainCheck()) == []
    assert [each.flaw for each in await verify_trail(log, ChainCheck(noted))] == ["rewritten"]


async def test_nobody_edits_the_log(postgres_dsn: str, log: PostgresTrailLog) -> None:
    """Even a superuser's edit is refused by the triggers."""
    async with connection(postgres_dsn) as admin:
        for statement in (
            "update tallygate.audit_log set actor = 'eve'",
            "delete from tallygate.audit_log",
            "truncate tallygate.audit_log",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await admin.execute(statement)


@pytest.mark.parametrize("table", ["audit_log", "audit_head"])
async def test_no_role_writes_rows_of_its_own(postgres_dsn: str, table: str) -> None:
    """Roles append by the function alone, and those of the data's way not even by that."""
    await apply_roles(postgres_dsn)
    may = {"tallygate_control", "tallygate_read", "tallygate_operator"}
    async with connection(postgres_dsn) as admin:
        for role in (*may, "tallygate_ingest", "tallygate_relay"):
            for right in ("insert", "update", "delete", "truncate"):
                assert not await admin.fetchval(
                    "select has_table_privilege($1, $2, $3)", role, f"tallygate.{table}", right
                )
            callable_ = await admin.fetchval(
                "select has_function_privilege($1, p.oid, 'execute') from pg_proc p"
                " where proname = 'append_audit'",
                role,
            )
            assert callable_ == (role in may)


async def test_reading_role_appends(postgres_dsn: str) -> None:
    """Who may only read leaves a row of it all the same."""
    await apply_roles(postgres_dsn)
    separator = "&" if "?" in postgres_dsn else "?"
    postgres = Postgres(f"{postgres_dsn}{separator}options=-c%20role%3Dtallygate_read")
    log = PostgresTrailLog(postgres)
    assert await log.append([TrailEntry("ada", "command", "explain")]) == 1
    assert await verify_trail(log, ChainCheck()) == []
    await postgres.close()


async def test_writers_at_once_make_one_chain(postgres_dsn: str) -> None:
    """Many who append at once leave one chain without a gap, and each one's rows in order."""
    pools = [Postgres(postgres_dsn, PoolOptions(connections_max=2)) for _ in range(4)]

    async def write(number: int) -> None:
        log = PostgresTrailLog(pools[number % len(pools)])
        for turn in range(10):
            await log.append([TrailEntry(f"w{number}", "control", f"{turn}.{x}") for x in "ab"])

    await asyncio.gather(*(write(number) for number in range(12)))
    log = PostgresTrailLog(pools[0])
    assert await verify_trail(log, ChainCheck()) == []
    rows = await log.page(TrailQuery(limit=1_000))
    assert len(rows) == 240
    mine = [row.entry.action for row in reversed(rows) if row.entry.actor == "w7"]
    assert mine == [f"{turn}.{x}" for turn in range(10) for x in "ab"]
    for pool in pools:
        await pool.close()


async def test_readers_wait_for_nobody(postgres_dsn: str, log: PostgresTrailLog) -> None:
    """While an append is not committed, the chain up to it is read and holds."""
    async with connection(postgres_dsn) as admin, admin.transaction():
        await admin.execute(
            "select tallygate.append_audit(array['eve'], array['control'], array['x'], array[''],"
            " array[''], array['{}'], array[''], array['done'])"
        )
        assert await verify_trail(log, ChainCheck()) == []
        assert len(await log.page(TrailQuery())) == ROWS
