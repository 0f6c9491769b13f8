"""A full stream takes nothing new, and all else goes on."""

from dataclasses import replace
from typing import Final

from tallygate.domain.decision import Decided, Mode
from tallygate.flow.stream_room import StreamFull, StreamRoom
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import check, consume, now_us, window

ENTRIES_MAX: Final = 100
LIMITS: Final = [window()]


class Streams:
    """Streams whose lengths a test sets, and what is told of them."""

    def __init__(self) -> None:
        self.lengths = [0, 0]
        self.told: list[int] = []

    async def read(self) -> list[int]:
        """Return the lengths."""
        return self.lengths

    def streams_full(self, shards: int) -> None:
        """Keep it."""
        self.told.append(shards)


def made() -> tuple[StreamRoom, Streams]:
    """Return a room in front of a store in memory."""
    streams = Streams()
    store = FakeQuotaStore(now_us)
    return StreamRoom(store, streams.read, ENTRIES_MAX, streams), streams


async def test_a_full_shard_takes_nothing_new() -> None:
    """What would add to it is refused in its place; other shards, and questions, are answered."""
    room, streams = made()
    streams.lengths = [ENTRIES_MAX, ENTRIES_MAX - 1]
    await room.measure()
    answers = await room.decide(
        [
            replace(consume(LIMITS, name="one"), shard=0),
            replace(consume(LIMITS, name="two"), shard=1),
            replace(check(LIMITS), shard=0),
            replace(consume(LIMITS, name="three"), shard=0, mode=Mode.RECORD),
        ]
    )
    full = [isinstance(answer, StreamFull) for answer in answers]
    assert full == [True, False, False, True]
    assert all(isinstance(answer, Decided) for answer in answers[1:3])
    assert StreamFull.transient
    assert streams.told == [1]


async def test_a_stream_is_full_until_a_tenth_is_free() -> None:
    """A stream that drains is not open and full by turns."""
    room, streams = made()
    for length, full in ((99, 0), (100, 1), (95, 1), (90, 1), (89, 0), (99, 0), (101, 1)):
        streams.lengths = [length, 0]
        await room.measure()
        assert streams.told[-1] == full, length


async def test_settling_passes() -> None:
    """What ends a reservation that was made before is never kept out."""
    room, streams = made()
    streams.lengths = [ENTRIES_MAX, 0]
    await room.measure()
    for mode in (Mode.COMMIT, Mode.RELEASE, Mode.SETTLE, Mode.EXTEND, Mode.GRANT, Mode.REBUILD):
        assert not room.keeps_out(replace(consume(LIMITS, name="one"), shard=0, mode=mode))
