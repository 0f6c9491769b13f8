"""The shards' streams, as one of several consumers of a group reads them.

Guarantees: an entry is given out until it is acknowledged, whoever dies meanwhile; what is trimmed
was acknowledged: only entries below the lowest one that is not, never by length. A group that is
lost with its Redis is made anew from the first entry, so that all of what is left is read.
Refuses to know: what becomes of entries.

New entries of all shards are read by one blocking call on a single Redis or under Sentinel. In a
cluster no call may name keys of several shards: all are asked at once, one call each, and between
two rounds one shard after the other is waited at. Everything else is asked shard by shard anyway.

Entries are taken over with XPENDING and XCLAIM JUSTID and then read, not with XAUTOCLAIM: on 6.2
that answers nothing about an entry which is gone, and its place in the group would stay for ever.
"""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.codec import decode_entry
from tallygate.adapters.redis.wire import Routed
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import SourceId
from tallygate.ports import ShardDepth

DEFAULT_GROUP: Final = "ledger"
# In a cluster, how long one shard is waited at before all are asked again: so much later the ledger
# may hear of an event, for some hundred small commands per second.
TURN_MS: Final = 20

T = TypeVar("T")
# What redis-py has decoded an entry to.
_Raw = tuple[bytes, Mapping[bytes, bytes]]
# Entries by the key of their stream.
_Reply = tuple[bytes, list[_Raw]]


class StreamObserver(Protocol):
    """What the stream tells of itself."""

    def group_recreated(self) -> None:
        """The consumer group was lost, and is made anew from the first entry."""

    def taken_over(self, entries: int) -> None:
        """So many entries were left by another consumer, or by this one before it restarted."""


