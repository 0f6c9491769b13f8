"""What a Postgres says of itself, and of its login, to whoever looks for what is wrong."""

from dataclasses import replace

import pytest

from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.posture import PostgresPosture, read_posture
from tallygate.commands.doctor_depth import of_postgres
from tests.sql.test_append_only import as_role

GOOD = PostgresPosture(
    login="app",
    superuser=False,
    may_edit=False,
    roles=("ingest",),
    skew_s=0.0,
    checks=dict.fromkeys(("is_primary", "writable", "durable", "commits", "confirmed"), True),
    catalog=1,
)


async def posture_of(dsn: str) -> PostgresPosture:
    """Return what a login is told."""
    postgres = Postgres(dsn)
    try:
        return await read_posture(postgres)
    finally:
        await postgres.close()


async def test_the_owner_is_told_apart_from_a_role(postgres_dsn: str) -> None:
    """A superuser is seen as one; a process's role may not edit events, and is named."""
    await apply_roles(postgres_dsn)
    owner = await posture_of(postgres_dsn)
    assert (owner.superuser, owner.may_edit, owner.catalog) == (True, True, 0)
    assert owner.checks["is_primary"]
    assert not owner.checks["confirmed"]
    assert owner.skew_s < 0.5
    for role in ("ingest", "relay", "control", "read", "operator"):
        told = await posture_of(as_role(postgres_dsn, f"tallygate_{role}"))
        assert (told.superuser, told.may_edit) == (False, False), role
        assert role in told.roles


FAULTS = [
    (GOOD, "postgres rights", "ok"),
    (replace(GOOD, superuser=True), "postgres rights", "advised"),
    (replace(GOOD, may_edit=True), "postgres rights", "advised"),
    (replace(GOOD, roles=()), "postgres rights", "wrong"),
    (replace(GOOD, skew_s=0.7), "postgres clock", "wrong"),
    (replace(GOOD, checks={"confirmed": False}), "postgres confirmed", "advised"),
    (replace(GOOD, checks={"durable": False}), "postgres durable", "wrong"),
    (replace(GOOD, checks={"is_primary": False}), "postgres is_primary", "wrong"),
]


@pytest.mark.parametrize(("facts", "check", "state"), FAULTS)
def test_each_fault_is_found(facts: PostgresPosture, check: str, state: str) -> None:
    """Each part of a posture has its finding, which says something where it is not well."""
    findings = {each.check: each for each in of_postgres(facts)}
    assert findings[check].state == state
    assert findings[check].detail or state == "ok"
