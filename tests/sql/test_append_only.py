"""The ledger is append-only: by trigger for everybody, by privileges for our own roles."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger, PostgresResetAudit
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.credit import GrantAsked, GrantId, LimitReset
from tallygate.domain.ids import EventId, LimitId, TenantId
from tallygate.ports import LedgerBatch, Persisted
from tests.servers import connection, eventually
from tests.usage_events import burn, crossing, event, low, rejected, span

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
EVENT_TABLES = ("tallygate.usage_event", "tallygate.event_key")


@pytest.fixture
async def admin(postgres_dsn: str) -> AsyncIterator[Admin]:
    """A superuser's connection to a ledger with one event, with the roles made."""
    await apply_roles(postgres_dsn)
    await apply_roles(postgres_dsn)
    postgres = Postgres(postgres_dsn)
    today = int(datetime.now(UTC).timestamp() * 1e6)
    await PostgresLedger(postgres).persist(LedgerBatch((event(1, event_time_us=today),)))
    await postgres.close()
    async with connection(postgres_dsn) as opened:
        yield opened


def as_role(dsn: str, role: str) -> str:
    """Return the address under which everything is done as that role."""
    separator = "&" if "?" in dsn else "?"
    return f"{dsn}{separator}options=-c%20role%3D{role}"


async def leaves(admin: Admin) -> list[str]:
    """Return the tables of events and keys, and the partitions that hold the event."""
    rows = await admin.fetch(
        "select tableoid::regclass::text as leaf from tallygate.usage_event"
        " union select tableoid::regclass::text from tallygate.event_key"
    )
    return [*EVENT_TABLES, *(row["leaf"] for row in rows)]


@pytest.mark.parametrize(
    "statement",
    ["update {} set event_id = 'x'", "delete from {}", "truncate {}", "truncate {} cascade"],
)
async def test_nobody_edits_events(admin: Admin, statement: str) -> None:
    """Even a superuser's edit is refused, on the whole table and on a partition."""
    found = await leaves(admin)
    assert len(found) == 4
    for leaf in found:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await admin.execute(statement.format(leaf))


@pytest.mark.parametrize(
    "role", ["tallygate_ingest", "tallygate_relay", "tallygate_control", "tallygate_read"]
)
async def test_no_role_may_edit_events(admin: Admin, role: str) -> None:
    """No role of ours has the privilege, whatever the triggers say."""
    for leaf in await leaves(admin):
        for right in ("update", "delete", "truncate"):
            assert not await admin.fetchval(
                "select has_table_privilege($1, $2, $3)", role, leaf, right
            )


async def test_ingest_role_can_do_its_work(postgres_dsn: str, admin: Admin) -> None:
    """The ingester's role stores whole batches, makes partitions and reads progress."""
    postgres = Postgres(as_role(postgres_dsn, "tallygate_ingest"))
    ledger = PostgresLedger(postgres)
    await admin.execute(
        "insert into tallygate.destination (name, kind, url, types)"
        " values ('hook', 'webhook', 'http://127.0.0.1', '{usage.batch}')"
    )
    crossings = (crossing(), low())
    batch = LedgerBatch((event(2),), crossings, (rejected(),), (span(1, 3),), (burn(),))
    stored = await ledger.persist(batch)
    assert stored == Persisted(events=1, rejected=1, crossings=2, messages=1, burns=1)
    assert [each.seen for each in await ledger.progress()] == [3]
    async with postgres.connection() as lent:
        assert await lent.fetchval("select current_user") == "tallygate_ingest"
    await postgres.close()


