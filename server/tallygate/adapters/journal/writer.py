"""The one thread that writes the journal: what is queued goes out in one write, and one sync.

Guarantees: what it says is synced has been, by a sync that did not fail; a file whose sync has
failed is given up, and what it may have lost is written anew elsewhere before it counts as synced.
Refuses to know: what items mean, and who waits.

After a failed sync the system may have dropped what it could not write, and says so only once: a
second sync of the same file would succeed without it.
"""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.adapters.journal.bell import Bell
from tallygate.adapters.journal.entry_codec import Item, encode
from tallygate.adapters.journal.files import AppendFile, Files
from tallygate.adapters.journal.index import Index
from tallygate.adapters.journal.recovery import Found
from tallygate.adapters.journal.segment import HEAD_BYTES, head, record

SEGMENT_BYTES: Final = 4 * 1024 * 1024
# A group that one write takes: a megabyte is on the disk in a few milliseconds.
GROUP_BYTES: Final = 1024 * 1024
# What nobody waits to be synced is synced after so long: while a sync lasts nothing is written, and
# a disk that takes 5 ms for one would have those wait who wait for a write.
SYNC_LINGER_S: Final = 0.1
# Between two tries of a disk that fails.
RETRY_S: Final = 0.5

Queued = tuple[int, Item, int]
"""A mark, an item, and its size, about."""


class WriterObserver(Protocol):
    """What the writer tells of itself. It is called in the writer's thread."""

    def synced(self, seconds: float, entries: int) -> None:
        """A sync has ended well, for so many entries."""

    def failed(self, reason: str) -> None:
        """A write or a sync has failed: full, or broken."""

    def recovered(self) -> None:
        """The disk takes entries again."""


@dataclass(frozen=True, slots=True)
class WriterParts:
    """What the writer works with. `told` is called after each group, in the writer's thread."""

    files: Files
    index: Index
    observer: WriterObserver
    told: Callable[[], None]


class Writer:
    """Writes what is queued: in a thread of its own once started, else when `step` is called."""

    def __init__(self, parts: WriterParts, found: Found) -> None:
        self._parts = parts
        self._salt = found.salt
        self._next_segment = found.next_segment
        self._queue: deque[Queued] = deque()
        self._file: AppendFile | None = None
        self._name = ""
        self._length = 0
        # Whether a sync of the file has succeeded: it then holds what is nowhere else.
        self._trusted = False
        # Written, but not by a sync that has succeeded: kept to be written elsewhere.
        self._unsynced: list[Queued] = []
        # Rung when somebody waits, or has waited for others to gather.
        self._bell = Bell()
        # Whether somebody waits for a sync, and when the oldest that has none was written.
        self._sync_wanted = False
        self._unsynced_s = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        # What was found is on the disk.
        self.written = self.synced = found.next_mark - 1
        self.failing = ""
        # Of what the thread has taken from the queue, or finished: only it writes these.
        self._done_bytes = 0
        self._done = 0
        self._put_bytes = 0
        self._put = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """The size of what is not synced, about."""
        return self._put_bytes - self._done_bytes

    @property
    def queued(self) -> int:
        """How many items are not synced."""
        return self._put - self._done

    def put(self, mark: int, item: Item, size: int) -> None:
        """Queue an item; it is written once something hastens."""
        self._queue.append((mark, item, size))
        self._put += 1
        self._put_bytes += size

    def hasten(self, *, synced: bool = True) -> None:
        """Write soon, and sync what was queued before this where it is wanted."""
        if synced:
            self._sync_wanted = True
        self._bell.ring()

    def close(self) -> None:
        """Write and sync what is queued, once, and end the thread."""
        self._closing = True
        self._bell.ring()
        if self._thread.ident is not None:
            self._thread.join()
        self.step()
        if self._file is not None:
            self._file.close()

    def _run(self) -> None:
        while True:
            self._bell.wait(self._rest_s())
            self.step(sync=self._closing or bool(self.failing))
            if self._closing and not self._queue:
                return

    def _rest_s(self) -> float | None:
        """Return after how long there is something to do, None for when something is queued."""
        if self.failing:
            return RETRY_S
        if not self._unsynced:
            return None
        return max(0.0, self._unsynced_s + SYNC_LINGER_S - time.monotonic())

    def step(self, *, sync: bool = True) -> None:
        """Write until nothing is queued, or the disk fails, and sync.

        Without `sync`, only what somebody waits for, or what has lingered: a sync takes long beside
        a write, and keeps others from being written.
        """
        while self._queue or self._unsynced:
            if self._sync_wanted:
                # Before the queue is looked at: who asks later finds it set again.
                self._sync_wanted, sync = False, True
            group = self._take()
            try:
                if self.failing:
                    # The file it failed on is given up, whatever it holds.
                    self._unsynced += group
                    group = []
                    self._begin()
                    self._write(self._unsynced)
                elif group:
                    if not self._unsynced:
                        self._unsynced_s = time.monotonic()
                    self._unsynced += group
                    self._write(group)
                if sync or time.monotonic() >= self._unsynced_s + SYNC_LINGER_S:
                    self._sync()
                elif not self._queue:
                    return
            except OSError as error:
                self._give_up(error)
                return
            finally:
                self._parts.told()

    def _take(self) -> list[Queued]:
        group: list[Queued] = []
        size = 0
        while self._queue and size < GROUP_BYTES:
            queued = self._queue.popleft()
            group.append(queued)
            size += queued[2]
        return group

    def _write(self, group: list[Queued]) -> None:
        if self._file is None or self._length >= SEGMENT_BYTES:
            self._begin()
        assert self._file is not None
        data = b"".join(record(mark, encode(item), self._salt) for mark, item, _ in group)
        self._file.write(data)
        self._length += len(data)
        self._parts.index.grew(len(data))
        for mark, item, _ in group:
            self._parts.index.put(mark, item)
        self.written = max(self.written, group[-1][0])
        self._parts.told()

    def _sync(self) -> None:
        assert self._file is not None
        began_s = time.perf_counter()
        self._file.sync()
        self._trusted = True
        count = len(self._unsynced)
        self._parts.observer.synced(time.perf_counter() - began_s, count)
        self.synced = max(self.synced, self._unsynced[-1][0])
        self._done += count
        self._done_bytes += sum(size for _, _, size in self._unsynced)
        self._unsynced.clear()
        if self.failing:
            self.failing = ""
            self._parts.observer.recovered()

    def _begin(self) -> None:
        """Begin a segment. Each has its own file, which is never written again once left."""
        if self._file is not None:
            self._file.close()
            self._file = None
        name = f"{self._next_segment:012d}.seg"
        self._next_segment += 1
        self._file, self._name = self._parts.files.create(name), name
        self._length, self._trusted = 0, False
        self._parts.index.begin(name, time.time_ns() // 1000)
        self._file.write(head(self._salt))
        self._length = HEAD_BYTES
        self._parts.index.grew(HEAD_BYTES)

    def _give_up(self, error: OSError) -> None:
        reason = "full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "broken"
        if self.failing != reason:
            self._parts.observer.failed(reason)
        self.failing = reason
        file, self._file = self._file, None
        if file is None:
            return
        try:
            # What is half written is not to be found later as if it were whole.
            file.cut(self._length)
        except OSError:
            self._parts.observer.failed("broken")
        file.close()
        if not self._trusted:
            # All of it is kept in memory, to be written to the next segment.
            self._parts.index.abandon(self._name)
            try:
                self._parts.files.remove(self._name)
            except OSError:
                self._parts.observer.failed("broken")
