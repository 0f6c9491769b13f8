"""calls · commands ─▶ [ trail ] ─▶ audit_log: who asked for what, before he is answered.

If we die here before a change, it was not made and is not in the log. If we die after it, the log
has that it was asked for and not what came of it. If we die after a read, nobody had the answer.

Guarantees: no change begins before the log has that it was asked for; no read is answered before
the log has it. Entries that come together are written together: one append is under way at a time,
and those that come meanwhile go with the next. So many wait at most; one more is refused.
Refuses to know: transports, and what is asked.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Protocol

from tallygate.domain.errors import Overloaded, TallygateError
from tallygate.domain.trail import ASKED, DONE, FAILED, ChainBreak, ChainCheck, TrailEntry
from tallygate.ports.trail import TrailLog

# A second's worth of what one chain takes: beyond, Postgres does not keep up or does not answer.
WAITING_MAX: Final = 1_000
# A tenth of it: some hundred kilobytes, and a few milliseconds of the chain.
BATCH_MAX: Final = 100
# At a process's end: half of what a stop is given for calls.
CLOSE_S: Final = 5.0
# More places of one chain are not worth a reader's time.
BREAKS_MAX: Final = 1_000


class TrailObserver(Protocol):
    """What the trail tells of itself."""

    def appended(self, entries: int, head: int) -> None:
        """So many entries were written at once, up to this number."""
        ...

    def waiting(self, entries: int) -> None:
        """So many entries wait to be written."""
        ...

    def refused(self) -> None:
        """A call was refused, for want of room for its entry."""
        ...

    def unrecorded(self) -> None:
        """What became of a call could not be written."""
        ...


class SilentTrail:
    """Tells nobody."""

    def appended(self, entries: int, head: int) -> None:
        """Do nothing."""

    def waiting(self, entries: int) -> None:
        """Do nothing."""

    def refused(self) -> None:
        """Do nothing."""

    def unrecorded(self) -> None:
        """Do nothing."""


class Trail:
    """Writes entries to the audit log, those together that come together."""

    def __init__(self, log: TrailLog, observer: TrailObserver | None = None) -> None:
        self._log = log
        self._observer: TrailObserver = observer or SilentTrail()
        self._queue: deque[tuple[TrailEntry, asyncio.Future[None]]] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def write(self, entry: TrailEntry) -> None:
        """Return once the log has the entry. Raises `Overloaded` and what the log raises."""
        if len(self._queue) >= WAITING_MAX:
            self._observer.refused()
            raise Overloaded("too many calls wait for the audit log")
        await self._put(entry)

    @asynccontextmanager
    async def read(self, entry: TrailEntry) -> AsyncIterator[None]:
        """Record a read with what came of it, before it is answered."""
        try:
            yield
        except BaseException as error:
            self._leave(replace(entry, outcome=_outcome(error)))
            raise
        await self.write(entry)

    @asynccontextmanager
    async def change(self, entry: TrailEntry) -> AsyncIterator[None]:
        """Record a change twice: that it was asked for, before it is made, and what came of it.

        What was made is answered even where the second could not be written.
        """
        entry = replace(entry, call_id=entry.call_id or uuid.uuid4().hex)
        await self.write(replace(entry, outcome=ASKED))
        try:
            yield
        except BaseException as error:
            self._leave(replace(entry, outcome=_outcome(error)))
            raise
        try:
            await self.write(replace(entry, outcome=DONE))
        except TallygateError:
            self._observer.unrecorded()

    async def close(self) -> None:
        """Wait for a while until what was handed in is written, or cannot be."""
        if self._writing is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writing
        except TimeoutError:
            # Nobody waits for these any more: they are of calls that were given up.
            for _ in self._queue:
                self._observer.unrecorded()

    def _leave(self, entry: TrailEntry) -> None:
        """Have an entry written that nobody waits for: whoever asked has his error already."""
        if len(self._queue) >= WAITING_MAX:
            self._observer.unrecorded()
            return
        self._put(entry).add_done_callback(self._settle)

    def _settle(self, written: "asyncio.Future[None]") -> None:
        if not written.cancelled() and written.exception() is not None:
            self._observer.unrecorded()

    def _put(self, entry: TrailEntry) -> "asyncio.Future[None]":
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, written))
        self._observer.waiting(len(self._queue))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain(), name="trail")
        return written

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            error: Exception | None = None
            try:
                head = await self._log.append([entry for entry, _ in batch])
                self._observer.appended(len(batch), head)
            except Exception as raised:  # noqa: BLE001  each caller gets it, whatever it is
                error = raised
            for _, written in batch:
                # Whoever has gone meanwhile is not told.
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
            self._observer.waiting(len(self._queue))


async def verify_trail(log: TrailLog, check: ChainCheck) -> list[ChainBreak]:
    """Return where the chain does not hold, of all rows there are now."""
    found: list[ChainBreak] = []
    async with log.chain() as chain:
        async for page in chain.pages:
            for link in page:
                found += check.add(link)
            if len(found) >= BREAKS_MAX:
                return found
        found += check.end(chain.head)
    return found


def _outcome(error: BaseException) -> str:
    """Return what is recorded of an error: its reason, never its text."""
    if isinstance(error, TallygateError) and error.reason != "INTERNAL":
        return f"refused: {error.reason}"
    return FAILED
