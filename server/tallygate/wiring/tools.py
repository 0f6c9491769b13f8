"""What the command line needs of adapters besides running processes.

Guarantees: nothing here outlives its call or its `async with`.
Refuses to know: how results are shown.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.exceptions import RedisError

from tallygate.adapters.catalog.document import YamlCatalogDocuments, parse
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.embedded import BANNER, EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.migrate import apply_roles, migrate, pending
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.adapters.redis import layout
from tallygate.adapters.redis.client import connect, translate
from tallygate.adapters.redis.posture import read_posture
from tallygate.domain.errors import CatalogInvalid, Fault
from tallygate.flow.remake import KeepRollups
from tallygate.ports import ParsedCatalog
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl

__all__ = [
    "BANNER",
    "RedisFacts",
    "apply_roles",
    "embedded_servers",
    "migrate",
    "now_us",
    "outbox_upkeep",
    "parsed_catalog",
    "pending",
    "read_catalog",
    "recorded",
    "redis_facts",
    "rollup_upkeep",
]

REDIS_TIMEOUT_MS: Final = 3_000
# A rebase rewrites every message that a restored outbox holds.
UPKEEP_TIMEOUT_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a Redis says of itself; `skew_s` is how far its clock is from ours."""

    version: str
    skew_s: float
    posture: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an installation has on record."""

    tenants: PostgresCatalogStore
    usage: PostgresUsageReplay
    credits: PostgresCreditLedger


@asynccontextmanager
async def embedded_servers(settings: Settings) -> AsyncIterator[Settings]:
    """Start an embedded server for each address that is not set; lend the settings with all."""
    found: dict[str, SecretStr] = {}
    async with AsyncExitStack() as stack:
        if settings.redis_url is None:
            redis = await stack.enter_async_context(EmbeddedRedis(settings.data_dir / "redis"))
            found["redis_url"] = SecretUrl(redis.url)
        if settings.postgres_dsn is None:
            folder = settings.data_dir / "postgres"
            postgres = await stack.enter_async_context(EmbeddedPostgres(folder))
            found["postgres_dsn"] = SecretUrl(postgres.dsn)
        yield settings.model_copy(update=found)


def read_catalog(path: Path) -> str:
    """Return a catalog file's text, checked. Raises `CatalogInvalid` with every fault."""
    text = _text_of(path)
    parse(text)
    return text


def parsed_catalog(path: Path) -> ParsedCatalog:
    """Return what a file declares for an installation, whose tenants may be parents of its own.

    Raises `CatalogInvalid` with every fault.
    """
    return YamlCatalogDocuments().parse(_text_of(path))


@asynccontextmanager
async def recorded(dsn: str) -> AsyncIterator[Recorded]:
    """Lend what is on record: tenants as declared, usage, credits."""
    postgres = Postgres(dsn)
    try:
        yield Recorded(
            PostgresCatalogStore(postgres),
            PostgresUsageReplay(postgres),
            PostgresCreditLedger(postgres),
        )
    finally:
        await postgres.close()


@asynccontextmanager
async def outbox_upkeep(dsn: str) -> AsyncIterator[PostgresOutboxUpkeep]:
    """Lend what mends an outbox; its statements may take up to ten minutes each."""
    postgres = Postgres(dsn, PoolOptions(statement_timeout_ms=UPKEEP_TIMEOUT_MS))
    try:
        yield PostgresOutboxUpkeep(postgres)
    finally:
        await postgres.close()


@asynccontextmanager
async def rollup_upkeep(dsn: str) -> AsyncIterator[KeepRollups]:
    """Lend what makes rollups of groups anew."""
    postgres = Postgres(dsn)
    try:
        yield KeepRollups(PostgresRollups(postgres), PostgresCatalogStore(postgres), SystemClock())
    finally:
        await postgres.close()


def now_us() -> int:
    """Return the time by this machine's clock."""
    return SystemClock().now_us()


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fault = Fault(0, str(path), f"cannot be read: {type(error).__name__}")
        raise CatalogInvalid((fault,)) from None


async def redis_facts(url: str) -> RedisFacts:
    """Ask a Redis about itself. Raises `BackendUnavailable` when it does not answer."""
    client = connect(url, REDIS_TIMEOUT_MS)
    try:
        version = await layout.server_version(client)
        seconds, microseconds = await client.time()
        skew_s = abs(time.time() - seconds - microseconds / 1e6)
        return RedisFacts(version, skew_s, await read_posture(client))
    except (RedisError, OSError) as error:
        raise translate(error) from error
    finally:
        await client.aclose()
