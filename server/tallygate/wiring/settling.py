"""What settling lost numbers is put together with.

Guarantees: nothing here outlives its `async with`.
Refuses to know: who asks, and why.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.seen import RedisSeenNumbers
from tallygate.flow.completeness import SilentCompleteness
from tallygate.flow.settle_numbers import SettleNumbers, SettleParts
from tallygate.settings import Settings
from tallygate.wiring.auditing import REDIS_TIMEOUT_MS, completeness_of, postgres_of


@asynccontextmanager
async def settling(settings: Settings) -> AsyncIterator[SettleNumbers]:
    """Lend what settles the numbers of an installation, whose Redis and Postgres must be set."""
    assert settings.redis_url is not None
    async with AsyncExitStack() as stack:
        postgres = postgres_of(settings)
        stack.push_async_callback(postgres.close)
        client = connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_MS)
        stack.push_async_callback(client.aclose)
        yield SettleNumbers(
            SettleParts(
                completeness_of(postgres, client, settings.shards, SilentCompleteness()),
                RedisCounterStages(client, settings.shards),
                RedisSeenNumbers(client),
            )
        )
