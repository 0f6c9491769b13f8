"""What operators do to the outbox: what they see, retry, prune and rebase."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest
from typer.testing import CliRunner

from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PRUNE_BATCH, PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.cli import app
from tallygate.domain.errors import InvalidField
from tests.servers import connection

HOOK = "hook"
# Generic to type checkers only, so it is spelled as text.
Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[Postgres]:
    """A pool on a database of the test's own."""
    pool = Postgres(postgres_dsn)
    yield pool
    await pool.close()


async def write(admin: Admin, count: int) -> list[uuid.UUID]:
    """Write messages for one destination; return their ids in order."""
    await admin.execute(
        "insert into tallygate.destination (name, kind, url, types)"
        " values ($1, 'webhook', 'http://localhost', array['t']) on conflict do nothing",
        HOOK,
    )
    ids = [uuid.uuid4() for _ in range(count)]
    columns = [ids, *([each] * count for each in ("usage", "b", "t", b"{}", None))]
    await admin.execute(query("outbox_insert"), *columns)
    return ids


async def ids(admin: Admin) -> set[uuid.UUID]:
    """Return the messages that there are."""
    return {row["id"] for row in await admin.fetch("select id from tallygate.outbox")}


async def test_parked_messages_are_tried_again(postgres: Postgres, postgres_dsn: str) -> None:
    """One or all of a destination's parked messages become due, with all attempts before them."""
    outbox, upkeep = PostgresOutbox(postgres), PostgresOutboxUpkeep(postgres)
    async with connection(postgres_dsn) as admin:
        await write(admin, 3)
    claimed = await outbox.claim(HOOK, 3, 60_000)
    for delivery in claimed:
        await outbox.park(delivery, "HTTP 410")
    assert await upkeep.unpark("other") == 0
    assert await upkeep.unpark(HOOK, claimed[1].message_id) == 1
    assert await upkeep.unpark(HOOK, claimed[1].message_id) == 0
    [again] = await outbox.claim(HOOK, 3, 60_000)
    assert (again.message_id, again.attempt) == (claimed[1].message_id, 1)
    assert not await outbox.delivered([claimed[1]])
    assert await upkeep.unpark(HOOK) == 2
    with pytest.raises(InvalidField):
        await upkeep.unpark(HOOK, "no id")


async def test_only_what_nobody_waits_for_is_pruned(postgres: Postgres, postgres_dsn: str) -> None:
    """Old messages that were delivered everywhere go; young, waiting and parked ones stay."""
    outbox, upkeep = PostgresOutbox(postgres), PostgresOutboxUpkeep(postgres)
    async with connection(postgres_dsn) as admin:
        await write(admin, PRUNE_BATCH + 5)
        claimed = await outbox.claim(HOOK, PRUNE_BATCH + 4, 60_000)
        assert await outbox.delivered(claimed[1:]) == PRUNE_BATCH + 3
        await outbox.park(claimed[0], "HTTP 410")
        await admin.execute("update tallygate.outbox set created_at = now() - interval '8 days'")
        young = await write(admin, 1)
        assert await upkeep.prune(9) == 0
        assert await upkeep.prune(7) == PRUNE_BATCH + 3
        left = await ids(admin)
        assert uuid.UUID(claimed[0].message_id) in left
        assert left > set(young)
        assert len(left) == 3
        rows = await admin.fetchval("select count(*) from tallygate.delivery")
        assert rows == 3
        days = await admin.fetchval(
            "select extract(day from now() - pruned_before)::integer from tallygate.outbox_pruned"
        )
        assert days == 7
    with pytest.raises(InvalidField):
        await upkeep.prune(0)


async def test_rebase_leaves_a_clusters_own_messages_alone(
    postgres: Postgres, postgres_dsn: str
) -> None:
    """Where no message is numbered beyond this cluster's transactions, nothing changes."""
    async with connection(postgres_dsn) as admin:
        await write(admin, 2)
        before = await admin.fetch("select id, xid::text from tallygate.outbox order by id")
        assert await PostgresOutboxUpkeep(postgres).rebase() == 0
        assert await admin.fetch("select id, xid::text from tallygate.outbox order by id") == before


async def test_rebase_puts_foreign_messages_first(postgres: Postgres, postgres_dsn: str) -> None:
    """Messages numbered in this cluster's future become the oldest, in the order of writing."""
    upkeep = PostgresOutboxUpkeep(postgres)
    async with connection(postgres_dsn) as admin:
        old = await write(admin, 3)
        await admin.execute("update tallygate.outbox set xid = '9000000000'")
        assert await upkeep.gate_lag_s() > 0
        assert await admin.fetch(query("outbox_tail"), "0", 0, 10) == []
        assert await upkeep.rebase() == 3
        assert await upkeep.rebase() == 0
        assert await upkeep.gate_lag_s() == 0
        new = await write(admin, 1)
        rows = await admin.fetch(query("outbox_tail"), "0", 0, 10)
        assert [row["id"] for row in rows] == old + new


def test_commands_say_how_many(postgres_dsn: str) -> None:
    """Each verb reaches the database that it is given, and prints its count."""
    for words, title in (
        (["retry", "--destination", HOOK], "retried"),
        (["prune", "--older-than-days", "30"], "pruned"),
        (["rebase"], "rebased"),
    ):
        result = CliRunner().invoke(
            app, ["outbox", *words, "--postgres-dsn", postgres_dsn, "--json"]
        )
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout) == {"outbox": [{title: 0}]}
