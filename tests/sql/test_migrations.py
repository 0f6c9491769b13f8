"""Migrations make the schema that `schema*.sql` say, each once, whoever runs them."""

import asyncio
from importlib import resources

import pytest

from tallygate.adapters.postgres import migrate as module
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import Migration, MigrationRefused, migrate, pending
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.errors import BackendUnavailable, StorageFault
from tallygate.ports import LedgerBatch, UnstorableBatch
from tests.servers import connection
from tests.usage_events import event

NAMES = [migration.name for migration in module.migrations()]

# What makes a schema, as the catalogs have it: any difference is one of these rows.
CATALOGS = {
    "relations": """
        select relname, relkind, relpersistence, reloptions,
            pg_get_expr(relpartbound, oid) as bound, pg_get_partkeydef(oid) as partition_key,
            obj_description(oid, 'pg_class') as comment
        from pg_class where relnamespace = 'tallygate'::regnamespace
    """,
    "columns": """
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull,
            a.attidentity, a.attgenerated, l.collname, pg_get_expr(d.adbin, d.adrelid) as otherwise,
            row_number() over (partition by c.oid order by a.attnum) as place,
            col_description(c.oid, a.attnum) as comment
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        left join pg_collation l on l.oid = a.attcollation
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace = 'tallygate'::regnamespace and a.attnum > 0 and not a.attisdropped
    """,
    "constraints": """
        select conrelid::regclass::text as relation, conname, convalidated,
            pg_get_constraintdef(oid) as definition
        from pg_constraint where connamespace = 'tallygate'::regnamespace
    """,
    "indexes": """
        select tablename, indexname, indexdef from pg_indexes where schemaname = 'tallygate'
    """,
    "triggers": """
        select tgrelid::regclass::text as relation, tgname, tgenabled, pg_get_triggerdef(t.oid)
        from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = 'tallygate'::regnamespace and not tgisinternal
    """,
    "views": """
        select viewname, definition from pg_views where schemaname = 'tallygate'
    """,
    "functions": """
        select proname, pg_get_functiondef(oid) as definition, proacl::text,
            obj_description(oid, 'pg_proc') as comment
        from pg_proc where pronamespace = 'tallygate'::regnamespace
    """,
    "inheritance": """
        select inhrelid::regclass::text as part, inhparent::regclass::text as whole from pg_inherits
        where inhrelid::regclass::text like 'tallygate.%'
    """,
}
PARTS = (
    *("schema.sql", "schema_rollups.sql", "schema_meters.sql", "schema_remake.sql"),
    *("schema_credits.sql", "schema_counters.sql", "schema_periods.sql", "schema_frozen.sql"),
    "schema_invoices.sql",
    *("schema_audit.sql", "schema_insight.sql", "schema_stripe.sql"),
    *("schema_invoicing.sql",),
    *("schema_reconcile.sql", "schema_traces.sql"),
)
OWN_TABLE = "schema_migration"
# The columns that code without refunds names.
OLD_EVENT = (
    "tenant_id, event_id, meter, amount, event_time, received_at, operation_id, source_id,"
    " source_lane, source_seq, counter_epoch, schema_version, subject_id, resource_id, session_id,"
    " region, sku, correlation_id, sdk, dimensions, metadata"
)


async def catalogs(dsn: str) -> dict[str, list[str]]:
    """Return the rows of every catalog but those of the migrations' own table, sorted."""
    async with connection(dsn) as admin:
        return {
            name: sorted(
                str(tuple(row)) for row in await admin.fetch(query) if OWN_TABLE not in str(row)
            )
            for name, query in CATALOGS.items()
        }


async def test_migrations_make_the_schema(empty_postgres_dsn: str, postgres_dsn: str) -> None:
    """All migrations together give what the schema's files give, by the database's own catalogs."""
    package = resources.files(module.__package__ or "")
    async with connection(empty_postgres_dsn) as admin:
        for part in PARTS:
            await admin.execute(package.joinpath(part).read_text())
    wanted = await catalogs(empty_postgres_dsn)
    made = await catalogs(postgres_dsn)
    assert len(wanted["columns"]) > 100
    for name in CATALOGS:
        assert made[name] == wanted[name], name


