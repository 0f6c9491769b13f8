"""The epochs of the shards' counters, as Redis holds them.

Guarantees: every shard has an epoch; that of one which was lost is made anew, by whoever is first.
Of many who renew an epoch, or bring it to a stage, one does.
Refuses to know: what was counted in an epoch, and what makes it whole.
"""

from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys, layout
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.wire import primaries
from tallygate.domain.ids import SourceId, epoch_of
from tallygate.ports.epochs import ShardState, Stage


class RedisCounterEpochs:
    """The `CounterEpochs` port."""

    def __init__(self, client: Redis, shards: int) -> None:
        self._client = client
        self._shards = shards

    async def life(self) -> str:
        """Return the servers' run ids, which are others after each start and each failover."""
        try:
            servers = [await each.info("server") for each in await primaries(self._client)]
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return "+".join(sorted(str(server["run_id"]) for server in servers))

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch of each shard. Raises `LayoutDiffers` for another number of shards."""
        try:
            await layout.agree_on_shards(self._client, self._shards)
            return await layout.agree_on_epochs(self._client, list(range(self._shards)))
        except (RedisError, OSError) as error:
            raise translate(error) from error


class RedisCounterStages(RedisCounterEpochs):
    """The `CounterStages` port."""

    async def states(self) -> Sequence[ShardState]:
        """Return the state of each shard. Raises `LayoutDiffers` for another number of shards."""
        await self.epochs()
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in range(self._shards):
                    pipeline.hgetall(keys.meta(shard))
                replies: list[dict[bytes, bytes]] = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return [_state(shard, fields) for shard, fields in enumerate(replies)]

    async def renew(self, shard: int, epoch: str) -> str:
        """Give the shard a new epoch if it has the one named still. See the port."""
        try:
            return await layout.renew_epoch(self._client, shard, epoch)
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def advance(
        self, shard: int, epoch: str, stage: Stage, *, after: Stage | None = None
    ) -> bool:
        """Bring an epoch to a later stage. See the port."""
        try:
            return await layout.advance_epoch(self._client, shard, epoch, stage, after)
        except (RedisError, OSError) as error:
            raise translate(error) from error


def _state(shard: int, fields: Mapping[bytes, bytes]) -> ShardState:
    epoch = fields.get(keys.EPOCH_FIELD, b"").decode()
    numbers = {
        SourceId(name.decode()): int(last)
        for name, last in fields.items()
        if name not in keys.META_FIELDS
    }
    return ShardState(
        shard,
        epoch,
        # What cannot be read is not trusted.
        _STAGES.get(fields.get(keys.OPEN_FIELD, b"").decode(), Stage.LOST),
        {name: last for name, last in numbers.items() if epoch_of(name) == epoch},
    )


_STAGES = {stage.value: stage for stage in Stage}
