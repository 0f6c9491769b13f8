"""What every `UsageStream` promises, asked of the fake and of each Redis alike."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import MALFORMED, ProtobufEventEncoder
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import StreamEntry, UsageEvent
from tallygate.domain.ids import EventId
from tallygate.ports import UsageStream
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.usage_events import SOURCE, event, span

SHARDS = 3
TIMEOUT_MS = 5_000


class Subject(Protocol):
    """Streams that a test fills, and consumers of them."""

    def consumer(self, name: str) -> UsageStream:
        """Return the stream as a consumer reads it."""

    async def add(self, event: UsageEvent, shard: int = 0) -> None:
        """Append an entry with one event."""

    async def lose_group(self) -> None:
        """Lose what was read, as after a restart from an old dump."""

    def count_recreated(self) -> int | None:
        """Return how often a lost group was made anew; None where nothing counts it."""


@dataclass(slots=True)
class FakeSubject:
    """The fake, on a clock that runs."""

    streams: FakeStreams = field(
        default_factory=lambda: FakeStreams(lambda: time.time_ns() // 1000, SHARDS)
    )

    def consumer(self, name: str) -> UsageStream:
        """Return the stream as a consumer reads it."""
        return FakeUsageStream(self.streams, name)

    async def add(self, event: UsageEvent, shard: int = 0) -> None:
        """Append an entry with one event."""
        self.streams.add(entry_of(event, shard))

    async def lose_group(self) -> None:
        """Lose what was read."""
        self.streams.lose_group()

    def count_recreated(self) -> int | None:
        """Nothing counts it."""
        return None


@dataclass(slots=True)
class Tally:
    """Counts what the stream tells."""

    recreated: int = 0
    taken: int = 0

    def group_recreated(self) -> None:
        """Count it."""
        self.recreated += 1

    def taken_over(self, entries: int) -> None:
        """Count them."""
        self.taken += entries


@dataclass(slots=True)
class RedisSubject:
    """A real Redis, filled as the script fills it."""

    client: Redis
    tally: Tally = field(default_factory=Tally)

    def consumer(self, name: str) -> UsageStream:
        """Return the stream as a consumer reads it."""
        return RedisUsageStream(self.client, StreamOptions(SHARDS, name), self.tally)

    async def add(self, event: UsageEvent, shard: int = 0) -> None:
        """Append an entry with one event."""
        payload = ProtobufEventEncoder().encode([event])
        await self.client.xadd(
            keys.stream(shard),
            {
                "t": str(event.received_at_us),
                "s": SOURCE,
                "e": "e1",
                f"u{event.source_seq}+1": payload,
            },
        )
        await self.client.hset(keys.meta(shard), SOURCE, str(event.source_seq))
        await self.client.hsetnx(keys.meta(shard), "epoch", "e1")

    async def lose_group(self) -> None:
        """Lose the group of one shard."""
        await self.client.xgroup_destroy(keys.stream(0), "ledger")

    def count_recreated(self) -> int | None:
        """Return how often a lost group was made anew."""
        return self.tally.recreated


def entry_of(event: UsageEvent, shard: int) -> StreamEntry:
    """Return an entry with one event whose lane is the shard."""
    seq = event.source_seq
    return StreamEntry(shard, "", event.received_at_us, (event,), ranges=(span(seq, seq, shard),))


def ids(entries: Sequence[StreamEntry]) -> list[EventId]:
    """Return the ids of the entries' events, sorted."""
    return sorted(each.event_id for entry in entries for each in entry.events)


