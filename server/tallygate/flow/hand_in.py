"""journal ─▶ [ hand_in ] ─▶ QuotaStore: what lost counters had counted is counted anew.

If we die here, the next process finds it in the journal still, and hands it in: the store knows
operations by their ids, and the ledger events by theirs. If we die after the store has counted
something and before its old numbers were told of, they are told of by the next process.

Guarantees: counters that went back behind what the journal holds of them are given up, also where
no call comes to find it out. An entry is forgotten only when the ledger has its events, or when
they are in a stream under other numbers; of a new epoch nothing is decided here, and nothing is
handed in before the ledger has said, once and for all, what it has of the old one.
Refuses to know: how counters are rebuilt.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.decision import Decided, Fenced, Mode
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import SourceId, epoch_of
from tallygate.domain.numbers import Numbers
from tallygate.flow.backlog import Backlog
from tallygate.flow.resubmit import EventDater, Granted, Rebinder, settle, ungated
from tallygate.ports import Clock, QuotaStore
from tallygate.ports.epochs import CounterStages, Ranges, Seen, SeenNumbers, ShardState, Stage
from tallygate.ports.journal import Journal, Lane, Stored

BATCH_MAX: Final = 128
# Windows that turn and counters that cannot be changed cost a try each.
TRIES_MAX: Final = 4
# An announcement is forgotten by itself, so that a sidecar that is gone keeps nobody waiting.
ANNOUNCE_S: Final = 2.0
# Reservations end by the store's clock; what is kept of them meanwhile is small.
HELD_S: Final = 10.0
# What was told of may be lost with a stream: told again, ever more seldom, in each epoch anew.
OWED_FIRST_S: Final = 5.0
OWED_LAST_S: Final = 600.0
# A lane more per epoch while the ledger is away; those of before are told of once.
OWED_LANES_MAX: Final = 1_000


class HandInObserver(Protocol):
    """What handing in tells of itself."""

    def handed_in(self, outcome: str, operations: int) -> None:
        """So many were handed in: counted, replayed, uncounted, conflict or reserved."""

    def accepted(self, events: int) -> None:
        """So many events are in the stream under other numbers."""


@dataclass(frozen=True, slots=True)
class HandInParts:
    """What handing in works with. `store` enters what it accepts into the journal."""

    journal: Journal
    backlog: Backlog
    store: QuotaStore
    stages: CounterStages
    seen: SeenNumbers
    rebinder: Rebinder
    dater: EventDater
    clock: Clock
    observer: HandInObserver
    # The store's time, by which reservations end; None where our own clock is the store's.
    store_us: Callable[[], Awaitable[int]] | None = None
    # Told of each shard's epoch, so that reservations are entered with it.
    epochs: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandedIn:
    """What one run handed in; `more` says that there is likely more."""

    operations: int = 0
    more: bool = False


class HandIn:
    """A step of a loop. `source_id` is the process's own, without an epoch."""

    def __init__(self, parts: HandInParts, source_id: SourceId) -> None:
        self._parts = parts
        self._source_id = source_id
        self._announced: dict[tuple[int, str], tuple[bool, float]] = {}
        # The epochs in which this process's reservations are held.
        self._holding: dict[int, str] = {}
        # The server's life, and the shards of which it may have lost the last moments.
        self._life = ""
        self._doubted: set[int] = set()
        self._held_s = 0.0
        self._owed = Owed()

    async def run_once(self) -> HandedIn:
        """Forget what the ledger has, and hand in what a new epoch lacks.

        Raises `BackendUnavailable`.
        """
        journal = self._parts.journal
        # In this order: what was numbered in another epoch than the shard's of now is of an older
        # one, and what is read of an epoch that is SEEN is what was told before it was.
        numbered = journal.unconfirmed()
        life = await self._parts.stages.life()
        states = await self._parts.stages.states()
        if self._life not in ("", life):
            # A reservation has no numbers by which its loss could be seen.
            self._doubted.update(state.shard for state in states)
        self._life = life
        self._parts.epochs.update((state.shard, state.epoch) for state in states)
        await self._trim()
        left = {lane: all_of for lane, all_of in journal.unconfirmed().items() if lane in numbered}
        operations = 0
        for state in states:
            if _went_back(state, numbered):
                # Nobody may call this shard again: then only its journals know that it went back.
                await self._parts.stages.renew(state.shard, state.epoch)
                continue
            lanes = {
                lane: ranges
                for lane, ranges in left.items()
                if lane[1] == state.shard and epoch_of(lane[0]) != state.epoch
            }
            operations += await self._shard(state, lanes)
            await self._tell(self._owed.due(state, self._parts.clock.monotonic()))
        await self._expire()
        await journal.tidy()
        return HandedIn(operations)

    async def _trim(self) -> None:
        journal = self._parts.journal
        lanes = list({**journal.unconfirmed(), **self._owed.lanes})
        if lanes:
            for found in await self._parts.seen.seen(lanes):
                journal.confirm((found.source_id, found.shard), found.ranges)
                self._owed.settle(found)

    async def _shard(self, state: ShardState, lanes: dict[Lane, Ranges]) -> int:
        """Hand in what the shard's epoch lacks; return how many operations that were."""
        held: list[Stored] = []
        if self._holding.get(state.shard) != state.epoch or state.shard in self._doubted:
            held = await self._held_of(state)
        waits = bool(lanes or held) or self._parts.backlog.waits_for(state.shard)
        if state.stage is Stage.LOST:
            if waits:
                await self._announce(state, done=False)
            return 0
        operations = await self._hand_in(state, lanes) if lanes else 0
        if held:
            operations += await self._hold(state, held)
        self._holding[state.shard] = state.epoch
        self._doubted.discard(state.shard)
        # The backlog's own loop hands over what waits, in whatever stage.
        told = (state.shard, state.epoch) in self._announced
        if state.stage is not Stage.OPEN and (waits or told):
            await self._announce(state, done=not self._parts.backlog.waits_for(state.shard))
        return operations

    async def _announce(self, state: ShardState, *, done: bool) -> None:
        key, now_s = (state.shard, state.epoch), self._parts.clock.monotonic()
        last_done, last_s = self._announced.get(key, (not done, 0.0))
        if last_done == done and now_s - last_s < ANNOUNCE_S:
            return
        await self._parts.seen.announce(state.shard, state.epoch, self._source_id, done=done)
        self._announced[key] = (done, now_s)

    async def _hand_in(self, state: ShardState, lanes: dict[Lane, Ranges]) -> int:
        operations = 0
        async for entries in self._parts.journal.placed(lanes):
            for start in range(0, len(entries), BATCH_MAX):
                some = [
                    each
                    for each in entries[start : start + BATCH_MAX]
                    # What is taken back is, when limits are decided again, looked at again.
                    if each.entry.operation.mode is not Mode.REFUND or state.stage is Stage.OPEN
                ]
                operations += await self._put(some)
        return operations

    async def _put(self, entries: Sequence[Stored]) -> int:
        """Put entries to the store, tell of their old numbers, and forget them."""
        rebinder = self._parts.rebinder
        done: list[Stored] = []
        waiting = [
            (stored, Granted(await rebinder.operation(stored.entry), _answer(stored), 0.0))
            for stored in entries
        ]
        async for stored, granted, outcome in self._settled(waiting):
            done.append(stored)
            self._parts.observer.handed_in(outcome, 1)
            if outcome in ("counted", "uncounted"):
                self._parts.observer.accepted(granted.operation.event_count)
        await self._forget(done)
        if entries and not done:
            raise BackendUnavailable("what has to be counted anew is not taken")
        return len(done)

    async def _settled(
        self, waiting: list[tuple[Stored, Granted]]
    ) -> AsyncIterator[tuple[Stored, Granted, str]]:
        """Put what waits to the store, until it has settled all that it takes; yield these."""
        parts = self._parts
        for _ in range(TRIES_MAX):
            if not waiting:
                return
            outcomes = await parts.store.decide(
                [ungated(each.operation, each.answer.at_us, parts.dater) for _, each in waiting]
            )
            again: list[tuple[Stored, Granted]] = []
            for (stored, granted), outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, TallygateError | Fenced):
                    continue
                settled = settle(granted, outcome)
                if settled:
                    yield stored, granted, settled
                else:
                    again.append((stored, granted))
            waiting = again

    async def _forget(self, done: Sequence[Stored]) -> None:
        """Tell the ledger that these numbers come again, then forget them."""
        by_lane: dict[Lane, Numbers] = {}
        for each in done:
            entry = each.entry
            lane = (entry.source_id, entry.operation.shard)
            last = entry.first_seq + entry.operation.event_count - 1
            by_lane.setdefault(lane, Numbers()).add(entry.first_seq, last)
        numbers = [Seen(*lane, found.ranges) for lane, found in by_lane.items()]
        await self._tell(numbers)
        for told in numbers:
            self._owed.add(told, self._parts.clock.monotonic())
            self._parts.journal.confirm((told.source_id, told.shard), told.ranges)

    async def _tell(self, numbers: Sequence[Seen]) -> None:
        if numbers:
            await self._parts.seen.hand_in(numbers)

    async def _held_of(self, state: ShardState) -> list[Stored]:
        """Return the live reservations of a shard that its counters may not have."""
        held = self._parts.journal.held()
        if not held:
            return []
        now_us = await self._store_us()
        marks = [mark for mark, ends_us in held.values() if ends_us > now_us]
        found = await self._parts.journal.read(marks)
        return [
            each
            for each in found
            if each.entry.operation.shard == state.shard
            and (epoch_of(each.entry.source_id) != state.epoch or state.shard in self._doubted)
        ]

    async def _hold(self, state: ShardState, held: Sequence[Stored]) -> int:
        """Make reservations anew, for what is left of their time."""
        parts, now_us = self._parts, await self._store_us()
        ends = dict(parts.journal.held().values())
        operations = 0
        for start in range(0, len(held), BATCH_MAX):
            waiting: list[tuple[Stored, Granted]] = []
            for stored in held[start : start + BATCH_MAX]:
                ttl_us = ends.get(stored.mark, 0) - now_us
                if ttl_us > 0:
                    operation = await parts.rebinder.reservation(stored.entry, ttl_us)
                    waiting.append((stored, Granted(operation, _answer(stored), 0.0)))
            taken = [each async for each in self._settled(waiting)]
            parts.observer.handed_in("reserved", len(taken))
            operations += len(taken)
            if len(taken) < len(waiting):
                raise BackendUnavailable(f"reservations of shard {state.shard} are not taken")
        return operations

    async def _store_us(self) -> int:
        """Return the store's time. Raises `BackendUnavailable`."""
        asked = self._parts.store_us
        return self._parts.clock.now_us() if asked is None else await asked()

    async def _expire(self) -> None:
        now_s = self._parts.clock.monotonic()
        if now_s - self._held_s >= HELD_S:
            self._held_s = now_s
            if self._parts.journal.held():
                release_ended(self._parts.journal, await self._store_us())


