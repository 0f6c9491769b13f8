"""Code of the version before goes on while the schema is that of the next: migrations only add."""

import pytest

from tallygate.adapters.postgres import migrate as module
from tallygate.adapters.postgres.migrate import migrate
from tests.servers import connection

NAMES = [migration.name for migration in module.migrations()]
# Keys by which rows are found or merged have stayed since this one.
STABLE_SINCE = "0004"
COLUMNS = """
    select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod) as type,
        a.attnotnull and not a.atthasdef and a.attidentity = '' as must_be_given
    from pg_attribute a join pg_class c on c.oid = a.attrelid
    where c.relnamespace = 'tallygate'::regnamespace and c.relkind in ('r', 'p', 'v')
        and a.attnum > 0 and not a.attisdropped
"""
KEYS = """
    select conrelid::regclass::text as relation, pg_get_constraintdef(oid) as definition
    from pg_constraint
    where connamespace = 'tallygate'::regnamespace and contype in ('p', 'u')
"""


async def rows(dsn: str, query: str) -> set[tuple[object, ...]]:
    """Return what a query finds."""
    async with connection(dsn) as admin:
        return {tuple(row) for row in await admin.fetch(query)}


@pytest.mark.parametrize("last", NAMES[:-1])
async def test_what_older_code_names_stays(
    empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Each column stays with its type, and no column comes that older code would have to give."""
    own = module.migrations()
    monkeypatch.setattr(module, "migrations", lambda: [each for each in own if each.name <= last])
    await migrate(empty_postgres_dsn)
    monkeypatch.undo()
    columns, keys = await rows(empty_postgres_dsn, COLUMNS), await rows(empty_postgres_dsn, KEYS)
    await migrate(empty_postgres_dsn)
    later = await rows(empty_postgres_dsn, COLUMNS)
    assert {each[:3] for each in columns} <= {each[:3] for each in later}
    tables = {table for table, *_ in columns}
    given = {each[:2] for each in columns if each[3]}
    assert {each[:2] for each in later if each[3] and each[0] in tables} <= given
    if last >= STABLE_SINCE:
        assert keys <= await rows(empty_postgres_dsn, KEYS)
