"""What `CounterStages` and `SeenNumbers` promise, asked of the fakes and of each Redis alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from redis.asyncio import Redis

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.codec import decode_entry
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.seen import RANGES_MAX, RedisSeenNumbers
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import SequenceRange
from tallygate.domain.ids import SourceId
from tallygate.ports.epochs import CounterStages, Seen, SeenNumbers, Stage
from tallygate.testing.epochs import FakeCounterStages, FakeSeenNumbers

SHARDS = 3
ONE, TWO = SourceId("one.e1"), SourceId("two.e1")


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    """A connection to an empty Redis."""
    made = connect(redis_url, 5_000, connections_max=8)
    yield made
    await made.aclose()


class EpochsContract:
    """The promises; each subclass has `stages` of three shards, and `numbers` yet untold."""

    async def test_stages_follow_each_other(self, stages: CounterStages) -> None:
        """An epoch begins lost; it goes on, never back, and only while it is the shard's."""
        states = await stages.states()
        assert [state.shard for state in states] == [*range(SHARDS)]
        assert {state.stage for state in states} == {Stage.LOST}
        epoch = states[1].epoch
        assert await stages.advance(1, epoch, Stage.SEEN)
        assert not await stages.advance(1, epoch, Stage.SEEN)
        assert await stages.advance(1, epoch, Stage.OPEN)
        assert not await stages.advance(1, epoch, Stage.SEEN)
        assert not await stages.advance(1, "another", Stage.OPEN)
        found = await stages.states()
        assert [state.stage for state in found] == [Stage.LOST, Stage.OPEN, Stage.LOST]
        assert [state.epoch for state in found] == [state.epoch for state in states]

    async def test_a_stage_may_have_to_follow_another(self, stages: CounterStages) -> None:
        """What is opened only once it is filled is not opened when it went back."""
        epoch = (await stages.states())[0].epoch
        assert not await stages.advance(0, epoch, Stage.FILLED, after=Stage.SEEN)
        assert await stages.advance(0, epoch, Stage.SEEN, after=Stage.LOST)
        assert not await stages.advance(0, epoch, Stage.OPEN, after=Stage.FILLED)
        assert await stages.advance(0, epoch, Stage.FILLED, after=Stage.SEEN)
        assert (await stages.states())[0].stage is Stage.FILLED
        assert await stages.advance(0, epoch, Stage.OPEN, after=Stage.FILLED)
        assert (await stages.states())[0].stage is Stage.OPEN

    async def test_of_many_who_renew_one_does(self, stages: CounterStages) -> None:
        """All learn of the same new epoch, which is lost; who comes late changes nothing."""
        before = (await stages.states())[2]
        await stages.advance(2, before.epoch, Stage.OPEN)
        renewed = await asyncio.gather(*[stages.renew(2, before.epoch) for _ in range(5)])
        assert len(set(renewed)) == 1
        assert renewed[0] != before.epoch
        state = (await stages.states())[2]
        assert (state.epoch, state.stage) == (renewed[0], Stage.LOST)
        assert not await stages.advance(2, before.epoch, Stage.OPEN)

    async def test_what_was_told_is_seen(self, numbers: SeenNumbers) -> None:
        """Per source and shard the last that was told; of others nothing."""
        await numbers.tell(
            [Seen(ONE, 0, ((1, 5),)), Seen(TWO, 0, ((2, 2),)), Seen(ONE, 1, ((1, 1),))]
        )
        await numbers.tell([Seen(ONE, 0, ((1, 9), (12, 12)))])
        asked = [(ONE, 1), (ONE, 0), (TWO, 1), (TWO, 0)]
        assert list(await numbers.seen(asked)) == [
            Seen(ONE, 1, ((1, 1),)),
            Seen(ONE, 0, ((1, 9), (12, 12))),
            Seen(TWO, 1, ()),
            Seen(TWO, 0, ((2, 2),)),
        ]
        await numbers.tell([])
        assert list(await numbers.seen([])) == []

    async def test_of_very_many_ranges_the_first_are_kept(self, numbers: SeenNumbers) -> None:
        """What is left out counts as not stored yet, which is the safe side."""
        many = tuple((2 * n, 2 * n) for n in range(1, 3 * RANGES_MAX))
        await numbers.tell([Seen(ONE, 0, many)])
        (found,) = await numbers.seen([(ONE, 0)])
        assert found.ranges == many[:RANGES_MAX]

    async def test_journals_announce_themselves(self, numbers: SeenNumbers) -> None:
        """Per epoch, by the last word of each."""
        one, two = SourceId("one"), SourceId("two")
        assert await numbers.announced(0, "e1") == {}
        await numbers.announce(0, "e1", one, done=False)
        await numbers.announce(0, "e1", two, done=False)
        await numbers.announce(0, "e1", one, done=True)
        assert await numbers.announced(0, "e1") == {one: True, two: False}
        assert await numbers.announced(0, "e2") == {}
        assert await numbers.announced(1, "e1") == {}


