"""Embedded servers: a Redis and a Postgres, run as child processes for trying out and for tests.

Owns starting, stopping and recovering the two servers in a folder that survives restarts.
Guarantees: one owner per folder; a start that fails says why with the server's last log lines;
no server outlives its owner. Refuses to know what is stored in them.
"""

from tallygate.adapters.embedded.errors import (
    BinaryMissing,
    EmbeddedServerError,
    FolderInUse,
    FolderUnusable,
    StartFailed,
)
from tallygate.adapters.embedded.postgres import EmbeddedPostgres
from tallygate.adapters.embedded.redis import EmbeddedRedis

BANNER = (
    "Embedded Redis and Postgres are for trying out and for tests. The bundled Redis 6.2 lacks"
    " security fixes made since 2023: keep untrusted clients away from it, and run your own"
    " servers in production (TALLYGATE_REDIS_URL, TALLYGATE_POSTGRES_DSN)."
)
"""Shown once by whatever starts embedded servers for a person."""

__all__ = [
    "BANNER",
    "BinaryMissing",
    "EmbeddedPostgres",
    "EmbeddedRedis",
    "EmbeddedServerError",
    "FolderInUse",
    "FolderUnusable",
    "StartFailed",
]