async def test_each_migration_runs_once(empty_postgres_dsn: str) -> None:
    """The first run applies all, in order; the next finds nothing to do."""
    assert await pending(empty_postgres_dsn) == NAMES
    assert await migrate(empty_postgres_dsn) == NAMES
    assert await pending(empty_postgres_dsn) == []
    assert await migrate(empty_postgres_dsn) == []


async def test_credits_come_to_a_ledger_in_use(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events and crossings from before stay, and what old code writes is taken still."""
    own = module.migrations()
    before = [each for each in own if each.name < "0004"]
    monkeypatch.setattr(module, "migrations", lambda: before)
    await migrate(empty_postgres_dsn)
    monkeypatch.undo()
    insert = (
        "insert into tallygate.usage_event select 'acme', '{0}', 'requests', 5, now(), now(), 'op',"
        " 's', 0, 1, 'e', 1, '', '', '', '', '', '', '', '{{}}'::jsonb, null;"
        "insert into tallygate.threshold_crossing values"
        " ('acme', '{0}', now(), 800000, 'requests', 80, 81, 100, now(), now())"
    )
    old = insert.replace("usage_event select", f"usage_event ({OLD_EVENT}) select")
    async with connection(empty_postgres_dsn) as admin:
        await admin.execute(old.format("before"))
        await migrate(empty_postgres_dsn)
        await admin.execute(old.format("after"))
        rows = await admin.fetch("select refund_of, reservation_id from tallygate.usage_event")
        assert [tuple(row) for row in rows] == [("", "")] * 2
        scopes = await admin.fetch("select scope from tallygate.threshold_crossing")
        assert [row["scope"] for row in scopes] == ["", ""]


async def test_two_runs_at_once_share_the_work(empty_postgres_dsn: str) -> None:
    """One of two applies the migrations; the other waits and finds them applied."""
    runs = await asyncio.gather(*(migrate(empty_postgres_dsn) for _ in range(4)))
    assert sorted(len(run) for run in runs) == [0, 0, 0, len(NAMES)]


async def test_interrupted_run_goes_on(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that fails leaves nothing of itself, and those before it stay."""
    own = module.migrations()
    broken = Migration(own[1].name, own[1].text + ";\nselect 1 / 0;")
    monkeypatch.setattr(module, "migrations", lambda: [own[0], broken, *own[2:]])
    with pytest.raises(UnstorableBatch, match="DivisionByZero"):
        await migrate(empty_postgres_dsn)
    monkeypatch.undo()
    assert await pending(empty_postgres_dsn) == NAMES[1:]
    assert await migrate(empty_postgres_dsn) == NAMES[1:]


async def test_changed_migration_is_refused(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not the one that was applied stops everything."""
    own = module.migrations()
    edited = Migration(own[0].name, own[0].text + "-- edited")
    monkeypatch.setattr(module, "migrations", lambda: [edited, *own[1:]])
    with pytest.raises(MigrationRefused, match=own[0].name):
        await migrate(postgres_dsn)
    with pytest.raises(MigrationRefused, match=own[0].name):
        await pending(postgres_dsn)


async def test_newer_database_is_refused(postgres_dsn: str) -> None:
    """A database with a migration that this code does not know is not touched."""
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.schema_migration (name, checksum) values ('9999_later', 'x')"
        )
    with pytest.raises(MigrationRefused, match="9999_later"):
        await migrate(postgres_dsn)


async def test_unreachable_postgres_is_named() -> None:
    """Where Postgres was looked for stays untold."""
    with pytest.raises(BackendUnavailable) as raised:
        await migrate("postgresql://someone:secret@127.0.0.1:1/none")
    assert "secret" not in str(raised.value)


async def test_missing_schema_is_told(empty_postgres_dsn: str) -> None:
    """A ledger on a database without the schema says what to run."""
    postgres = Postgres(empty_postgres_dsn)
    with pytest.raises(StorageFault, match="tallygate migrate"):
        await PostgresLedger(postgres).persist(LedgerBatch((event(1),)))
    await postgres.close()
