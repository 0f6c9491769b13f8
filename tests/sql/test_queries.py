"""Every named query is one that the schema can run, and says what it is for."""

import re

import asyncpg
import pytest

from tallygate.adapters.postgres.queries import names, query
from tests.servers import connection


async def test_queries_prepare(read_postgres_dsn: str) -> None:
    """Each query is one statement that the migrated schema accepts."""
    faults = {}
    # On one connection, as each has to learn the schema first.
    async with connection(read_postgres_dsn) as admin:
        for name in names():
            try:
                await admin.prepare(query(name))
            except asyncpg.PostgresError as error:
                faults[name] = str(error)
    assert faults == {}


@pytest.mark.parametrize("name", names())
def test_query_says_its_purpose(name: str) -> None:
    """The first line is a comment of one sentence."""
    assert re.match(r"-- [A-Z].*[.;:,\w]\n", query(name))


def test_every_query_file_is_found() -> None:
    """The loader finds the files it is meant to find."""
    assert "ledger_insert_keys" in names()
