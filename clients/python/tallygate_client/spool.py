"""Entries on the disk until they are sent: what outlives the process that took them.

An entry is in a file before `append` returns; a segment goes once nothing in it is left to send.
What is found at the start is given back to be sent, and what is broken is set aside.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .errors import BufferFull, SpoolFailed
from .spool_format import SET_ASIDE, Broken, Entry, decode, encode, name_of, number_of
from .spool_lock import DirectoryLock

logger = logging.getLogger("tallygate_client")

SEGMENT_BYTES: Final = 1024 * 1024
SEGMENT_S: Final = 10.0


@dataclass(slots=True, eq=False)
class Segment:
    """One file: how long it is, and how many of its entries are not yet done with."""

    path: Path
    size: int
    left: int
    # -1 once nothing is added any more.
    file: int = -1
    began: float = 0.0


class Spool:
    """A directory of segments. Not safe under threads but for `sync`: its buffer has a lock."""

    def __init__(self, directory: Path, *, bytes_max: int, sync_each: bool) -> None:
        """Hold the directory, and read what is in it.

        Raises:
            SpoolInUse: somebody else holds it.
            OSError: it cannot be made, read or written.
        """
        self.torn = 0
        self.size = 0
        self.found: list[tuple[Entry, Segment]] = []
        self._directory = directory
        self._bytes_max = bytes_max
        self._sync_each = sync_each
        self._active: Segment | None = None
        self._dirty = False
        self._number = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(directory)
        self._lock.take()
        try:
            self._read_all()
        except BaseException:
            self._lock.free()
            raise

    def append(self, entries: Sequence[Entry], now: float) -> Segment:
        """Write entries, all of them or none, and return where they are.

        Raises:
            BufferFull: there would be more bytes than there may be.
            SpoolFailed: the disk refused.
        """
        records = b"".join(map(encode, entries))
        if self.size + len(records) > self._bytes_max:
            raise BufferFull("the spool is full", field="spool_max_bytes")
        try:
            segment = self._writable(now)
        except OSError as error:
            raise SpoolFailed(f"the spool cannot be written: {error.strerror}") from error
        try:
            _write(segment.file, records)
            if self._sync_each:
                os.fsync(segment.file)
        except OSError as error:
            # What is half there would be sent though the caller heard that it was not taken.
            with contextlib.suppress(OSError):
                os.ftruncate(segment.file, segment.size)
            self._seal()
            raise SpoolFailed(f"the spool cannot be written: {error.strerror}") from error
        segment.size += len(records)
        segment.left += len(entries)
        self.size += len(records)
        self._dirty = not self._sync_each
        return segment

    def done(self, segment: Segment) -> None:
        """Hear that one entry of a segment is done with; with its last, the segment goes."""
        segment.left -= 1
        if segment.left:
            return
        if segment is self._active:
            self._seal()
        self._remove(segment)

    def unsynced(self) -> list[int]:
        """Return what is to be synced, as open files that are the caller's to close."""
        if not self._dirty or self._active is None:
            return []
        self._dirty = False
        return [os.dup(self._active.file), _opened(self._directory)]

    def close(self) -> None:
        """Sync what is there, and hold the directory no more."""
        self._seal()
        self._lock.free()

    def forked(self) -> None:
        """Leave all to the parent."""
        if self._active is not None:
            os.close(self._active.file)
            self._active = None
        self._lock.forked()

    def _writable(self, now: float) -> Segment:
        active = self._active
        if active is not None and (active.size >= SEGMENT_BYTES or now - active.began >= SEGMENT_S):
            self._seal()
        if self._active is None:
            self._number += 1
            path = self._directory / name_of(self._number)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._active = Segment(path, 0, 0, os.open(path, flags, 0o600), now)
            if self._sync_each:
                _sync([_opened(self._directory)])
        return self._active

    def _seal(self) -> None:
        """Add to the active segment no more."""
        active, self._active = self._active, None
        if active is None:
            return
        try:
            if active.left and self._dirty:
                with contextlib.suppress(OSError):
                    _sync([os.dup(active.file), _opened(self._directory)])
        finally:
            self._dirty = False
            os.close(active.file)
            active.file = -1
        if not active.left:
            self._remove(active)

    def _remove(self, segment: Segment) -> None:
        self.size -= segment.size
        segment.size = 0
        with contextlib.suppress(OSError):
            # What stays is sent again at the next start, under the same ids.
            segment.path.unlink(missing_ok=True)

    def _read_all(self) -> None:
        numbers = sorted(
            number
            for each in self._directory.iterdir()
            if (number := number_of(each.name)) is not None
        )
        for number in numbers:
            self._read(self._directory / name_of(number))
        self._number = numbers[-1] if numbers else 0

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        segment = Segment(path, 0, 0)
        entries = []
        try:
            for end, entry in decode(content):
                segment.size = end
                entries.append((entry, segment))
        except Broken:
            self.torn += 1
            self._set_aside(path, content, segment.size)
        segment.left = len(entries)
        self.size += segment.size
        self.found += entries
        if not entries:
            self._remove(segment)

    def _set_aside(self, path: Path, content: bytes, whole: int) -> None:
        """Keep what cannot be read for a person to look at, and read it no more."""
        aside = path.with_suffix(SET_ASIDE)
        aside.write_bytes(content[whole:])
        os.truncate(path, whole)


class Syncing:
    """Syncs a spool again and again from a thread of its own, so that nobody waits for a disk."""

    def __init__(self, spool: Spool, lock: threading.Lock, every_s: float) -> None:
        self._spool = spool
        self._lock = lock
        self._every_s = every_s
        self._work = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tallygate-spool", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Hear that something was written."""
        self._work.set()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        while self._work.wait() and not self._stop.wait(self._every_s):
            self._work.clear()
            with self._lock:
                files = self._spool.unsynced()
            try:
                _sync(files)
            except OSError as error:
                logger.warning("the spool could not be synced: %s", error.strerror)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync(files: Sequence[int]) -> None:
    """Sync files and close them."""
    try:
        for file in files:
            os.fsync(file)
    finally:
        for file in files:
            os.close(file)
