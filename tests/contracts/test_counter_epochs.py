"""Epochs and lives of real counters: what changes when they are lost or start anew."""

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterEpochs

SHARDS = 3


async def test_an_epoch_lasts_until_it_is_lost(redis_url: str) -> None:
    """Every shard has an epoch, which stays; one whose counters are lost gets another."""
    client = connect(redis_url, 5_000)
    epochs = RedisCounterEpochs(client, SHARDS)
    first = await epochs.epochs()
    assert sorted(first) == list(range(SHARDS))
    assert len(set(first.values())) == SHARDS
    assert await epochs.epochs() == first
    await client.delete(keys.meta(1))
    second = await epochs.epochs()
    assert [shard for shard in first if first[shard] != second[shard]] == [1]
    await client.aclose()


async def test_a_restart_is_another_life(own_redis: EmbeddedRedis) -> None:
    """The life stays while the server runs, and is another after it has started anew."""
    client = connect(own_redis.url, 5_000)
    epochs = RedisCounterEpochs(client, SHARDS)
    first = await epochs.life()
    assert await epochs.life() == first
    await own_redis.stop()
    await own_redis.start()
    assert await epochs.life() != first
    await client.aclose()
