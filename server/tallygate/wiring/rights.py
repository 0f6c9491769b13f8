"""What each process may do in Redis and Postgres, as scripts for whoever runs these servers.

Guarantees: what is printed is what the tests run the product under; it has no password.
Refuses to know: servers.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Final

from tallygate.adapters.redis import acl

REDIS_ROLES: Final = tuple(acl.USERS)


def acl_lines(passwords: Mapping[str, str], version: str) -> list[str]:
    """Return a line of an ACL file for each role that has a password. Raises `InvalidField`."""
    major = int(version.partition(".")[0])
    return [acl.line(role, passwords[role], major=major) for role in acl.USERS if role in passwords]


def postgres_script() -> str:
    """Return the script that makes the roles of Postgres and grants their rights."""
    folder = resources.files("tallygate.adapters.postgres")
    return folder.joinpath("roles.sql").read_text(encoding="utf-8")