async def test_nobody_edits_the_books(admin: Admin) -> None:
    """Grants, postings and the audit of resets are refused every edit, a superuser's too."""
    await admin.execute(
        "insert into tallygate.credit_balance values ('acme', 'credits', 1);"
        "insert into tallygate.credit_grant values"
        " ('acme', 'credits', 1, 'g', 5, 0, now(), null, '', '', now());"
        "insert into tallygate.credit_posting"
        " (tenant_id, limit_id, kind, from_account, to_account, amount, happened_at)"
        " values ('acme', 'credits', 'grant', 'issued', 'grant:1', 5, now());"
        "insert into tallygate.limit_reset values"
        " ('acme', 'op', 'daily', '', 5, 0, 'why', 'who', now())"
    )
    for table in ("credit_grant", "credit_posting", "limit_reset"):
        for statement in (
            f"update tallygate.{table} set tenant_id = 'x'",
            f"delete from tallygate.{table}",
            f"truncate tallygate.{table} cascade",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await admin.execute(statement)
        for role in ("tallygate_ingest", "tallygate_relay", "tallygate_control", "tallygate_read"):
            for right in ("update", "delete", "truncate"):
                assert not await admin.fetchval(
                    "select has_table_privilege($1, $2, $3)", role, f"tallygate.{table}", right
                )


@pytest.mark.parametrize(
    "values",
    [
        "'burn', 'grant:1', 'grant:1', 5, '1-1'",
        "'burn', 'grant:1', 'used', 0, '1-1'",
        "'burn', 'grant:1', 'used', -5, '1-1'",
        "'burn', 'grant:0', 'used', 5, '1-1'",
        "'burn', 'grant:1', 'elsewhere', 5, '1-1'",
        "'burn', 'grant:1', 'used', 5, ''",
        "'grant', 'issued', 'grant:1', 5, '1-1'",
        "'gift', 'issued', 'grant:1', 5, ''",
    ],
)
async def test_postings_that_do_not_balance_are_refused(admin: Admin, values: str) -> None:
    """A row moves units from one account that there is to another, and says where it came from."""
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute(
            "insert into tallygate.credit_posting (tenant_id, limit_id, kind, from_account,"
            f" to_account, amount, entry_id, happened_at) select 'a', 'b', {values}, now()"
        )
    assert await admin.fetchval("select count(*) from tallygate.credit_account") == 0


async def test_control_role_can_do_its_work(postgres_dsn: str, admin: Admin) -> None:
    """The control's role grants, marks, expires and audits; it cannot touch accounts itself."""
    postgres = Postgres(as_role(postgres_dsn, "tallygate_control"))
    credits_ = PostgresCreditLedger(postgres)
    await admin.execute(
        "insert into tallygate.destination (name, kind, url, types)"
        " values ('hook', 'webhook', 'http://127.0.0.1', '{credit.granted}')"
    )
    asked = GrantAsked(TenantId("acme"), LimitId("credits"), GrantId("g"), 5, expires_us=10)
    made, _ = await credits_.grant(asked, 0, 1)
    (state,) = await credits_.balances(("", ""), 1, unpublished=True)
    await credits_.published(replace(state, published_seq=1, published_epoch="e1"))
    assert await credits_.open(made.tenant_id, made.limit_id) == 1
    assert await credits_.expire(20, 10, 20) == 1
    reset = LimitReset(TenantId("acme"), "op", LimitId("daily"), "", 5, 0, "why", "who", 7)
    assert await PostgresResetAudit(postgres).write(reset) == reset
    await postgres.close()
    assert await admin.fetchval("select count(*) from tallygate.delivery") == 1
    for right in ("insert", "update", "delete"):
        for role in ("tallygate_control", "tallygate_ingest"):
            assert not await admin.fetchval(
                "select has_table_privilege($1, 'tallygate.credit_account', $2)", role, right
            )


async def test_refunds_without_their_event_are_listed(postgres_dsn: str) -> None:
    """The view shows a refund until its event has come."""
    postgres = Postgres(postgres_dsn)
    ledger = PostgresLedger(postgres)
    refund = event(2, amount=-1, refund_of=EventId("event-7"))
    await ledger.persist(LedgerBatch((refund,)))
    async with connection(postgres_dsn) as admin:
        orphans = "select event_id, refund_of from tallygate.refund_without_event"
        assert [tuple(row) for row in await admin.fetch(orphans)] == [("event-2", "event-7")]
        await ledger.persist(LedgerBatch((event(7),)))
        assert await admin.fetch(orphans) == []
    await postgres.close()


async def test_months_get_their_partitions(admin: Admin) -> None:
    """The months around today have partitions; events of others lie in the default one."""
    rows = await admin.fetch("select tableoid::regclass::text as leaf from tallygate.usage_event")
    assert [row["leaf"] for row in rows] == [f"tallygate.usage_event_{datetime.now(UTC):%Y%m}"]
    ahead = datetime.now(UTC) + timedelta(days=70)
    assert await admin.fetchval(
        "select to_regclass($1) is not null", f"tallygate.usage_event_{ahead:%Y%m}"
    )
    assert (
        await admin.fetchval("select tallygate.ensure_partitions(current_date, current_date)") == 0
    )


async def test_event_of_any_time_is_stored(postgres_dsn: str, admin: Admin) -> None:
    """A month without a partition is no reason to refuse, and then stays in the default one."""
    postgres = Postgres(postgres_dsn)
    stored = await PostgresLedger(postgres).persist(LedgerBatch((event(9, event_time_us=1),)))
    assert stored.events == 1
    await postgres.close()
    made = await admin.fetchval("select tallygate.ensure_partitions('1970-01-01', '1970-02-01')")
    assert made == 1


async def test_new_partition_turns_no_event_away(postgres_dsn: str, admin: Admin) -> None:
    """An event that was on its way to the default partition when its month came is stored."""
    postgres = Postgres(postgres_dsn)
    ledger = PostgresLedger(postgres)
    assert (await ledger.persist(LedgerBatch((event(1),)))).duplicates == 1
    long_ago = event(2, event_time_us=86_400_000_000)
    async with admin.transaction():
        made = await admin.fetchval(
            "select tallygate.ensure_partitions('1970-01-01', '1970-01-31')"
        )
        assert made == 1
        storing = asyncio.create_task(ledger.persist(LedgerBatch((long_ago,))))
        await eventually(
            lambda: admin.fetchval(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            ),
            what="an insert that waits for the partition",
        )
    assert (await storing).events == 1
    await postgres.close()
    leaf = await admin.fetchval(
        "select tableoid::regclass::text from tallygate.usage_event where event_id = 'event-2'"
    )
    assert leaf == "tallygate.usage_event_197001"


async def test_nobody_edits_intents(admin: Admin) -> None:
    """What Stripe was to be told is refused every edit, a superuser's too."""
    await admin.execute(
        "insert into tallygate.stripe_intent (destination, tenant_id, customer, meter, dimensions,"
        " window_start, window_end, period_start, period_end, seq, kind, quantity, value,"
        " event_name, sent_as_of, identifier, idempotency_key, details) values ('s', 'acme', 'c',"
        " 'm', '{}', 'epoch', 'epoch'::timestamptz + '1 h', 'epoch', 'epoch'::timestamptz + '1 d',"
        " 1, 'delta', 5, '5', 'e', 'epoch', 'i', 'k', '{}')"
    )
    for statement in (
        "update tallygate.stripe_intent set quantity = 6",
        "delete from tallygate.stripe_intent",
        "truncate tallygate.stripe_intent cascade",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await admin.execute(statement)
    await admin.execute("insert into tallygate.stripe_invoice values ('s', 1, 2)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await admin.execute("delete from tallygate.stripe_invoice")
    for table in ("tallygate.stripe_intent", "tallygate.stripe_invoice"):
        for role in ("tallygate_ingest", "tallygate_relay", "tallygate_control", "tallygate_read"):
            for right in ("update", "delete", "truncate"):
                assert not await admin.fetchval(
                    "select has_table_privilege($1, $2, $3)", role, table, right
                )
