"""Lost numbers are settled: those of epochs that are over, once, and no others."""

from dataclasses import dataclass

from tallygate.domain.completeness import Identity, Lane, Ranges
from tallygate.domain.ids import SourceId
from tallygate.flow.settle_numbers import SettleNumbers, SettleParts, count
from tallygate.ports.epochs import Seen
from tallygate.testing.epochs import FakeCounterStages, FakeSeenNumbers


@dataclass
class Compared:
    """A comparison that found numbers missing; `meanwhile` a shard has been given another epoch."""

    missing: dict[Lane, Ranges]
    stages: FakeCounterStages | None = None

    async def compare(self) -> Identity:
        """Return them."""
        if self.stages is not None:
            [state] = await self.stages.states()
            await self.stages.renew(0, state.epoch)
        return Identity(missing=self.missing)


async def test_only_what_was_lost_is_settled() -> None:
    """Numbers of an epoch that is over are told; those of the epoch of now are a fault."""
    stages = FakeCounterStages(1)
    [state] = await stages.states()
    lost, open_still = SourceId("a.00000000"), SourceId(f"a.{state.epoch}")
    compared = Compared({(lost, 0): ((3, 5), (9, 9)), (open_still, 0): ((1, 2),)})
    seen = FakeSeenNumbers()
    step = SettleNumbers(SettleParts(compared, stages, seen))
    assert await step.lost() == [Seen(lost, 0, ((3, 5), (9, 9)))]
    assert seen.handed_in == []
    assert count(await step.settle()) == 4
    assert seen.handed_in == [Seen(lost, 0, ((3, 5), (9, 9)))]


async def test_what_is_lost_while_comparing_waits() -> None:
    """Of an epoch that ends during the comparison nothing is settled: journals come first."""
    stages = FakeCounterStages(1)
    [state] = await stages.states()
    source = SourceId(f"a.{state.epoch}")
    seen = FakeSeenNumbers()
    step = SettleNumbers(SettleParts(Compared({(source, 0): ((1, 2),)}, stages), stages, seen))
    assert await step.settle() == []
    assert seen.handed_in == []


async def test_nothing_lost_is_nothing_told() -> None:
    """Where nothing is missing nobody is told anything."""
    seen = FakeSeenNumbers()
    step = SettleNumbers(SettleParts(Compared({}), FakeCounterStages(1), seen))
    assert await step.settle() == []
    assert seen.handed_in == []
