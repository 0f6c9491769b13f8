"""What a journal gives back when its files are damaged or its disk loses power."""

from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.journal.segment import HEAD_BYTES, SYNC, head, record, salt_of, scan
from tests.journal.parts import (
    LANE,
    Heard,
    ShadowDisk,
    entries_of,
    opened,
    pending,
    placed,
    reservation,
    synced,
)

SALT = 0x5EED
BODIES = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=12)


def segment(bodies: list[bytes]) -> tuple[bytes, list[int]]:
    """Return a segment with these bodies, and where its records begin and the last one ends."""
    data, starts = head(SALT), [HEAD_BYTES]
    for mark, body in enumerate(bodies, 1):
        data += record(mark, body, SALT)
        starts.append(len(data))
    return data, starts


@given(BODIES)
def test_a_whole_segment_is_read_as_it_was_written(bodies: list[bytes]) -> None:
    """Every record, in order, with its mark, and nothing more."""
    data, _ = segment(bodies)
    found = scan(data, SALT)
    assert found.records == list(enumerate(bodies, 1))
    assert (found.corrupt, found.torn_at) == ([], len(data))


@given(BODIES, st.data())
def test_a_cut_end_loses_the_last_records_only(bodies: list[bytes], data: st.DataObject) -> None:
    """A torn tail: what was whole before the cut is read, what was not is told."""
    whole, starts = segment(bodies)
    length = data.draw(st.integers(HEAD_BYTES, len(whole)))
    found = scan(whole[:length], SALT)
    kept = sum(1 for end in starts[1:] if end <= length)
    assert found.records == list(enumerate(bodies, 1))[:kept]
    assert found.torn_at == starts[kept]
    assert found.corrupt == []


