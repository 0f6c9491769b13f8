"""What `tallygate doctor` asks of servers and disks beside whether they answer.

Guarantees: nothing is changed, and no connection outlives its question.
Refuses to know: which answers are good.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from tallygate.adapters.postgres import posture
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.posture import PostgresPosture
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher
from tallygate.adapters.redis.client import connect, translate

__all__ = [
    "DiskFacts",
    "PostgresPosture",
    "StreamFacts",
    "disk_facts",
    "postgres_facts",
    "stream_facts",
]

TIMEOUT_MS: Final = 3_000
FOLDER: Final = "journal"


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A process's folder: whether it can be written, what the journal has, what is free."""

    writable: bool
    journal_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What sidecars are given: the catalog's version, and the entries of the fullest stream."""

    version: int
    deepest: int


async def postgres_facts(dsn: str) -> PostgresPosture:
    """Ask a Postgres about itself. Raises `BackendUnavailable` and `StorageFault`."""
    postgres = Postgres(dsn, PoolOptions(statement_timeout_ms=TIMEOUT_MS))
    try:
        return await posture.read_posture(postgres)
    finally:
        await postgres.close()


async def stream_facts(url: str, shards: int) -> StreamFacts:
    """Ask a Redis what it has for us. Raises `BackendUnavailable` where it does not answer."""
    client = connect(url, TIMEOUT_MS)
    try:
        version = await RedisCatalogPublisher(client).published_version()
        depths = [int(await client.xlen(keys.stream(shard))) for shard in range(shards)]
        return StreamFacts(version, max(depths, default=0))
    except (RedisError, OSError) as error:
        raise translate(error) from error
    finally:
        await client.aclose()


def disk_facts(folder: Path) -> DiskFacts | None:
    """Look at a process's folder; None where there is none on this machine."""
    if not folder.is_dir():
        return None
    taken = sum(each.stat().st_size for each in (folder / FOLDER).rglob("*") if each.is_file())
    writable = os.access(folder, os.W_OK | os.X_OK)
    return DiskFacts(writable, taken, shutil.disk_usage(folder).free)