class SilentStreamObserver:
    """Hears nothing."""

    def group_recreated(self) -> None:
        """Ignore it."""

    def taken_over(self, entries: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams are read, and as whom. Two processes must not share a `consumer`."""

    shards: int
    consumer: str
    group: str = DEFAULT_GROUP


class RedisUsageStream:
    """The `UsageStream` port. The client's timeout must be longer than `read` may block."""

    def __init__(
        self, client: Redis, options: StreamOptions, observer: StreamObserver | None = None
    ) -> None:
        self._client = client
        self._options = options
        self._observer = observer or SilentStreamObserver()
        self._keys = [keys.stream(shard) for shard in range(options.shards)]
        self._shards = {key.encode(): shard for shard, key in enumerate(self._keys)}
        self._group_made = False
        self._resumed = False
        self._turn = 0

    async def read(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Return up to `count` new entries over all shards, waiting at most `block_ms` for one.

        With 0 it does not wait.
        """
        self._resumed = True
        try:
            return await self._healed(lambda: self._read(count, block_ms))
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def claim(self, count: int, idle_ms: int) -> list[StreamEntry]:
        """Take over up to `count` entries that were left unacknowledged for `idle_ms`.

        Before anything is read, those of this consumer's own past come first, however fresh: who
        restarts under its name need not wait for itself. Also trims: a consumer may have died
        between its acknowledgement and its trim.
        """
        try:
            entries: list[StreamEntry] = []
            if not self._resumed:
                entries = await self._healed(lambda: self._claim(count, 0, self._options.consumer))
                self._resumed = not entries
            if not entries:
                entries = await self._healed(lambda: self._claim(count, idle_ms, None))
            await self._trim(range(self._options.shards))
        except (RedisError, OSError) as error:
            raise translate(error) from error
        if entries:
            self._observer.taken_over(len(entries))
        return entries

    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Mark entries as stored, and trim below the lowest that is not stored yet."""
        ids: dict[int, list[str]] = {}
        for entry in entries:
            ids.setdefault(entry.shard, []).append(entry.entry_id)
        if not ids:
            return
        try:
            await self._trim(list(ids), acknowledge=ids)
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def depths(self) -> list[ShardDepth]:
        """Return the depth of every shard."""
        try:
            return await self._healed(self._depths)
        except (RedisError, OSError) as error:
            raise translate(error) from error

    async def accepted(self) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest sequence number given out, per source and lane."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in range(self._options.shards):
                    pipeline.hgetall(keys.meta(shard))
                replies = cast(list[dict[bytes, bytes]], await _executed(pipeline))
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return {
            (SourceId(source.decode()), shard): int(seq)
            for shard, sequences in enumerate(replies)
            for source, seq in sequences.items()
            if source not in keys.META_FIELDS
        }

    async def now_us(self) -> int:
        """Return the server's time."""
        try:
            seconds, microseconds = await self._client.time()
        except (RedisError, OSError) as error:
            raise translate(error) from error
        return int(seconds) * 1_000_000 + int(microseconds)

    async def _read(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Ask all shards at once; where `count` is less than them, part by part."""
        shards = self._in_turn()
        for start in range(0, len(shards), count):
            last = start + count >= len(shards)
            block = block_ms if last else None
            found = await self._read_fairly(shards[start : start + count], count, block)
            if found:
                return found
        return []

    async def _read_fairly(
        self, shards: list[int], count: int, block: int | None
    ) -> list[StreamEntry]:
        """Ask each shard for its share, then those that had more for what is left."""
        found: list[StreamEntry] = []
        while shards and len(found) < count:
            share = max(1, (count - len(found)) // len(shards))
            asked = shards[: count - len(found)]
            if isinstance(self._client, Routed):
                reply = await self._ask_each(asked, share, block)
            else:
                reply = await self._ask(asked, share, block)
            block = None
            parts = [(self._shards[key], _entries(self._shards[key], raw)) for key, raw in reply]
            for _, entries in parts:
                found += entries
            shards = [shard for shard, entries in parts if len(entries) == share]
        return found

    async def _ask(self, shards: list[int], share: int, block: int | None) -> list[_Reply]:
        """Ask shards of one server for `share` new entries each, waiting for one if none has."""
        reply = await self._client.xreadgroup(
            self._options.group,
            self._options.consumer,
            {self._keys[shard]: ">" for shard in shards},
            count=share,
            # Zero would mean for ever.
            block=block or None,
        )
        return cast(list[_Reply], reply or [])

    async def _ask_each(self, shards: list[int], share: int, block: int | None) -> list[_Reply]:
        """Do so where shards are on several servers; one that is away does not keep from others."""
        deadline_s = time.monotonic() + (block or 0) / 1000
        for turn in itertools.count():
            async with self._client.pipeline(transaction=False) as pipeline:
                for shard in shards:
                    pipeline.xreadgroup(
                        self._options.group,
                        self._options.consumer,
                        {self._keys[shard]: ">"},
                        count=share,
                    )
                replies = await pipeline.execute(raise_on_error=False)
            found = [one for reply in replies if isinstance(reply, list) for one in reply]
            if not found:
                _raise_first(replies)
                left_ms = int((deadline_s - time.monotonic()) * 1000)
                if left_ms <= 0:
                    return []
                shard = shards[turn % len(shards)]
                found = await self._ask([shard], share, min(left_ms, TURN_MS))
            if found:
                return cast(list[_Reply], found)
        raise AssertionError("there is always another turn")

    async def _claim(self, count: int, idle_ms: int, left_by: str | None) -> list[StreamEntry]:
        shards = self._in_turn()[:count]
        group, consumer = self._options.group, self._options.consumer
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard in shards:
                share = max(1, count // len(shards))
                pipeline.xpending_range(
                    self._keys[shard], group, "-", "+", share, left_by, idle=idle_ms
                )
            listed = cast(list[list[dict[str, bytes]]], await _executed(pipeline))
        idle = {
            shard: [one["message_id"] for one in pending]
            for shard, pending in zip(shards, listed, strict=True)
            if pending
        }
        if not idle:
            return []
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard, ids in idle.items():
                # Only those that are idle still: another consumer may have been faster.
                pipeline.xclaim(
                    self._keys[shard], group, consumer, idle_ms, cast(Any, ids), justid=True
                )
            claimed = cast(list[list[bytes]], await _executed(pipeline))
        return await self._fetch(dict(zip(idle, claimed, strict=True)))

    async def _fetch(self, claimed: Mapping[int, list[bytes]]) -> list[StreamEntry]:
        places = [(shard, entry_id) for shard, ids in claimed.items() for entry_id in ids]
        if not places:
            return []
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard, entry_id in places:
                pipeline.xrange(self._keys[shard], cast(Any, entry_id), cast(Any, entry_id))
            replies = cast(list[list[_Raw]], await _executed(pipeline))
        found: list[StreamEntry] = []
        async with self._client.pipeline(transaction=False) as pipeline:
            for (shard, entry_id), raw in zip(places, replies, strict=True):
                if raw:
                    found += _entries(shard, raw)
                else:
                    # Deleted by somebody else: its numbers stay a gap, which the ledger shows.
                    pipeline.xack(self._keys[shard], self._options.group, cast(Any, entry_id))
            if len(pipeline):
                await _executed(pipeline)
        return found

    async def _trim(
        self, shards: Sequence[int], acknowledge: Mapping[int, list[str]] | None = None
    ) -> None:
        """Acknowledge entries of shards; then drop what all of each shard have stored."""
        group = self._options.group
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard, found in (acknowledge or {}).items():
                pipeline.xack(self._keys[shard], group, *found)
            acks = len(pipeline)
            for shard in shards:
                # In this order: what is delivered after the first answer is above its last id.
                pipeline.xinfo_groups(self._keys[shard])
                pipeline.xpending(self._keys[shard], group)
            replies = await pipeline.execute(raise_on_error=False)
        _raise_first(replies[:acks])
        asked = replies[acks:]
        async with self._client.pipeline(transaction=False) as pipeline:
            for shard, groups, pending in zip(shards, asked[::2], asked[1::2], strict=True):
                own = _own_group(groups, group)
                if own is None or isinstance(pending, Exception):
                    continue  # lost a moment ago: the next read makes it anew
                # Of what was delivered, all below the lowest pending id is acknowledged.
                lowest = pending["min"] or _following(own["last-delivered-id"])
                pipeline.xtrim(self._keys[shard], minid=lowest, approximate=False)
            if len(pipeline):
                await _executed(pipeline)

    async def _depths(self) -> list[ShardDepth]:
        group = self._options.group
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in self._keys:
                pipeline.xlen(key)
                pipeline.xpending(key, group)
                pipeline.xinfo_groups(key)
            replies = await _executed(pipeline)
        groups = [_own_group(groups, group) for groups in replies[2::3]]
        async with self._client.pipeline(transaction=False) as pipeline:
            for key, own in zip(self._keys, groups, strict=True):
                last = own["last-delivered-id"] if own is not None else b"0-0"
                pipeline.xrange(key, _following(last), "+", count=1)
            unread = cast(list[list[_Raw]], await _executed(pipeline))
        return [
            _depth(shard, length, pending, following)
            for shard, (length, pending, following) in enumerate(
                zip(replies[::3], replies[1::3], unread, strict=True)
            )
        ]

    async def _healed(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call`; where the group is missing, make it and run `call` once more."""
        if not self._group_made:
            await self._make_group()
        try:
            return await call()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP") and "no such key" not in str(error):
                raise
        self._observer.group_recreated()
        await self._make_group()
        return await call()

    async def _make_group(self) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in self._keys:
                pipeline.xgroup_create(key, self._options.group, id="0", mkstream=True)
            replies = await pipeline.execute(raise_on_error=False)
        # Another consumer may have made it already.
        _raise_first(reply for reply in replies if "BUSYGROUP" not in str(reply))
        self._group_made = True

    def _in_turn(self) -> list[int]:
        """Return the shards, beginning with another one each time, so that none is always last."""
        self._turn = (self._turn + 1) % self._options.shards
        shards = range(self._options.shards)
        return [*shards[self._turn :], *shards[: self._turn]]


def _entries(shard: int, raw: Sequence[_Raw]) -> list[StreamEntry]:
    return [decode_entry(shard, entry_id.decode(), fields) for entry_id, fields in raw]


def _own_group(groups: object, name: str) -> dict[str, bytes] | None:
    if not isinstance(groups, list):
        return None
    found = (each for each in groups if each["name"] == name.encode())
    return next(found, None)


def _following(entry_id: bytes) -> str:
    """Return the lowest id above `entry_id`."""
    milliseconds, _, number = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(number) + 1}"


def _depth(
    shard: int, length: int, pending: Mapping[str, Any], unread: Sequence[_Raw]
) -> ShardDepth:
    """Count a shard's entries; those stored but not trimmed yet count until they are."""
    oldest = pending["min"] or (unread[0][0] if unread else None)
    return ShardDepth(
        shard=shard,
        entries=length if oldest else 0,
        pending=int(pending["pending"]),
        oldest_us=int(oldest.partition(b"-")[0]) * 1000 if oldest else 0,
    )


async def _executed(pipeline: Pipeline) -> list[Any]:
    """Execute, and raise the first error as the server wrote it, not as redis-py words it."""
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    _raise_first(replies)
    return replies


def _raise_first(replies: Iterable[object]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