class Owed:
    """Numbers that were told of as handed in, until the ledger has taken note of them."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, Numbers] = {}
        # The epoch in whose stream each was told of last, empty for that of now; when it is told
        # of again, and after how long that is.
        self._next: dict[Lane, tuple[str, float, float]] = {}

    def add(self, told: Seen, now_s: float) -> None:
        """Note what was told of just now."""
        lane = (told.source_id, told.shard)
        numbers = self.lanes.setdefault(lane, Numbers())
        for first, last in told.ranges:
            numbers.add(first, last)
        self._next[lane] = ("", now_s + OWED_FIRST_S, OWED_FIRST_S)
        if len(self.lanes) > OWED_LANES_MAX:
            self._forget(next(iter(self.lanes)))

    def settle(self, seen: Seen) -> None:
        """Forget what the ledger has."""
        lane = (seen.source_id, seen.shard)
        numbers = self.lanes.get(lane)
        if numbers is None:
            return
        for first, last in seen.ranges:
            numbers.remove(first, last)
        if not numbers:
            self._forget(lane)

    def _forget(self, lane: Lane) -> None:
        del self.lanes[lane], self._next[lane]

    def due(self, state: ShardState, now_s: float) -> list[Seen]:
        """Return what is to be told of in a shard again, and note that it is told of now."""
        found: list[Seen] = []
        for lane, numbers in self.lanes.items():
            if lane[1] != state.shard or epoch_of(lane[0]) == state.epoch:
                continue
            epoch, at_s, delay_s = self._next[lane]
            if epoch not in ("", state.epoch):
                at_s, delay_s = now_s, OWED_FIRST_S / 2
            if now_s >= at_s:
                delay_s = min(OWED_LAST_S, 2 * delay_s)
                at_s = now_s + delay_s
                found.append(Seen(*lane, numbers.ranges))
            self._next[lane] = (state.epoch, at_s, delay_s)
        return found


def _went_back(state: ShardState, numbered: Mapping[Lane, Ranges]) -> bool:
    """Say whether the shard does not know a number any more that it had given out.

    `numbered` has to be older than `state`: what is given out in between is no sign.
    """
    return any(
        shard == state.shard
        and epoch_of(source_id) == state.epoch
        and ranges[-1][1] > state.given.get(source_id, 0)
        for (source_id, shard), ranges in numbered.items()
        if ranges
    )


async def forget_placed(journal: Journal, now_us: int) -> None:
    """Forget all that the store has: where there is no ledger, there is nobody else to have it."""
    for lane, ranges in journal.unconfirmed().items():
        journal.confirm(lane, ranges)
    release_ended(journal, now_us)
    await journal.tidy()


def release_ended(journal: Journal, now_us: int) -> None:
    """Forget reservations that have ended by themselves."""
    for key, (_, ends_us) in journal.held().items():
        if ends_us < now_us:
            journal.release(key)


def _answer(stored: Stored) -> Decided:
    return Decided(True, stored.entry.at_us, ())
