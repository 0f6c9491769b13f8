"""Row 6: a disk that is full or fails, and what the journal says of it meanwhile."""

import asyncio
import errno
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.segment import HEAD_BYTES
from tallygate.adapters.journal.writer import SEGMENT_BYTES
from tallygate.domain.errors import JournalInUse
from tests.journal.parts import (
    LANE,
    MIB,
    Heard,
    ShadowDisk,
    entries_of,
    opened,
    pending,
    placed,
    reservation,
    synced,
)
from tests.servers import eventually


async def numbers(disk: ShadowDisk) -> list[int]:
    """Return the numbers that a later process finds, in order."""
    async with opened(disk) as journal:
        return sorted({entry.first_seq for entry in await entries_of(journal)})


async def test_a_failed_sync_is_never_asked_again() -> None:
    """The file is given up; what it may have lost is written anew before it counts as synced."""
    disk, heard = ShadowDisk(), Heard()
    async with opened(disk, heard) as journal:
        assert await synced(journal, placed(1)) == [1]
        disk.failing["sync"] = errno.EIO
        mark = journal.append(placed(2))
        assert not await journal.reached(mark, 1.0, synced=True)
        assert heard.failures == ["broken"]
        assert journal.append(placed(3)) == 0
        assert heard.turned == ["broken"]
        disk.failing.clear()
        # The first file would now say that all is well: it has dropped the second entry.
        await journal.tidy()
        assert await journal.reached(mark, 1.0, synced=True)
        assert heard.recoveries == 1
        assert journal.taking
        assert await synced(journal, placed(4))
        left = ShadowDisk(
            {name: bytearray(each) for name, each in disk.contents.items()}, dict(disk.durable)
        )
    left.lose_power([0.0] * 9)
    assert await numbers(left) == [1, 2, 4]


@pytest.mark.parametrize("call", ["write", "create", "sync"])
async def test_a_disk_that_fails_for_long_leaves_no_litter(call: str) -> None:
    """Each try begins a file; one that failed is removed, and nothing is counted twice."""
    disk, heard = ShadowDisk(), Heard()
    async with opened(disk, heard) as journal:
        await synced(journal, placed(1), pending("a"))
        disk.failing = {call: errno.EIO, "create": errno.EIO} if call == "create" else {call: 5}
        disk.failing.setdefault("sync", errno.EIO)
        mark = journal.append(placed(2))
        for _ in range(5):
            await journal.reached(mark, 0.0, synced=True)
            await journal.tidy()
        assert len(disk.contents) == 1
        disk.failing.clear()
        await journal.tidy()
        assert await journal.reached(mark, 1.0, synced=True)
        assert journal.size().events == 2
        assert list(journal.pending()) == [2]
    assert await numbers(disk) == [0, 1, 2]


async def test_a_full_disk_is_told_and_got_over() -> None:
    """No entry is cut in half; when there is room again, everything goes on."""
    disk, heard = ShadowDisk(), Heard()
    async with opened(disk, heard) as journal:
        await synced(journal, placed(1))
        disk.bytes_max = sum(len(each) for each in disk.contents.values()) + 10
        mark = journal.append(placed(2))
        assert not await journal.reached(mark, 1.0, synced=True)
        assert heard.failures == ["full"]
        assert journal.append(placed(3)) == 0
        disk.bytes_max = MIB
        await journal.tidy()
        assert await journal.reached(mark, 1.0, synced=True)
        assert heard.recoveries == 1
    assert await numbers(disk) == [1, 2]


