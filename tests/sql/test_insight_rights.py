"""What was found and told stays as it is; control may add to it, and nobody may change it."""

import asyncpg
import pytest

from tallygate.adapters.postgres.migrate import apply_roles
from tests.servers import connection

FOUND = {
    "usage_anomaly": "('acme', 'requests', now(), 'high', 'rolling', 1, 1, 1, 1, 1, 1, false)",
    "reconciliation": "('run', 'acme', 'requests', now(), now() + interval '1 day', 'exact',"
    " '[]', '[]')",
    "reconcile_drift": "('acme', 'requests', now(), 'rollup', 1, 'run')",
}
LEARNED = ("anomaly_series", "anomaly_season")


@pytest.mark.parametrize("table", FOUND)
async def test_nobody_edits_what_was_found(table: str, postgres_dsn: str) -> None:
    """Even a superuser's edit is refused by name."""
    async with connection(postgres_dsn) as admin:
        await admin.execute(f"insert into tallygate.{table} values {FOUND[table]}")
        for statement in (
            f"update tallygate.{table} set tenant_id = 'x'",
            f"delete from tallygate.{table}",
            f"truncate tallygate.{table}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await admin.execute(statement)


async def test_rights_are_the_least(postgres_dsn: str) -> None:
    """Control adds findings and forgets series; other roles read at most, readers everything."""
    await apply_roles(postgres_dsn)
    wanted = {
        **{(table, "insert"): {"tallygate_control"} for table in (*FOUND, "reconcile_run")},
        **{(table, "update"): set[str]() for table in FOUND},
        **{(table, "delete"): set[str]() for table in (*FOUND, "reconcile_run")},
        ("reconcile_run", "update"): {"tallygate_control"},
        **{
            (table, right): {"tallygate_control"}
            for table in LEARNED
            for right in ("insert", "update", "delete")
        },
        **{
            (table, "select"): {"tallygate_control", "tallygate_read"}
            for table in (*FOUND, *LEARNED, "reconcile_run")
        },
    }
    roles = [f"tallygate_{name}" for name in ("ingest", "relay", "control", "read")]
    async with connection(postgres_dsn) as admin:
        for (table, right), allowed in wanted.items():
            having = {
                role
                for role in roles
                if await admin.fetchval(
                    "select has_table_privilege($1, $2, $3)", role, f"tallygate.{table}", right
                )
            }
            assert having == allowed, (table, right)
