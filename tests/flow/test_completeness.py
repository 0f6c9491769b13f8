"""The comparison of numbers: told when it is made, and its age when it is not."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pytest

from tallygate.domain.completeness import Identity, Lane, Ranges, joined
from tallygate.domain.errors import BackendUnavailable, Overloaded
from tallygate.domain.ids import SourceId
from tallygate.flow.completeness import CompletenessParts, CompletenessWatch
from tallygate.ports.epochs import Stage
from tallygate.testing.epochs import FakeCounterStages

SHARDS = 1


@dataclass
class Numbers:
    """Streams and ledger, their clock, and what was told."""

    stages: FakeCounterStages = field(default_factory=lambda: FakeCounterStages(SHARDS))
    last: int = 0
    stored: Ranges = ()
    in_stream: Ranges = ()
    letters: int = 0
    seconds: float = 0.0
    failure: Exception | None = None
    # What comes into the ledger after the stream has been read.
    meanwhile: Ranges = ()
    told: list[Identity] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    asked: int = 0

    def lane(self) -> Lane:
        """Return the only lane: of the epoch that the shard has now."""
        return (SourceId(f"a.{self.epoch}"), 0)

    epoch: str = ""

    async def given(self) -> Mapping[Lane, int]:
        """Return the last number."""
        return {self.lane(): self.last}

    async def waiting(self, shards: Collection[int], entries_max: int) -> Mapping[Lane, Ranges]:
        """Return what waits, or fail."""
        assert set(shards) == {0}
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        found = {self.lane(): self.in_stream}
        self.stored = joined([*self.stored, *self.meanwhile])
        return found

    async def seen(self) -> Mapping[Lane, Ranges]:
        """Return what is stored."""
        return {self.lane(): self.stored} if self.stored else {}

    async def dead_letters(self) -> int:
        """Return how many are letters."""
        return self.letters

    def now_us(self) -> int:
        """Return the time."""
        return int(self.seconds * 1e6)

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.seconds

    def counted(self, found: Identity) -> None:
        """Keep it."""
        self.told.append(found)

    def aged(self, seconds: float) -> None:
        """Keep it."""
        self.ages.append(seconds)

    async def watch(self) -> CompletenessWatch:
        """Return what compares, over an epoch that is open."""
        (state,) = await self.stages.states()
        await self.stages.advance(0, state.epoch, Stage.OPEN)
        self.epoch = state.epoch
        return CompletenessWatch(CompletenessParts(self, self, self.stages, self, self))


async def test_streams_are_read_only_where_numbers_are_missing() -> None:
    """At rest no stream is read; a refused event counts among the letters."""
    numbers = Numbers(last=5, stored=((1, 5),), letters=2)
    await (await numbers.watch()).run_once()
    (found,) = numbers.told
    assert (found.accepted, found.persisted, found.dead_letters, numbers.asked) == (5, 3, 2, 0)
    assert numbers.ages == [0.0]


async def test_what_is_nowhere_is_told_by_its_numbers() -> None:
    """Neither stored nor waiting: the numbers are named by source and shard."""
    numbers = Numbers(last=9, stored=((1, 3),), in_stream=((6, 8),))
    await (await numbers.watch()).run_once()
    (found,) = numbers.told
    assert (found.in_stream, found.unaccounted) == (3, 3)
    assert found.missing == {numbers.lane(): ((4, 5), (9, 9))}


@pytest.mark.parametrize("last", [5, 3], ids=["as-given-out", "an-older-copy"])
async def test_numbers_that_come_out_of_order_meanwhile_are_not_missed(last: int) -> None:
    """The stream was read when 5 was the last; of 6 to 12, later ones are stored first."""
    numbers = Numbers(last=last, stored=((1, 3), (5, 5)), in_stream=((4, 4),))
    numbers.meanwhile = ((4, 4), (9, 12))
    await (await numbers.watch()).run_once()
    (found,) = numbers.told
    assert (found.accepted, found.persisted, found.unaccounted, found.missing) == (5, 5, 0, {})
    assert numbers.asked == 1


async def test_a_comparison_that_is_put_off_gets_older() -> None:
    """While too much waits nothing is told but the age, and no error is one."""
    numbers = Numbers(last=9, failure=Overloaded("too much"))
    watch = await numbers.watch()
    numbers.seconds = 7.0
    await watch.run_once()
    assert (numbers.told, numbers.ages) == ([], [7.0])
    numbers.failure = None
    await watch.run_once()
    assert (len(numbers.told), numbers.ages) == (1, [7.0, 0.0])


async def test_a_server_that_is_away_is_an_error_and_ages() -> None:
    """The loop hears of the outage, and the age of the comparison rises all the same."""
    numbers = Numbers(last=1, failure=BackendUnavailable())
    watch = await numbers.watch()
    numbers.seconds = 3.0
    with pytest.raises(BackendUnavailable):
        await watch.run_once()
    assert (numbers.told, numbers.ages) == ([], [3.0])
