"""The reservoir gives out whole shards in turn, and each shard's entries in their order."""

from tallygate.domain.event import StreamEntry
from tallygate.flow.reservoir import Reservoir
from tests.usage_events import entry, event


def entries(shard: int, *numbers: int) -> list[StreamEntry]:
    """Return an entry of one event per number."""
    return [entry([event(number)], shard) for number in numbers]


def numbers(taken: list[StreamEntry]) -> list[int]:
    """Return the numbers of what was taken."""
    return [each.events[0].source_seq for each in taken]


def test_a_transaction_has_few_shards() -> None:
    """What came mixed is given out shard by shard."""
    held = Reservoir()
    for number in range(1, 5):
        held.add(entries(0, number) + entries(1, number + 10))
    assert numbers(held.take(4)) == [1, 2, 3, 4]
    assert numbers(held.take(4)) == [11, 12, 13, 14]
    assert not held
    assert held.size == 0
    assert held.take(4) == []


def test_a_busy_shard_waits_for_its_turn() -> None:
    """A shard that is filled again and again does not keep the others out."""
    held = Reservoir()
    held.add(entries(0, 1, 2, 3, 4, 5) + entries(1, 11) + entries(2, 21))
    assert numbers(held.take(2)) == [1, 2]
    assert numbers(held.take(2)) == [11, 21]
    held.add(entries(0, 6))
    assert numbers(held.take(9)) == [3, 4, 5, 6]


def test_what_comes_back_is_first() -> None:
    """It is given out again, in the same order, before what came since."""
    held = Reservoir()
    held.add(entries(0, 1, 2, 3) + entries(1, 11, 12))
    taken = [*held.take(2), *held.take(1)]
    held.add(entries(0, 4))
    held.put_back(taken)
    assert held.size == 6
    assert numbers(held.take(4)) == [1, 2, 3, 4]
    assert numbers(held.take(2)) == [11, 12]


def test_an_entry_too_large_goes_alone() -> None:
    """At least one entry is given out, whatever it holds."""
    held = Reservoir()
    held.add([entry([event(1), event(2), event(3)], 0), *entries(0, 4)])
    assert [len(each.events) for each in held.take(2)] == [3]
    assert numbers(held.take(2)) == [4]
