"""Counters, holds and records of tenants, carried from one shard's keys to another's.

Guarantees: from the first step on nothing is debited for the tenant in either shard; what was there
is then written as it is, once, and only after that may be debited in the new shard. Every step may
be repeated, and be made by several processes at once. While counters of either shard are being
rebuilt nobody moves: what is not whole yet could not be carried whole.
Refuses to know: families and catalogs.

The keys of a tenant are found by one pass over all of Redis's keys, for all that move together,
during which these tenants, and only they, are unavailable. Measured on a busy machine of two cores:
2.4 s per million keys, and 0.16 s per 1,000 keys that are carried.
"""

from collections import defaultdict
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys, layout
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.records import with_shares_of
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import AccountId, TenantId, tenant_of
from tallygate.ports.carry import Move
from tallygate.ports.epochs import Stage

# A sidecar that has heard of no catalog for so long is not believed to come back.
KEPT_MS: Final = 30 * 86_400_000
SCAN_COUNT: Final = 1_000
# A script runs alone: so many small keys keep others waiting for under 2 ms.
COPIED_TOGETHER_MAX: Final = 100
# Marks are small: this many take one round trip.
MARKED_TOGETHER_MAX: Final = 500
# Left behind, holds would give their units back a second time to a tenant that returns. All else is
# read a moment longer by sidecars that have not heard of the move, and is written over then.
_DROPPED: Final = b"h"
OPEN: Final = Stage.OPEN.value.encode()


@dataclass(frozen=True, slots=True)
class _Copy:
    """A key under its old name, how it is written, the ms left to live, and its content."""

    name: bytes
    form: bytes
    left_ms: int
    content: bytes


class RedisCounterCarrier:
    """The `CounterCarrier` port."""

    def __init__(self, client: Redis, *, opens_new: bool = True) -> None:
        self._client = client
        # As of the stores: with it nobody rebuilds counters.
        self._opens_new = opens_new
        folder = resources.files("tallygate.adapters.redis.lua")
        self._script: Final = folder.joinpath("carry.lua").read_text()

    async def carry(self, moves: Sequence[Move], version: int) -> int:
        """Carry what belongs to the tenants; return how many keys were written. See the port."""
        try:
            epochs = await self._whole(moves)
            # Shut on both sides before anything is read.
            await self._mark(moves, version, "a")
            await self._mark(moves, version, "l")
            by_shard: dict[int, list[Move]] = defaultdict(list)
            for move in moves:
                by_shard[move.from_shard].append(move)
            written = 0
            left: dict[Move, list[bytes]] = defaultdict(list)
            for some in by_shard.values():
                written += await self._copy_all(some, version, epochs, left)
            if await self._whole(moves) != epochs:
                raise BackendUnavailable("counters were lost on their way to another shard")
            await self._mark(moves, version, "d")
            for move, names in left.items():
                await self._drop(move, version, names)
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return written

    async def _whole(self, moves: Sequence[Move]) -> dict[int, str]:
        """Return the epochs of the shards. Raises `BackendUnavailable` where one is not rebuilt."""
        shards = sorted({shard for move in moves for shard in (move.from_shard, move.to_shard)})
        epochs = await layout.agree_on_epochs(self._client, shards, opens=self._opens_new)
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard in shards:
                pipeline.hmget(keys.meta(shard), keys.EPOCH_FIELD, keys.OPEN_FIELD)
            replies: list[list[bytes | None]] = await pipeline.execute()
        for shard, found in zip(shards, replies, strict=True):
            if found != [epochs[shard].encode(), OPEN]:
                raise BackendUnavailable("a shard's counters are being rebuilt")
        return epochs

    async def _mark(self, moves: Sequence[Move], version: int, step: str) -> None:
        for start in range(0, len(moves), MARKED_TOGETHER_MAX):
            async with self._client.pipeline(transaction=False) as pipeline:
                for move in moves[start : start + MARKED_TOGETHER_MAX]:
                    shard = move.from_shard if step == "l" else move.to_shard
                    pipeline.eval(
                        self._script, 1, keys.moves(shard), move.tenant_id, version, step, KEPT_MS
                    )
                await pipeline.execute()

    async def _copy_all(
        self,
        moves: Sequence[Move],
        version: int,
        epochs: Mapping[int, str],
        left: dict[Move, list[bytes]],
    ) -> int:
        shard = moves[0].from_shard
        by_tenant = {move.tenant_id: move for move in moves}
        pattern = (
            keys.of_tenant(shard, epochs[shard], moves[0].tenant_id)
            if len(moves) == 1
            else keys.of_tenants(shard, epochs[shard])
        )
        written, cursor = 0, None
        while cursor != 0:
            cursor, names = await self._client.scan(cursor or 0, match=pattern, count=SCAN_COUNT)
            mine: dict[Move, list[bytes]] = defaultdict(list)
            for name in cast(list[bytes], names):
                move = by_tenant.get(keys.owner(name) or TenantId(""))
                if move is not None:
                    mine[move].append(name)
                    if keys.kind(name) == _DROPPED:
                        left[move].append(name)
            for move, some in mine.items():
                for part in _parts(some):
                    copies = await self._read(move, part, by_tenant)
                    written += await self._write(move, version, copies, epochs[move.to_shard])
        return written

    async def _read(
        self, move: Move, names: Sequence[bytes], moves: dict[TenantId, Move]
    ) -> list[_Copy]:
        def goes_along(account: AccountId) -> bool:
            other = moves.get(tenant_of(account))
            return other is not None and other.to_shard == move.to_shard

        copies: list[_Copy] = []
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.pttl(name)
                if keys.kind(name) == b"r":
                    pipeline.get(name)
                else:
                    pipeline.dump(name)
            replies = await pipeline.execute()
        for place, name in enumerate(names):
            left_ms, content = replies[2 * place], replies[2 * place + 1]
            if content is None or left_ms == -2:
                continue
            if keys.kind(name) == b"r":
                # What it holds of those who stay comes back to them when it would have ended.
                held = with_shares_of(content, goes_along)
                copies.append(_Copy(name, b"s", max(1, left_ms), held))
            else:
                copies.append(_Copy(name, b"d", 0 if left_ms == -1 else max(1, left_ms), content))
        return copies

    async def _write(self, move: Move, version: int, copies: Sequence[_Copy], epoch: str) -> int:
        targets = [keys.in_shard(copy.name, move.to_shard, epoch) for copy in copies]
        arguments: list[str | bytes | int] = [move.tenant_id, version, "c"]
        for copy in copies:
            arguments += [copy.form, copy.left_ms, copy.content]
        return await self._eval([keys.moves(move.to_shard).encode(), *targets], arguments)

    async def _drop(self, move: Move, version: int, names: Sequence[bytes]) -> None:
        for part in _parts(names):
            marks = keys.moves(move.from_shard).encode()
            await self._eval([marks, *part], [move.tenant_id, version, "x"])

    async def _eval(self, names: Sequence[bytes], arguments: Sequence[str | bytes | int]) -> int:
        answer = self._client.eval(self._script, len(names), *names, *arguments)
        return int(await cast(Awaitable[int], answer))


def _parts(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(names), COPIED_TOGETHER_MAX):
        yield names[start : start + COPIED_TOGETHER_MAX]
