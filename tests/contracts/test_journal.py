"""The port of the journal, kept by the one on disk and by the one in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.journal import JournalOptions, open_journal
from tallygate.domain.detail import Given, Hold, Late
from tallygate.domain.ids import OperationId, ReservationId
from tallygate.domain.made import STEM_DIGITS, made_ids, stem_of_digits
from tallygate.ports.journal import EntryKind, Journal
from tallygate.testing.journal import FakeDisk, FakeJournal
from tests.journal.parts import (
    LANE,
    MIB,
    TENANT,
    Heard,
    pending,
    placed,
    refund,
    reservation,
)

Reopen = Callable[[], Awaitable[Journal]]


@pytest.fixture(params=["disk", "inline", "memory"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """What opens the journal, once more after it was closed."""
    disk, journals = FakeDisk(), list[Journal]()

    async def again() -> Journal:
        for each in journals:
            await each.close()
        journals.clear()
        if request.param == "memory":
            journals.append(FakeJournal(disk))
        else:
            options = JournalOptions(64 * MIB, threaded=request.param == "disk")
            journals.append(await open_journal(DiskFiles(tmp_path / "j"), options, Heard()))
        return journals[0]

    yield again
    for each in journals:
        await each.close()


async def found(journal: Journal) -> list[object]:
    """Return every entry that is needed."""
    some = [each.entry async for part in journal.placed(journal.unconfirmed()) for each in part]
    marks = [*journal.pending(), *(mark for mark, _ in journal.held().values())]
    return [*some, *(each.entry for each in await journal.read(marks))]


async def test_what_is_synced_is_found_by_the_next(reopen: Reopen) -> None:
    """Each kind of entry comes back as it was, without the charges that are bound anew."""
    journal = await reopen()
    entries = [placed(1, events=3), refund(), pending(), reservation()]
    marks = [journal.append(entry) for entry in entries]
    assert marks == sorted(set(marks))
    assert min(marks) > 0
    assert journal.newest == marks[-1]
    assert await journal.reached(marks[-1], 5.0, synced=True)
    journal = await reopen()
    assert await found(journal) == entries
    assert journal.unconfirmed() == {LANE: ((1, 3), (9, 9))}
    assert journal.highest() == {LANE: 9}
    size = journal.size()
    assert (size.events, size.pending, size.held) == (4, 1, 1)


async def test_calls_of_a_settling_come_back_one_by_one(reopen: Reopen) -> None:
    """What was settled together is found as each call's own, on a stem or not, in its order."""
    journal = await reopen()
    stem = stem_of_digits("5" * STEM_DIGITS)
    named = Given((OperationId("a"), None), ("f1", "f2"), 1, 3)
    made = Given(tuple(made_ids(stem, 0, 2)), ("f3", "f3"), 1, 2, stem)
    one = placed(7, events=4, payload=b"aaabbbccdd")
    settled = replace(one, operation=replace(one.operation, detail=Late((named, made))))
    assert await journal.reached(journal.append(settled), 5.0, synced=True)
    journal = await reopen()
    [some] = [part async for part in journal.placed(journal.unconfirmed())]
    told = [
        (each.entry.first_seq, of.operation_id, of.fingerprint, of.payload)
        for each in some
        for of in [each.entry.operation]
    ]
    assert told == [
        (7, "a", "f1", b"aaa"),
        (8, None, "f2", b"bbb"),
        (9, f"{stem}00", "f3", b"cc"),
        (10, f"{stem}01", "f3", b"dd"),
    ]


async def test_marks_go_on_rising(reopen: Reopen) -> None:
    """A mark names one entry over all processes, so that what resolves it hits no other."""
    journal = await reopen()
    first = journal.append(pending("a"))
    await journal.reached(first, 5.0, synced=True)
    journal = await reopen()
    assert journal.append(pending("b")) > first


async def test_confirmed_numbers_are_forgotten(reopen: Reopen) -> None:
    """What the ledger has is not handed in again; what it lacks is, also in between."""
    journal = await reopen()
    mark = 0
    for first in range(1, 6):
        mark = journal.append(placed(first))
    await journal.reached(mark, 5.0, synced=True)
    journal.confirm(LANE, ((1, 2), (4, 4)))
    assert journal.unconfirmed() == {LANE: ((3, 3), (5, 5))}
    assert await found(journal) == [placed(3), placed(5)]
    assert journal.covers(LANE, 3, 3)
    assert not journal.covers(LANE, 3, 4)
    journal.confirm(LANE, ((1, 100),))
    assert journal.unconfirmed() == {}
    await journal.tidy()
    assert journal.size().events == 0


async def test_what_is_resolved_does_not_come_back(reopen: Reopen) -> None:
    """A grant that was handed over is over, also for the next process."""
    journal = await reopen()
    first, second = journal.append(pending("a")), journal.append(pending("b"))
    await journal.reached(second, 5.0, synced=True)
    journal.resolve(first)
    last = journal.append(placed(1))
    await journal.reached(last, 5.0, synced=True)
    assert list(journal.pending()) == [second]
    journal = await reopen()
    assert list(journal.pending()) == [second]
    assert [each.entry for each in await journal.read([first, second])] == [pending("b")]


async def test_a_reservation_is_kept_until_it_is_over(reopen: Reopen) -> None:
    """Its end moves with it, and once released it is forgotten, also by the next process."""
    journal = await reopen()
    for name in ("r", "s"):
        journal.append(reservation(name))
    later = replace(
        reservation("s", ends_us=20_000),
        kind=EntryKind.EXTENDED,
        operation=replace(reservation("s").operation, detail=Hold(ReservationId("s"), 1)),
    )
    mark = journal.append(later)
    await journal.reached(mark, 5.0, synced=True)
    journal.release((TENANT, ReservationId("r")))
    await journal.reached(journal.append(placed(1)), 5.0, synced=True)
    journal = await reopen()
    held = journal.held()
    assert {key: ends for key, (_, ends) in held.items()} == {(TENANT, ReservationId("s")): 20_000}


async def test_nothing_is_taken_once_closed(reopen: Reopen) -> None:
    """An entry that would not be written gets no mark."""
    journal = await reopen()
    mark = journal.append(placed(1))
    await journal.close()
    assert not journal.taking
    assert journal.append(placed(2)) == 0
    assert await journal.reached(mark, 0.0, synced=True)
    assert not await journal.reached(mark + 1, 0.0, synced=True)
    journal = await reopen()
    assert journal.unconfirmed() == {LANE: ((1, 1),)}