@given(BODIES, st.data())
def test_a_flipped_bit_loses_its_record_only(bodies: list[bytes], data: st.DataObject) -> None:
    """The records before and after it are read, and the span is told."""
    whole, starts = segment(bodies)
    at = data.draw(st.integers(HEAD_BYTES, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(damaged), SALT)
    hit = sum(1 for end in starts[1:] if end <= at)
    expected = list(enumerate(bodies, 1))
    del expected[hit]
    assert found.records == expected
    last = hit == len(bodies) - 1
    assert found.corrupt == ([] if last else [(starts[hit], starts[hit + 1])])
    assert found.torn_at == (starts[hit] if last else len(whole))


@given(BODIES, st.binary(max_size=200), st.integers(0, 12))
def test_garbage_between_records_is_passed_over(
    bodies: list[bytes], garbage: bytes, place: int
) -> None:
    """Zeros, halves of records and marks of sync hide no record behind them."""
    whole, starts = segment(bodies)
    at = starts[min(place, len(bodies))]
    found = scan(whole[:at] + garbage + SYNC + garbage + whole[at:], SALT)
    assert found.records == list(enumerate(bodies, 1))


@given(st.binary(min_size=1, max_size=60))
def test_no_client_can_forge_a_record(body: bytes) -> None:
    """A payload that holds a whole record under another salt stays a payload, also when torn."""
    forged = record(7, b"forged", SALT + 1)
    whole, starts = segment([body + forged + body, b"after"])
    damaged = bytearray(whole)
    damaged[starts[0]] ^= 1
    assert scan(bytes(damaged), SALT).records == [(2, b"after")]


@given(st.integers(0, HEAD_BYTES - 1), st.integers(0, 7))
def test_a_head_survives_a_flipped_bit(at: int, bit: int) -> None:
    """Of its three copies two are left."""
    damaged = bytearray(head(SALT))
    damaged[at] ^= 1 << bit
    assert salt_of(bytes(damaged)) == SALT
    assert salt_of(b"") is None


@given(st.integers(1, 8), st.data())
async def test_any_damage_leaves_what_is_whole(count: int, data: st.DataObject) -> None:
    """Row 5: a prefix and later records are recovered; what is not is counted and put aside."""
    disk, heard = ShadowDisk(), Heard()
    async with opened(disk) as journal:
        for number in range(1, count + 1):
            await synced(journal, placed(number, payload=b"p" * number))
    (name,) = disk.names()
    whole = bytes(disk.contents[name])
    cut = data.draw(st.integers(0, len(whole)))
    flips = data.draw(st.lists(st.integers(0, len(whole) * 8 - 1), max_size=3))
    zeros = data.draw(st.integers(0, 200))
    damaged = bytearray(whole)
    for flip in flips:
        damaged[flip // 8] ^= 1 << flip % 8
    disk.contents[name] = damaged[:cut] + bytes(zeros)
    untouched = _untouched(whole, cut, flips)
    async with opened(disk, heard) as journal:
        found = await entries_of(journal)
        lost = [
            number
            for number in range(1, count + 1)
            if placed(number, payload=b"p" * number) not in found
        ]
        assert not lost or heard.damage or cut < len(whole)
        assert set(untouched) <= {entry.first_seq for entry in found}
        # It goes on: what comes now is kept beside what was found.
        await synced(journal, placed(100))
    async with opened(disk) as journal:
        after = await entries_of(journal)
        assert [entry.first_seq for entry in after] == [*(e.first_seq for e in found), 100]


def _untouched(whole: bytes, cut: int, flips: list[int]) -> list[int]:
    """Return the records that no damage has met, where a copy of the head is whole."""
    salt = salt_of(whole)
    assert salt is not None
    third = HEAD_BYTES // 3
    if (
        cut < HEAD_BYTES
        or len({flip // 8 // third for flip in flips if flip // 8 < HEAD_BYTES}) == 3
    ):
        return []
    found, at = [], HEAD_BYTES
    for mark, body in scan(whole, salt).records:
        end = at + len(record(mark, body, salt))
        if end <= cut and not any(at <= flip // 8 < end for flip in flips):
            found.append(mark)
        at = end
    return found


@given(st.data())
async def test_power_is_lost_at_any_moment(data: st.DataObject) -> None:
    """Row 4: what was said to be synced is found, whatever else of the files is left."""
    disk = ShadowDisk()
    steps = data.draw(
        st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=12)
    )
    promised: set[int] = set()
    async with opened(disk) as journal:
        number = 0
        for entries, wait in steps:
            marks = []
            for _ in range(entries):
                number += 1
                marks.append((number, journal.append(placed(number))))
            if wait and await journal.reached(marks[-1][1], 1.0, synced=True):
                promised.update(range(1, number + 1))
        # The journal is not closed before the power goes: a copy is what is left.
        left = ShadowDisk(
            {name: bytearray(each) for name, each in disk.contents.items()}, dict(disk.durable)
        )
    left.lose_power(data.draw(st.lists(st.floats(0, 1), min_size=9, max_size=9)))
    async with opened(left) as journal:
        numbers = {entry.first_seq for entry in await entries_of(journal)}
    assert promised <= numbers


async def test_what_cannot_be_read_is_put_aside_and_counted() -> None:
    """The bytes are there for a person to look at; the journal goes on without them."""
    disk, heard = ShadowDisk(), Heard()
    async with opened(disk) as journal:
        await synced(journal, placed(1), placed(2), placed(3))
    (name,) = disk.names()
    data = disk.contents[name]
    data[data.index(b"op-2")] ^= 1
    async with opened(disk, heard) as journal:
        assert [entry.first_seq for entry in await entries_of(journal)] == [1, 3]
    assert heard.damage == {"corrupt": 1}
    (aside,) = disk.aside.values()
    assert b"payload" in aside


async def test_a_file_of_nothing_is_no_harm() -> None:
    """A segment that was created, and lost before its head was written."""
    disk = ShadowDisk({"000000000001.seg": bytearray()})
    async with opened(disk) as journal:
        await synced(journal, placed(1))
    async with opened(disk) as journal:
        assert journal.unconfirmed() == {LANE: ((1, 1),)}


async def test_a_resolution_without_its_entry_is_passed_over() -> None:
    """A stale end: what it resolves went with an older segment."""
    disk = ShadowDisk()
    async with opened(disk) as journal:
        first, _ = await synced(journal, pending("a"), reservation("r"))
        journal.resolve(first)
        await synced(journal, placed(1))
    (name,) = disk.names()
    data = disk.contents[name]
    at = data.index(b"acme") - 4
    data[at] ^= 1
    async with opened(disk) as journal:
        assert list(journal.pending()) == []
        assert journal.unconfirmed() == {LANE: ((1, 1),)}
