"""admit ─▶ [ durable ] ─▶ api: an answer waits until its events are as safe as its caller asks.

If we die here, the events are where they are: the caller retries and gets the first answer, when
they are safe by then.

Guarantees: a level is told only when it was reached, by a sync that succeeded or by the ledger's
own word; nobody waits longer than its caller does.
Refuses to know: disks, and how the ledger comes to know events.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.decision import Decided, Operation
from tallygate.domain.errors import NotDurable, TallygateError
from tallygate.domain.numbers import Numbers
from tallygate.domain.quick import quick
from tallygate.domain.request import Durability
from tallygate.ports.epochs import SeenNumbers
from tallygate.ports.journal import Journal, Lane

# A sync takes milliseconds; where it takes this long, a record is said to be in the store alone.
SYNC_WAIT_S: Final = 1.0
# What is kept of a caller's time for the answer itself.
ANSWER_S: Final = 0.01
# An ingester takes some 20 ms at least: asking more often would tell nothing sooner.
LEDGER_POLL_S: Final = 0.02
# Nobody waits longer for the ledger than this, with whatever deadline.
LEDGER_WAIT_S: Final = 60.0

# An enumeration's members are slow to find, and every call needs these.
_NONE: Final = Durability.UNSPECIFIED
_REDIS: Final = Durability.REDIS
_LEDGER: Final = Durability.POSTGRES

Level = Durability | TallygateError


@quick
@dataclass(frozen=True, slots=True)
class Needed:
    """An answer with its operation, and the least that its caller accepts.

    A `record` is worth waiting for the disk, also where its caller does not ask for it.
    """

    answer: Decided
    operation: Operation
    least: Durability
    record: bool = False

    @property
    def unstored(self) -> bool:
        """Whether no store has it."""
        return self.answer.degraded or self.answer.leased


@dataclass(slots=True)
class _Waiter:
    lane: Lane
    first: int
    last: int
    done: asyncio.Future[bool]


@dataclass(slots=True)
class LedgerWatch:
    """Asks which numbers the ledger has, as long as somebody waits for some."""

    seen: SeenNumbers
    _waiters: list[_Waiter] = field(default_factory=list)
    _asking: asyncio.Task[None] | None = None

    async def reached(self, lane: Lane, first: int, last: int, timeout_s: float) -> bool:
        """Wait until the ledger has the numbers; say if it has."""
        waiter = _Waiter(lane, first, last, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="ledger-watch")
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.done
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)

    async def _ask(self) -> None:
        while self._waiters:
            lanes = list({waiter.lane for waiter in self._waiters})
            try:
                found = await self.seen.seen(lanes)
            except TallygateError:
                # It is asked again: whoever cannot wait longer gives up by itself.
                found = []
            known = {(each.source_id, each.shard): Numbers(each.ranges) for each in found}
            for waiter in self._waiters:
                numbers = known.get(waiter.lane)
                covered = numbers is not None and numbers.covers(waiter.first, waiter.last)
                if covered and not waiter.done.done():
                    waiter.done.set_result(True)
            await asyncio.sleep(LEDGER_POLL_S)


class Durable:
    """Has answers wait. Without a journal there is nothing to wait for."""

    def __init__(self, journal: Journal | None = None, ledger: LedgerWatch | None = None) -> None:
        self._journal = journal
        self._ledger = ledger
        self.offered: Final = (
            Durability.REDIS
            if journal is None
            else Durability.JOURNAL
            if ledger is None
            else Durability.POSTGRES
        )

    def known(self, answer: Decided, least: Durability, *, record: bool) -> Level | None:
        """Return the level of a grant that has nothing to wait for, None of any other.

        For most there is nothing to find out: they are in the store, and no more is asked.
        """
        unstored = answer.degraded or answer.leased
        if not (unstored or record) and least <= _REDIS:
            return _REDIS
        if self._journal is not None and answer.journal_mark:
            return None
        if self._ledger is not None and least is _LEDGER:
            return None
        level = _NONE if unstored else _REDIS
        return level if level >= self._floor(least, unstored, record=record) else NotDurable()

    @staticmethod
    def patient(needed: Needed, expires_at: float) -> bool:
        """Say whether an answer waits for the disk alone, and as long as any that does."""
        return needed.least is not _LEDGER and _left_s(expires_at) >= SYNC_WAIT_S

    async def reach(
        self, needed: Sequence[Needed | None], expires_at: float = float("inf")
    ) -> list[Level]:
        """Return the level that each answer has reached, or `NotDurable`.

        The event of one that is not as durable as asked is accepted all the same.
        """
        levels = [_stored(each) for each in needed]
        if self._journal is not None:
            await self._written(self._journal, needed, levels, expires_at)
        if self._ledger is not None:
            waiting = [
                self._in_ledger(self._ledger, needed, levels, place, expires_at)
                for place, each in enumerate(needed)
                if each is not None and each.answer.allowed and each.least is Durability.POSTGRES
            ]
            if waiting:
                await asyncio.gather(*waiting)
        return [
            level if each is None or level >= self._least(each) else NotDurable()
            for each, level in zip(needed, levels, strict=True)
        ]

    async def _written(
        self,
        journal: Journal,
        needed: Sequence[Needed | None],
        levels: list[Durability],
        expires_at: float,
    ) -> None:
        """Raise the levels of what the journal has."""
        places: dict[Durability, list[int]] = {Durability.BUFFERED: [], Durability.JOURNAL: []}
        for place, each in enumerate(needed):
            wanted = _wants(each) if each is not None and each.answer.journal_mark else None
            if wanted in places:
                places[wanted].append(place)
        for level, some in places.items():
            if some:
                await self._raised(journal, needed, levels, (level, some), expires_at)

    async def _raised(
        self,
        journal: Journal,
        needed: Sequence[Needed | None],
        levels: list[Durability],
        wanted: tuple[Durability, list[int]],
        expires_at: float,
    ) -> None:
        level, places = wanted
        synced = level is Durability.JOURNAL
        marks = {
            place: each.answer.journal_mark
            for place in places
            if (each := needed[place]) is not None
        }
        timeout_s = min(SYNC_WAIT_S, _left_s(expires_at))
        whole = await journal.reached(max(marks.values()), timeout_s, synced=synced)
        for place, mark in marks.items():
            if whole or await journal.reached(mark, 0, synced=synced):
                levels[place] = max(level, levels[place])

    async def _in_ledger(
        self,
        ledger: LedgerWatch,
        needed: Sequence[Needed | None],
        levels: list[Durability],
        place: int,
        expires_at: float,
    ) -> None:
        each = needed[place]
        assert each is not None
        answer = each.answer
        if not (answer.first_seq and answer.source_id):
            return
        last = answer.first_seq + each.operation.event_count - 1
        lane = (answer.source_id, each.operation.shard)
        timeout_s = min(LEDGER_WAIT_S, _left_s(expires_at))
        if await ledger.reached(lane, answer.first_seq, last, timeout_s):
            levels[place] = Durability.POSTGRES

    def _least(self, needed: Needed) -> Durability:
        """Return the least that the answer may be told with."""
        if not needed.answer.allowed:
            return Durability.UNSPECIFIED
        return self._floor(needed.least, needed.unstored, record=needed.record)

    def _floor(self, least: Durability, unstored: bool, *, record: bool) -> Durability:
        """Return the least that a grant may be told with."""
        if least is not Durability.UNSPECIFIED or self._journal is None:
            return least
        if not unstored:
            return Durability.REDIS
        return Durability.JOURNAL if record else Durability.BUFFERED


def _stored(needed: Needed | None) -> Durability:
    """Return how durable an answer is by what has given it."""
    if needed is None or not needed.answer.allowed or needed.unstored:
        return Durability.UNSPECIFIED
    return Durability.REDIS


def _wants(needed: Needed) -> Durability:
    """Return the level that is waited for, in the journal."""
    if needed.least >= Durability.JOURNAL or needed.record:
        return Durability.JOURNAL
    if needed.least is Durability.REDIS:
        # What no store has is as safe as that only when it is synced.
        return Durability.JOURNAL if needed.unstored else Durability.REDIS
    return Durability.BUFFERED if needed.unstored else Durability.UNSPECIFIED


def _left_s(expires_at: float) -> float:
    """Return how long a caller still waits, in seconds."""
    return max(0.0, expires_at - asyncio.get_running_loop().time() - ANSWER_S)
