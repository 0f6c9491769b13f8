"""What was in the spool when a process ended is there for the next one, whole."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tallygate_client import BufferFull, SpoolFailed, SpoolInUse
from tallygate_client.gen.v1 import quota_pb2, usage_pb2
from tallygate_client.spool import SEGMENT_S, Spool
from tallygate_client.spool_format import Broken, Entry, decode, encode, name_of
from tallygate_client.spool_lock import start_ticks

BYTES_MAX = 1024 * 1024


def usage(number: int, text: str = "") -> Entry:
    """Return an event."""
    event_id = f"e{number}{text}"
    return Entry(usage_pb2.RecordUsageRequest(tenant_id="a", meter="m", event_id=event_id))


def commit() -> Entry:
    """Return a commit with what to record in its stead."""
    request = quota_pb2.CommitRequest(tenant_id="a", reservation_id="r", operation_id="o")
    events = [usage_pb2.RecordUsageRequest(event_id=f"o:{each}") for each in range(2)]
    return Entry(request, tuple(events))


def opened(directory: Path, bytes_max: int = BYTES_MAX) -> Spool:
    """Open a spool."""
    return Spool(directory, bytes_max=bytes_max, sync_each=False)


def test_entries_read_back() -> None:
    """Both kinds of entry are read as they were written, each up to where its record ends."""
    entries = [usage(1), commit(), usage(2)]
    records = [encode(each) for each in entries]
    ends = [sum(map(len, records[: index + 1])) for index in range(3)]
    assert list(decode(b"".join(records))) == list(zip(ends, entries, strict=True))


def test_bytes_of_a_record() -> None:
    """The format is that of every language: length, CRC-32, kind, message."""
    record = encode(usage(7))
    message = usage(7).message.SerializeToString()
    assert record[:4] == (len(message) + 1).to_bytes(4, "little")
    assert record[8:] == b"\x01" + message
    message = commit().message.SerializeToString()
    assert encode(commit())[8 : 13 + len(message)] == (
        b"\x03" + len(message).to_bytes(4, "little") + message
    )
    plain = b"\x02" + message
    assert [each.message for _, each in decode(_framed(plain))] == [commit().message]


@pytest.mark.parametrize("payload", [b"", b"\x09abc", b"\x03\x01", b"\x01\xff\xff"])
def test_unknown_payload_is_broken(payload: bytes) -> None:
    """What holds no known message is no entry, though its sum is right."""
    with pytest.raises(Broken):
        list(decode(_framed(payload)))


def test_every_cut_gives_what_was_whole(tmp_path: Path) -> None:
    """Cut at any byte, a segment gives every entry before the cut, and is torn unless at an end."""
    entries = [usage(1), commit(), usage(2, "longer")]
    records = [encode(each) for each in entries]
    content = b"".join(records)
    ends = [0, *(sum(map(len, records[: index + 1])) for index in range(3))]
    for cut in range(len(content) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / name_of(1)).write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends) - 1
        spool = opened(directory)
        assert [entry for entry, _ in spool.found] == entries[:whole]
        assert spool.torn == (cut not in ends)
        assert spool.size == ends[whole]
        spool.close()
        again = opened(directory)
        assert (again.torn, len(again.found)) == (0, whole)
        again.close()


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """A byte that changed ends the reading there, and what follows is set aside for a person."""
    entries = [usage(1), usage(2), usage(3)]
    records = [encode(each) for each in entries]
    content = b"".join(records)
    for at in range(len(records[0]), len(records[0]) + len(records[1])):
        directory = tmp_path / str(at)
        directory.mkdir()
        spoilt = bytearray(content)
        spoilt[at] ^= 0x55
        (directory / name_of(4)).write_bytes(spoilt)
        spool = opened(directory)
        assert [entry for entry, _ in spool.found] == entries[:1]
        assert spool.torn == 1
        aside = (directory / name_of(4)).with_suffix(".bad").read_bytes()
        assert aside == spoilt[len(records[0]) :]
        spool.close()


def test_segment_goes_with_its_last_entry(tmp_path: Path) -> None:
    """A segment is deleted once nothing in it is left, no sooner."""
    spool = opened(tmp_path)
    segment = spool.append([usage(1), usage(2)], 0.0)
    later = spool.append([usage(3)], SEGMENT_S)
    assert later is not segment
    spool.done(segment)
    assert segment.path.exists()
    spool.done(segment)
    assert not segment.path.exists()
    assert spool.size == len(encode(usage(3)))
    spool.close()
    spool = opened(tmp_path)
    assert [entry for entry, _ in spool.found] == [usage(3)]
    ((_, found),) = spool.found
    assert spool.append([usage(4)], 0.0).path.name > found.path.name
    spool.close()


def test_full_spool_takes_nothing(tmp_path: Path) -> None:
    """Beyond its bytes a spool refuses, all or nothing, and takes again once there is room."""
    size = len(encode(usage(1)))
    spool = opened(tmp_path, bytes_max=2 * size)
    segment = spool.append([usage(1)], 0.0)
    with pytest.raises(BufferFull):
        spool.append([usage(2), usage(3)], 0.0)
    assert spool.size == size
    spool.done(segment)
    spool.append([usage(2), usage(3)], 0.0)
    spool.close()


def test_disk_that_fails_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was half written when the disk failed is not there afterwards; the next is."""
    spool = opened(tmp_path)
    spool.append([usage(1)], 0.0)
    write = os.write

    def half(file: int, content: memoryview) -> int:
        if len(content) < 20:
            raise OSError(28, "No space left on device")
        return write(file, content[: len(content) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(SpoolFailed):
            spool.append([usage(2)], 0.0)
    spool.append([usage(3)], 0.0)
    spool.close()
    again = opened(tmp_path)
    assert [entry for entry, _ in again.found] == [usage(1), usage(3)]
    assert again.torn == 0
    again.close()


def test_one_holder_in_a_process(tmp_path: Path) -> None:
    """A second spool of this process on the same directory is refused, until the first closes."""
    first = opened(tmp_path)
    with pytest.raises(SpoolInUse):
        opened(Path(f"{tmp_path}/."))
    assert (tmp_path / "lock").read_text() == f"{os.getpid()} {start_ticks(os.getpid())}\n"
    first.close()
    assert (tmp_path / "lock").read_text() == ""
    opened(tmp_path).close()


def test_one_holder_over_processes(tmp_path: Path) -> None:
    """Another process is refused while this one holds the directory by its POSIX lock alone."""
    spool = opened(tmp_path)
    # Not by opening it: who closes any file of its own on it gives up a POSIX lock.
    os.truncate(tmp_path / "lock", 0)
    code = (
        "import sys; from pathlib import Path; from tallygate_client.spool import Spool;"
        "Spool(Path(sys.argv[1]), bytes_max=9, sync_each=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        timeout=60,
    )
    assert "SpoolInUse" in done.stderr
    spool.close()


def test_line_of_a_living_process_holds(tmp_path: Path) -> None:
    """Who has no POSIX locks holds by its line alone, while it lives and is the same process."""
    parent = os.getppid()
    (tmp_path / "lock").write_text(f"{parent} {start_ticks(parent)}\n")
    with pytest.raises(SpoolInUse, match=f"process {parent}"):
        opened(tmp_path)
    (tmp_path / "lock").write_text(f"{parent} 1\n")
    opened(tmp_path).close()


def _framed(payload: bytes) -> bytes:

    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
