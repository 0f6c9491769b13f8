"""What replays are put together with.

Guarantees: nothing here outlives its `async with`.
Refuses to know: what is made again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.replays import PostgresMessageReplay, PostgresRollupRecompute
from tallygate.ports.recompute import RollupRecompute
from tallygate.ports.redeliver import MessageReplay
from tallygate.settings import Settings


@dataclass(frozen=True, slots=True)
class Replays:
    """What can be made again: rollups, one after the other, and deliveries."""

    rollups: Sequence[RollupRecompute]
    messages: MessageReplay


@asynccontextmanager
async def replaying(settings: Settings) -> AsyncIterator[Replays]:
    """Lend what makes again what was made of the ledger."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(connections_max=1, connect_timeout_ms=settings.postgres_connect_timeout_ms),
    )
    try:
        yield Replays((PostgresRollupRecompute(postgres),), PostgresMessageReplay(postgres))
    finally:
        await postgres.close()