class StreamContract:
    """The promises; each subclass has a `subject` to ask."""

    async def test_gives_each_entry_to_one_consumer(self, subject: Subject) -> None:
        """What one consumer has read, another does not get; nothing is read twice."""
        for number in range(1, 7):
            await subject.add(event(number), number % SHARDS)
        first, second = subject.consumer("a"), subject.consumer("b")
        mine = await first.read(4, 1)
        rest = await second.read(10, 1)
        assert len(mine) == 4
        assert ids([*mine, *rest]) == [f"event-{number}" for number in range(1, 7)]
        assert await first.read(10, 1) == []

    async def test_reads_at_most_what_is_asked(self, subject: Subject) -> None:
        """`count` bounds a read over all shards, and one busy shard may fill all of it."""
        for number in range(1, 11):
            await subject.add(event(number), 1)
        await subject.add(event(11), 2)
        stream = subject.consumer("a")
        sizes = []
        while entries := await stream.read(4, 1):
            sizes.append(len(entries))
        assert sizes == [4, 4, 3]

    @pytest.mark.parametrize("count", [1, 2])
    async def test_fewer_than_the_shards_are_no_trouble(self, subject: Subject, count: int) -> None:
        """Reading less than one entry per shard reaches every shard in turn."""
        for number in range(1, 7):
            await subject.add(event(number), number % SHARDS)
        stream = subject.consumer("a")
        found: list[StreamEntry] = []
        for _ in range(6 * SHARDS):
            entries = await stream.read(count, 1)
            assert len(entries) <= count
            found += entries
        assert len(found) == 6

    async def test_reads_what_was_written(self, subject: Subject) -> None:
        """An entry says its shard, its numbers and the events as they were accepted."""
        await subject.add(event(5), 2)
        (entry,) = await subject.consumer("a").read(SHARDS, 1)
        assert entry.shard == 2
        assert [(each.first_seq, each.last_seq, each.source_lane) for each in entry.ranges] == [
            (5, 5, 2)
        ]
        (found,) = entry.events
        assert (found.event_id, found.source_id, found.dimensions) == (
            "event-5",
            SOURCE,
            {"path": "/ü"},
        )

    async def test_takes_over_what_another_left(self, subject: Subject) -> None:
        """Entries that a dead consumer has read go to who claims them, once; fresh ones do not."""
        for number in range(1, 5):
            await subject.add(event(number), number % SHARDS)
        left = await subject.consumer("dead").read(10, 1)
        heir = subject.consumer("heir")
        assert await heir.claim(10, 60_000) == []
        assert ids(await heir.claim(10, 0)) == ids(left)
        assert await subject.consumer("late").claim(10, 60_000) == []

    async def test_restarted_consumer_has_its_own_entries_at_once(self, subject: Subject) -> None:
        """Who comes back under its name does not wait for itself, but does for others."""
        for number in range(1, 5):
            await subject.add(event(number), number % SHARDS)
        mine = await subject.consumer("a").read(3, 1)
        assert len(await subject.consumer("b").read(3, 1)) == 1
        again = subject.consumer("a")
        assert ids(await again.claim(10, 60_000)) == ids(mine)
        await again.acknowledge(mine)
        assert await again.claim(10, 60_000) == []
        await subject.add(event(9), 0)
        assert len(await again.read(10, 1)) == 1
        assert await again.claim(10, 60_000) == []

    async def test_claims_at_most_what_is_asked(self, subject: Subject) -> None:
        """Taking over is bounded, and goes on where acknowledged entries end."""
        for number in range(1, 8):
            await subject.add(event(number), 1)
        await subject.consumer("dead").read(10, 1)
        heir = subject.consumer("heir")
        found: list[StreamEntry] = []
        for _ in range(20):
            entries = await heir.claim(3, 0)
            assert len(entries) <= 3
            await heir.acknowledge(entries)
            found += entries
        assert ids(found) == [f"event-{number}" for number in range(1, 8)]

    async def test_acknowledged_is_gone(self, subject: Subject) -> None:
        """What is acknowledged is neither read nor claimed again, and counts in no depth."""
        for number in range(1, 5):
            await subject.add(event(number), 0)
        stream = subject.consumer("a")
        entries = await stream.read(10, 1)
        # Out of order: the first stays, so all that follow lie above the lowest that is not stored.
        await stream.acknowledge(entries[1:])
        depth = (await stream.depths())[0]
        assert (depth.entries, depth.pending) == (4, 1)
        assert depth.oldest_us == int(entries[0].entry_id.partition("-")[0]) * 1000
        assert ids(await stream.claim(10, 0)) == ["event-1"]
        await stream.acknowledge(entries[:1])
        depth = (await stream.depths())[0]
        assert (depth.entries, depth.pending, depth.oldest_us) == (0, 0, 0)
        assert await stream.claim(10, 0) == []

    async def test_unread_entries_are_never_trimmed(self, subject: Subject) -> None:
        """Acknowledging all that was read leaves what was not."""
        for number in range(1, 7):
            await subject.add(event(number), 0)
        stream = subject.consumer("a")
        await stream.acknowledge(await stream.read(2, 1))
        assert (await stream.depths())[0].entries == 4
        assert len(await subject.consumer("b").read(10, 1)) == 4

    async def test_acknowledging_twice_or_nothing_is_harmless(self, subject: Subject) -> None:
        """An acknowledgement may come again, and may be of nothing."""
        await subject.add(event(1), 0)
        stream = subject.consumer("a")
        entries = await stream.read(10, 1)
        await stream.acknowledge([])
        await stream.acknowledge(entries)
        await stream.acknowledge(entries)
        assert (await stream.depths())[0].entries == 0

    async def test_lost_group_is_read_from_the_start(self, subject: Subject) -> None:
        """A group that is lost is made anew, and all that is left is given out again."""
        for number in range(1, 4):
            await subject.add(event(number), 0)
        stream = subject.consumer("a")
        assert len(await stream.read(10, 1)) == 3
        await subject.lose_group()
        assert len(await stream.read(10, 1)) == 3
        assert subject.count_recreated() in (None, 1)

    async def test_accepted_is_the_highest_number_given_out(self, subject: Subject) -> None:
        """Numbers are per source and shard; an epoch is no source."""
        await subject.add(event(3), 0)
        await subject.add(event(4), 0)
        await subject.add(event(9), 2)
        assert await subject.consumer("a").accepted() == {(SOURCE, 0): 4, (SOURCE, 2): 9}

    async def test_time_runs(self, subject: Subject) -> None:
        """The stream's time is near ours, on one machine."""
        now_us = await subject.consumer("a").now_us()
        assert abs(now_us - time.time_ns() // 1000) < 60_000_000


class TestFakeStream(StreamContract):
    """The fake keeps them."""

    @pytest.fixture
    def subject(self) -> Subject:
        """An empty fake."""
        return FakeSubject()


class TestRedisStream(StreamContract):
    """So does Redis."""

    @pytest.fixture
    async def subject(self, redis_url: str) -> AsyncIterator[Subject]:
        """An empty Redis."""
        client = connect(redis_url, TIMEOUT_MS)
        yield RedisSubject(client)
        await client.aclose()


async def test_unreadable_entry_is_given_out_as_rejected(redis_url: str) -> None:
    """Bytes that are no event keep their place and their number, and hold nobody up."""
    client = connect(redis_url, TIMEOUT_MS)
    subject = RedisSubject(client)
    await client.xadd(keys.stream(0), {"t": "1", "s": SOURCE, "e": "e", "u7+1": b"\xff\xff"})
    await subject.add(event(8), 0)
    first, second = await subject.consumer("a").read(6, 1)
    assert [each.reason for each in first.rejected] == [MALFORMED]
    assert [(each.first_seq, each.last_seq) for each in first.ranges] == [(7, 7)]
    assert ids([second]) == ["event-8"]
    await client.aclose()


async def test_deleted_entry_leaves_the_group(redis_url: str) -> None:
    """An entry that somebody deleted is not waited for, on every version of Redis."""
    client = connect(redis_url, TIMEOUT_MS)
    subject = RedisSubject(client)
    for number in range(1, 4):
        await subject.add(event(number), 0)
    entries = await subject.consumer("dead").read(9, 1)
    await client.xdel(keys.stream(0), entries[0].entry_id)
    heir = subject.consumer("heir")
    found = await heir.claim(9, 0)
    assert ids(found) == ["event-2", "event-3"]
    await heir.acknowledge(found)
    depth = (await heir.depths())[0]
    assert (depth.entries, depth.pending) == (0, 0)
    await client.aclose()


async def test_trim_is_made_up_for(redis_url: str) -> None:
    """What a consumer acknowledged and died before trimming is trimmed by the next claim."""
    client = connect(redis_url, TIMEOUT_MS)
    subject = RedisSubject(client)
    await subject.add(event(1), 0)
    stream = subject.consumer("a")
    (entry,) = await stream.read(9, 1)
    await client.xack(keys.stream(0), "ledger", entry.entry_id)
    assert await client.xlen(keys.stream(0)) == 1
    assert (await stream.depths())[0].entries == 0
    await stream.claim(9, 60_000)
    assert await client.xlen(keys.stream(0)) == 0
    await client.aclose()


async def test_redis_that_is_away_is_named() -> None:
    """Every call says that the backend is unavailable, and where it is stays untold."""
    client = connect("unix:///nonexistent/secret.sock", 200)
    stream = RedisUsageStream(client, StreamOptions(SHARDS, "a"))
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: stream.read(1, 1),
        lambda: stream.claim(1, 1),
        stream.depths,
        stream.accepted,
        stream.now_us,
    ]
    for call in calls:
        with pytest.raises(BackendUnavailable) as raised:
            await call()
        assert "secret" not in str(raised.value)
    await client.aclose()
