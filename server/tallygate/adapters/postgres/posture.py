"""How a Postgres is set up as a ledger needs it, and what its login may do.

Guarantees: it reads alone, in one statement; what a login may not see is told as a fault of its
rights, not of the server.
Refuses to know: what to do about it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query


@dataclass(frozen=True, slots=True)
class PostgresPosture:
    """What a server says of itself. `checks` are by name, true where it is as it should be.

    `roles` are those of ours that the login is a member of, without their prefix; `skew_s` is how
    far the server's clock is from ours; `catalog` is the version in effect, 0 for none.
    """

    login: str
    superuser: bool
    may_edit: bool
    roles: Sequence[str]
    skew_s: float
    checks: dict[str, bool]
    catalog: int


async def read_posture(postgres: Postgres) -> PostgresPosture:
    """Ask a server that has the schema. Raises `BackendUnavailable` and `StorageFault`."""
    async with postgres.connection() as connection:
        began = time.time()
        row = await connection.fetchrow(query("posture"))
        # It read its clock somewhere between: the nearest of it is what is told.
        ended = time.time()
    assert row is not None
    skew_s = max(began - row["now_s"], row["now_s"] - ended, 0.0)
    checks = ("is_primary", "writable", "durable", "commits", "confirmed")
    return PostgresPosture(
        row["login"],
        row["superuser"],
        row["may_edit"],
        tuple(row["roles"]),
        skew_s,
        {name: row[name] for name in checks},
        row["catalog"] or 0,
    )