class TestFakes(EpochsContract):
    """The fakes."""

    @pytest.fixture
    def stages(self) -> CounterStages:
        """The stages of three shards."""
        return FakeCounterStages(SHARDS)

    @pytest.fixture
    def numbers(self) -> SeenNumbers:
        """Nobody has told anything yet."""
        return FakeSeenNumbers()


class TestRedis(EpochsContract):
    """Each Redis."""

    @pytest.fixture
    def stages(self, client: Redis) -> CounterStages:
        """The stages of three shards."""
        return RedisCounterStages(client, SHARDS)

    @pytest.fixture
    def numbers(self, client: Redis) -> SeenNumbers:
        """Nobody has told anything yet."""
        return RedisSeenNumbers(client)


async def test_numbers_given_out_are_those_of_the_epoch(client: Redis) -> None:
    """Of older epochs nothing is told."""
    stages = RedisCounterStages(client, SHARDS)
    epoch = (await stages.epochs())[0]
    mine = SourceId(f"a.{epoch}")
    await cast(asyncio.Future[int], client.hset(keys.meta(0), mapping={mine: 7, "a.old": 9}))
    assert (await stages.states())[0].given == {mine: 7}


async def test_numbers_that_come_again_are_told_to_the_ledger(client: Redis) -> None:
    """The stream has their ranges under the old name, and no events; twice is the same."""
    numbers = RedisSeenNumbers(client)
    many = tuple((2 * n, 2 * n) for n in range(1, 1_200))
    for _ in range(2):
        await numbers.hand_in([Seen(ONE, 2, ((1, 5), (9, 2**53 - 1))), Seen(TWO, 0, many)])
    await numbers.hand_in([Seen(TWO, 1, ())])
    read = await _entries(client, 2)
    assert read[0] == read[1] == [SequenceRange(ONE, 2, 1, 5), SequenceRange(ONE, 2, 9, 2**53 - 1)]
    parts = [each for entry in await _entries(client, 0) for each in entry]
    assert parts == [SequenceRange(TWO, 0, low, high) for low, high in many] * 2
    assert await client.exists(keys.stream(1)) == 0


async def _entries(client: Redis, shard: int) -> list[list[SequenceRange]]:
    found = cast(list[tuple[bytes, dict[bytes, bytes]]], await client.xrange(keys.stream(shard)))
    entries = [decode_entry(shard, id_.decode(), fields) for id_, fields in found]
    assert not any(entry.events or entry.rejected for entry in entries)
    return [list(entry.ranges) for entry in entries]


async def test_what_cannot_be_read_is_not_seen(client: Redis) -> None:
    """A foreign value is no proof that anything is stored."""
    await cast(asyncio.Future[int], client.hset(keys.seen(0), ONE, "1-5,x"))
    assert list(await RedisSeenNumbers(client).seen([(ONE, 0)])) == [Seen(ONE, 0, ())]


async def test_an_outage_is_told() -> None:
    """Every method says that Redis does not answer."""
    client = connect("redis://127.0.0.1:1/0", 500)
    stages, numbers = RedisCounterStages(client, SHARDS), RedisSeenNumbers(client)
    for call in (
        stages.states(),
        stages.renew(0, "e"),
        stages.advance(0, "e", Stage.OPEN),
        numbers.tell([Seen(ONE, 0, ())]),
        numbers.seen([(ONE, 0)]),
        numbers.hand_in([Seen(ONE, 0, ((1, 1),))]),
        numbers.announce(0, "e", ONE, done=True),
        numbers.announced(0, "e"),
    ):
        with pytest.raises(BackendUnavailable):
            await call
    await client.aclose()