async def test_a_journal_keeps_to_its_bound() -> None:
    """Beyond it nothing is taken, nothing unconfirmed is dropped; room comes with confirmation."""
    disk, heard = ShadowDisk(), Heard()
    bound = 3 * SEGMENT_BYTES
    async with opened(disk, heard, bytes_max=bound) as journal:
        number = 0
        payload = b"p" * (MIB // 2)
        while journal.append(placed(number + 1, payload=payload)):
            number += 1
            await journal.reached(journal.newest, 1.0, synced=True)
        assert heard.turned == ["full"]
        size = sum(len(each) for each in disk.contents.values())
        assert bound <= size <= bound + MIB
        assert journal.unconfirmed() == {LANE: ((1, number),)}
        journal.confirm(LANE, ((1, number),))
        await journal.tidy()
        assert len(disk.contents) == 1
        assert await synced(journal, placed(number + 1))


async def test_one_straggler_does_not_pin_the_disk() -> None:
    """A reservation of a day, and a number that never comes, move on to the newest segment."""
    disk = ShadowDisk()
    async with opened(disk) as journal:
        await synced(journal, reservation("r"), placed(1))
        payload = b"p" * (MIB // 2)
        for number in range(2, 70):
            await synced(journal, placed(number, payload=payload))
        journal.confirm(LANE, ((2, 69),))
        before = len(disk.contents)
        for _ in range(before):
            await journal.tidy()
        assert len(disk.contents) <= 2 < before
        assert [entry.first_seq for entry in await entries_of(journal)] == [1, 0]
    # What was confirmed is not written down: the ledger says it again.
    assert {0, 1} <= set(await numbers(disk)) <= {0, 1, *range(60, 70)}


async def test_groups_share_a_sync(tmp_path: Path) -> None:
    """A hundred callers that wait at once are not a hundred syncs."""
    heard = Heard()
    async with opened(DiskFiles(tmp_path), heard, threaded=True) as journal:
        marks = [journal.append(placed(number)) for number in range(1, 101)]
        done = await asyncio.gather(*(journal.reached(mark, 5.0, synced=True) for mark in marks))
        assert all(done)
        assert heard.syncs < 20


async def test_two_processes_never_share_a_journal(tmp_path: Path) -> None:
    """The second is refused by name; when the first has ended, the next one has it."""
    async with opened(DiskFiles(tmp_path), threaded=True) as journal:
        await synced(journal, placed(1))
        with pytest.raises(JournalInUse, match="another process"):
            DiskFiles(tmp_path)
    async with opened(DiskFiles(tmp_path), threaded=True) as journal:
        assert journal.unconfirmed() == {LANE: ((1, 1),)}


async def test_a_real_file_that_may_not_grow(tmp_path: Path) -> None:
    """The system refuses in the middle of a write: the journal says so, and recovers."""
    heard = Heard()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(DiskFiles(tmp_path), heard, threaded=True) as journal:
        await synced(journal, placed(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (HEAD_BYTES + 1_000, hard))
        try:
            mark = journal.append(placed(2, payload=b"p" * 4_000))
            assert not await journal.reached(mark, 5.0, synced=True)
            assert heard.failures[0] == "full"
            assert not journal.taking
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        async def taking() -> bool:
            return journal.taking

        await eventually(taking, what="the journal takes entries again")
        assert await journal.reached(mark, 5.0, synced=True)
    async with opened(DiskFiles(tmp_path), heard, threaded=True) as journal:
        assert journal.unconfirmed() == {LANE: ((1, 2),)}
        assert heard.damage == {}


def test_reading_segments_keeps_no_memory(tmp_path: Path) -> None:
    """Whichever threads read them: what a segment took goes back when it is let go."""
    threads, process = 6, psutil.Process()
    files = DiskFiles(tmp_path)
    (tmp_path / "1.seg").write_bytes(bytes(range(256)) * (SEGMENT_BYTES // 256))
    together = threading.Barrier(threads)

    def read(_: int) -> int:
        # Twice: from its second time on an allocator takes a size that large as usual.
        length = 0
        for _ in range(2):
            together.wait(10)
            data = files.read("1.seg")
            length += len(data)
            together.wait(10)
            del data
        return length

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(bool, range(threads)))
        before = process.memory_info().rss
        assert list(pool.map(read, range(threads))) == [2 * SEGMENT_BYTES] * threads
        assert process.memory_info().rss - before < SEGMENT_BYTES
    files.close()


def test_an_empty_segment_is_read(tmp_path: Path) -> None:
    """A process may have died right after it made the file."""
    files = DiskFiles(tmp_path)
    files.create("1.seg").close()
    assert files.read("1.seg") == b""
    files.close()
