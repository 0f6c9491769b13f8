"""Corrections: what came twice or late ends up in the counters once, whatever breaks off."""

import copy
from dataclasses import replace

import pytest

from tallygate.domain.ids import EventId
from tallygate.ports import LedgerBatch
from tests.flow.rebuild_parts import NAMES, Broken, Installation, allowed, opened


async def test_what_comes_late_is_added() -> None:
    """Entries of a lost epoch that an ingester still held are counted when they are stored."""
    world = await opened()
    for number in range(90, 94):
        await world.use(NAMES[number % 4], number, 7)
    held = await world.stream.read(100, 0)
    world.lose()
    rebuild, correct = world.rebuild(), world.correct()
    await world.run(rebuild, 1)
    await world.store_entries(held)
    await world.store_entries(held)
    await correct.run_once()
    assert world.told.outcomes == []
    await world.run(rebuild, 4)
    assert world.open
    await correct.run_once()
    await correct.run_once()
    assert world.told.outcomes == ["applied"] * 4
    assert world.counters() == await world.recounted()


async def test_what_came_late_before_another_loss_is_in_the_sums() -> None:
    """A correction of an epoch that is lost as well is given to none."""
    world = await opened()
    await world.use("acme", 90, 7)
    held = await world.stream.read(100, 0)
    world.lose()
    rebuild = world.rebuild()
    await world.run(rebuild, 4)
    await world.store_entries(held)
    world.lose()
    await world.run(rebuild, 6)
    await world.correct().run_once()
    assert world.told.outcomes == ["superseded"]
    assert world.counters() == await world.recounted()


async def test_what_was_counted_twice_is_taken_back_once() -> None:
    """A retry after Redis has forgotten the operation is a duplicate to the ledger."""
    world = await opened()
    correct = world.correct()
    world.time.us += 901_000_000
    for number in range(8):
        assert allowed(await world.use(NAMES[number % 4], number, 1 + number))
    assert world.counters() != await world.recounted()
    held = await world.stream.read(100, 0)
    await world.store_entries(held)
    await world.store_entries(held)
    await correct.run_once()
    await correct.run_once()
    assert world.told.outcomes == ["applied"] * 8
    assert world.counters() == await world.recounted()


async def test_a_correction_that_broke_off_is_given_once() -> None:
    """Redis knows it by its id; when it has forgotten that, it is not given again."""
    world = await opened()
    correct = world.correct()
    world.time.us += 901_000_000
    await world.use("acme", 0)
    await world.ingest()
    finish = world.corrections.finish

    async def die(outcomes: object) -> int:
        raise Broken

    world.corrections.finish = die  # type: ignore[method-assign]  # the process dies there
    for _ in range(3):
        with pytest.raises(Broken):
            await correct.run_once()
    assert world.counters() == await world.recounted()
    world.time.us += 901_000_000
    world.corrections.finish = finish  # type: ignore[method-assign]
    await correct.run_once()
    assert world.told.outcomes == ["uncertain"]
    assert world.counters() == await world.recounted()


async def test_a_correction_that_a_copy_has_not_is_given_again() -> None:
    """Nothing is numbered by it: that another server answers is all that shows it."""
    world = await opened()
    correct = world.correct()
    world.time.us += 901_000_000
    await world.use("acme", 0)
    await world.ingest()
    copied = copy.deepcopy((world.store.accounts, world.stages.given))
    await correct.run_once()
    assert world.counters() == await world.recounted()
    world.store.accounts, world.stages.given = copied
    world.stages.restart()
    assert world.counters() != await world.recounted()
    await correct.run_once()
    assert world.told.outcomes == ["applied"] * 2
    assert world.counters() == await world.recounted()
    # A server that has it has it once.
    world.stages.restart()
    await correct.run_once()
    await world.correct().run_once()
    assert world.counters() == await world.recounted()


async def test_what_is_added_is_given_before_what_is_taken_back() -> None:
    """A charge and its refund came twice: no counter is cut off at 0 on the way."""
    world = Installation()
    await world.run(world.rebuild(), 2)
    assert allowed(await world.use("acme", 1, 2))
    (entry,) = await world.stream.read(10, 0)
    (event,) = entry.events
    charge = replace(event, event_id=EventId("charge"), amount=9, source_seq=2)
    back = replace(
        charge, event_id=EventId("back"), amount=-9, refund_of=EventId("charge"), source_seq=4
    )
    twice = (charge, replace(charge, source_seq=3), back, replace(back, source_seq=5))
    # The counters have had all five of these events, and so stand at 2.
    await world.ledger.persist(LedgerBatch((event, *twice)))
    assert [each.takes_back for each in await world.corrections.due(9)] == [True, True]
    await world.correct().run_once()
    assert world.told.outcomes == ["applied"] * 2
    assert world.counters() == await world.recounted()
