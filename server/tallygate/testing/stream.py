"""A usage stream in memory, shared by as many consumers as a test makes.

Guarantees: passes the same contract tests as the stream in Redis.
Refuses to know: what entries hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import SourceId
from tallygate.ports import ShardDepth


@dataclass(slots=True)
class _Pending:
    consumer: str
    since_us: int


@dataclass(slots=True)
class _Shard:
    entries: list[StreamEntry] = field(default_factory=list)
    read: int = 0
    pending: dict[str, _Pending] = field(default_factory=dict)
    added: int = 0


class FakeStreams:
    """What the consumers share. Set `down` to have no call answered."""

    def __init__(self, now_us: Callable[[], int], shards: int = 2) -> None:
        self.now_us = now_us
        self.shards = [_Shard() for _ in range(shards)]
        self.accepted: dict[tuple[SourceId, int], int] = {}
        self.down = False

    def add(self, entry: StreamEntry) -> StreamEntry:
        """Append an entry to its shard under the next id, and return it as it will be read."""
        shard = self.shards[entry.shard]
        shard.added += 1
        added = replace(entry, entry_id=f"{self.now_us() // 1000}-{shard.added}")
        shard.entries.append(added)
        for part in entry.ranges:
            lane = (part.source_id, part.source_lane)
            self.accepted[lane] = max(part.last_seq, self.accepted.get(lane, 0))
        return added

    def lose_group(self) -> None:
        """Forget what was read and by whom, as a Redis that lost its group does."""
        for shard in self.shards:
            shard.read = 0
            shard.pending.clear()


class FakeUsageStream:
    """The `UsageStream` port, for one consumer."""

    def __init__(self, streams: FakeStreams, consumer: str) -> None:
        self._streams = streams
        self._consumer = consumer
        self._resumed = False

    async def read(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Return up to `count` entries nobody has read, without waiting for any."""
        self._answer()
        self._resumed = True
        found: list[StreamEntry] = []
        for shard in self._streams.shards:
            taken = shard.entries[shard.read : shard.read + count - len(found)]
            shard.read += len(taken)
            for entry in taken:
                shard.pending[entry.entry_id] = _Pending(self._consumer, self._streams.now_us())
            found += taken
        return found

    async def claim(self, count: int, idle_ms: int) -> list[StreamEntry]:
        """Take over up to `count` entries that are unacknowledged for `idle_ms`.

        Before anything is read, those of this consumer's own past come first, however fresh.
        """
        self._answer()
        if not self._resumed:
            found = self._take(count, 0, self._consumer)
            self._resumed = not found
            if found:
                return found
        return self._take(count, idle_ms, None)

    def _take(self, count: int, idle_ms: int, left_by: str | None) -> list[StreamEntry]:
        now_us = self._streams.now_us()
        found: list[StreamEntry] = []
        for shard in self._streams.shards:
            for entry in shard.entries:
                pending = shard.pending.get(entry.entry_id)
                if pending is None or now_us - pending.since_us < idle_ms * 1000:
                    continue
                if left_by not in (None, pending.consumer):
                    continue
                if len(found) < count:
                    shard.pending[entry.entry_id] = _Pending(self._consumer, now_us)
                    found.append(entry)
        return found

    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Mark entries as stored, and forget those below the lowest that is not."""
        self._answer()
        for entry in entries:
            self._streams.shards[entry.shard].pending.pop(entry.entry_id, None)
        for number in {entry.shard for entry in entries}:
            shard = self._streams.shards[number]
            while shard.read and shard.entries[0].entry_id not in shard.pending:
                del shard.entries[0]
                shard.read -= 1

    async def depths(self) -> list[ShardDepth]:
        """Return the depth of every shard."""
        self._answer()
        return [_depth(number, shard) for number, shard in enumerate(self._streams.shards)]

    async def accepted(self) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest number of the entries that were added, per source and lane."""
        self._answer()
        return dict(self._streams.accepted)

    async def now_us(self) -> int:
        """Return the time of the clock the streams were given."""
        self._answer()
        return self._streams.now_us()

    def _answer(self) -> None:
        if self._streams.down:
            raise BackendUnavailable


def _depth(number: int, shard: _Shard) -> ShardDepth:
    waiting = [
        entry
        for place, entry in enumerate(shard.entries)
        if place >= shard.read or entry.entry_id in shard.pending
    ]
    oldest_us = int(waiting[0].entry_id.partition("-")[0]) * 1000 if waiting else 0
    entries = len(shard.entries) if waiting else 0
    return ShardDepth(number, entries, len(shard.pending), oldest_us)
