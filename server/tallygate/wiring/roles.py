"""What processes can be, and what each needs.

Guarantees: a process that lacks a setting is refused before it starts, naming the setting.
Refuses to know: how roles are filled.
"""

from enum import StrEnum
from typing import Final

from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings

ADMIN: Final = "tallygate.v1.AdminService"


class Role(StrEnum):
    """What a process does; one can do several."""

    SERVE = "serve"
    INGEST = "ingest"
    RELAY = "relay"
    CONTROL = "control"


class RoleUnmet(TallygateError):
    """A role lacks a setting that it needs."""

    reason = "INVALID_FIELD"


def check_roles(settings: Settings, roles: frozenset[Role]) -> None:
    """Raise `RoleUnmet` naming the setting that a role lacks."""
    if settings.redis_url is None and roles & {Role.SERVE, Role.INGEST, Role.CONTROL}:
        raise RoleUnmet("TALLYGATE_REDIS_URL is required", field="redis_url")
    if settings.postgres_dsn is None and roles & {Role.INGEST, Role.RELAY, Role.CONTROL}:
        raise RoleUnmet("TALLYGATE_POSTGRES_DSN is required", field="postgres_dsn")
