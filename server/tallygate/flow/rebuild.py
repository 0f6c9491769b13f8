"""ledger ─▶ [ rebuild ] ─▶ Redis: counters that were lost are made anew from what was recorded.

If we die here before the shards are closed, nothing has happened. If we die after it, whoever comes
next gives them another epoch and begins anew: what was added to the one before is forgotten with
it. If we die once all is added, before the shard is opened, the same.

Guarantees: a shard is opened only when its counters hold all that the ledger had when it was
closed, once, beside what was counted since; what the ledger got later is a correction. An epoch
that was closed before, or whose numbers went back behind the ledger's, is given up: an old copy of
the counters has come back. One process at a time does this.
Refuses to know: SQL, Lua, journals' records, and what is left of balances (flow/recredit.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog
from tallygate.domain.decision import Decided, Fenced, Operation, Stale
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import epoch_of
from tallygate.flow.rebuilt import rebuilding, still_live
from tallygate.flow.recount import Recount
from tallygate.flow.recredit import Recredit
from tallygate.ports import Clock, QuotaStore, UsageStream
from tallygate.ports.epochs import CounterStages, SeenNumbers, ShardState, Stage
from tallygate.ports.rebuild import (
    Closing,
    Declared,
    RebuildLedger,
    RebuildObserver,
    SilentRebuildObserver,
)

BATCH_MAX: Final = 256
TRIES_MAX: Final = 5
BEHIND: Final = "behind"
PAST: Final = "past"
UNFINISHED: Final = "unfinished"
UNKNOWN: Final = "unknown"

CATALOG: Final = "catalog"
STREAM: Final = "stream"
JOURNALS: Final = "journals"
WAITS: Final = (CATALOG, STREAM, JOURNALS)


@dataclass(frozen=True, slots=True)
class RebuildOptions:
    """How long journals are waited for, and how long a silent leader keeps the lead.

    `settle_ms` is time for journals to announce themselves, longer than they take to look;
    `patience_ms` is how long those that have are waited for: one on a node that has died may never
    come, and what it hands in later counts then. `idle_ms` is between looks while none is shut.
    """

    holder: str
    shards: int
    settle_ms: int = 1_500
    patience_ms: int = 30_000
    lease_ms: int = 10_000
    idle_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class RebuildParts:
    """What rebuilding works with."""

    ledger: RebuildLedger
    stages: CounterStages
    seen: SeenNumbers
    stream: UsageStream
    store: QuotaStore
    declared: Declared
    clock: Clock
    observer: RebuildObserver = field(default_factory=SilentRebuildObserver)
    # None where nothing is prepaid.
    recredit: Recredit | None = None


@dataclass(frozen=True, slots=True)
class RebuildCounts:
    """What one run did; `shut` shards are not open yet. Those are looked at again soon."""

    opened: int = 0
    shut: int = 0
    more: bool = False


@dataclass(slots=True)
class _Work:
    """One shard's rebuilding: since when it waits for its stream, and how far it has come.

    `life` is the server's when it began: what was added in another one may be gone.
    """

    epoch: str
    life: str
    began_s: float
    since_us: int
    closed: bool = False
    applied_s: float | None = None
    fresh: bool = False


class _LeadLost(BackendUnavailable):
    """Another process rebuilds now."""


class Rebuild:
    """Makes lost counters anew, run by run."""

    def __init__(self, parts: RebuildParts, options: RebuildOptions) -> None:
        self._parts = parts
        self._options = options
        # By shard; what is not here when a shard is closed already was begun by somebody else.
        self._work: dict[int, _Work] = {}
        self._epochs: dict[int, str] = {}
        self._life = ""
        self._renewed_once: set[int] = set()
        self._next_s = float("-inf")

    async def run_once(self) -> RebuildCounts:
        """Bring every shut shard as far as it can be; give up epochs that are behind.

        Raises what the ledger, the stream and Redis raise; the next run begins anew.
        """
        now_s = self._parts.clock.monotonic()
        if now_s < self._next_s:
            return RebuildCounts()
        counts = await self._look()
        if not counts.shut:
            self._next_s = now_s + self._options.idle_ms / 1000
        return counts

    async def _look(self) -> RebuildCounts:
        parts = self._parts
        if not await self._leads():
            self._work.clear()
            return RebuildCounts()
        self._epochs = self._epochs or dict(await parts.stages.epochs())
        # Before anything else is read: a copy that takes over now is seen in the next run.
        self._life = await parts.stages.life()
        # Before what was given out is read, which only grows.
        highest = await parts.ledger.highest(list(self._epochs.values()))
        states = await parts.stages.states()
        self._epochs = {state.shard: state.epoch for state in states}
        numbers: dict[int, int] = {}
        for (source_id, shard), last in highest.items():
            state = states[shard] if shard < len(states) else None
            if state is not None and epoch_of(source_id) == state.epoch:
                given = state.given.get(source_id, 0)
                numbers[shard] = max(numbers.get(shard, 0), last - given)
        known = await parts.ledger.epochs()
        going = [
            state
            for state in states
            if not await self._renew_if_due(state, numbers.get(state.shard), known)
        ]
        waiting = dict.fromkeys(WAITS, 0)
        opened = await self._open(going, waiting)
        shut = [state for state in going if state.stage is not Stage.OPEN]
        unclosed = [state for state in shut if not self._work[state.shard].closed]
        await self._close(unclosed, waiting, known)
        await self._note_open(going, known)
        parts.observer.waiting(waiting)
        renewed = len(states) - len(going)
        return RebuildCounts(opened, len(shut) + renewed - opened)

    async def _leads(self) -> bool:
        return await self._parts.ledger.lead(self._options.holder, self._options.lease_ms)

    async def _renew_if_due(
        self, state: ShardState, ahead: int | None, known: Mapping[tuple[int, str], bool]
    ) -> bool:
        """Give a shard another epoch if this one cannot be made whole; say whether it was.

        `ahead` is by how much the ledger's numbers of the epoch pass those given out, None where
        it has none.
        """
        shard, work = state.shard, self._work.get(state.shard)
        if work is not None and work.epoch != state.epoch:
            del self._work[shard]
            work = None
        reason = ""
        current = known.get((shard, state.epoch))
        if current is False:
            reason = PAST
        elif ahead is not None and ahead > 0:
            reason = BEHIND
        elif state.stage is not Stage.OPEN:
            # In another life a copy of this epoch may have been filled in part and marked as whole.
            broken = (
                work is not None
                and work.closed
                and (work.applied_s is None or work.life != self._life)
            )
            if broken or (work is None and current):
                reason = UNFINISHED
            elif ahead is not None and not _ever(shard, known) and shard not in self._renewed_once:
                # Of a time before epochs were closed: its counters are nowhere, its events are.
                self._renewed_once.add(shard)
                reason = UNKNOWN
        if reason:
            self._work.pop(shard, None)
            await self._parts.stages.renew(shard, state.epoch)
            self._parts.observer.renewed(shard, reason)
            return True
        if state.stage is not Stage.OPEN and shard not in self._work:
            since_us = await self._parts.stream.now_us()
            began_s = self._parts.clock.monotonic()
            self._work[shard] = _Work(state.epoch, self._life, began_s, since_us)
        return False

    async def _open(self, states: Sequence[ShardState], waiting: dict[str, int]) -> int:
        """Open the shards whose journals have handed in what they had; return how many."""
        opened = 0
        for state in states:
            work = self._work.get(state.shard)
            if state.stage is Stage.OPEN:
                self._work.pop(state.shard, None)
            elif work is not None and work.applied_s is not None:
                if await self._handed_in(state.shard, work):
                    if not await self._parts.stages.advance(
                        state.shard, work.epoch, Stage.OPEN, after=Stage.FILLED
                    ):
                        # Of before it was filled: a copy has taken over since we looked.
                        continue
                    now_s = self._parts.clock.monotonic()
                    self._parts.observer.opened(state.shard, now_s - work.began_s)
                    opened += 1
                else:
                    waiting[JOURNALS] += 1
        return opened

    async def _handed_in(self, shard: int, work: _Work) -> bool:
        assert work.applied_s is not None
        waited_ms = (self._parts.clock.monotonic() - work.applied_s) * 1000
        if work.fresh or waited_ms >= self._options.patience_ms:
            return True
        if waited_ms < self._options.settle_ms:
            return False
        return all((await self._parts.seen.announced(shard, work.epoch)).values())

    async def _close(
        self,
        states: Sequence[ShardState],
        waiting: dict[str, int],
        known: Mapping[tuple[int, str], bool],
    ) -> None:
        """Close and fill the shards of which nothing of before is in the stream any more."""
        if not states:
            return
        parts = self._parts
        depths = {depth.shard: depth.oldest_us for depth in await parts.stream.depths()}
        ready: dict[int, str] = {}
        for state in states:
            if 0 < depths.get(state.shard, 0) <= self._work[state.shard].since_us:
                waiting[STREAM] += 1
            else:
                ready[state.shard] = state.epoch
        catalog = await parts.declared.effective(parts.clock.now_us())
        empty = await parts.ledger.empty()
        if catalog is None and not empty:
            # Without plans nobody knows which counters there are.
            waiting[CATALOG] += len(ready)
            return
        if not ready:
            return
        for shard in ready:
            self._work[shard].closed = True
        async with parts.ledger.close(ready) as closing:
            await self._fill(ready, closing, catalog or Catalog())
        for shard, epoch in ready.items():
            # Copies hear of it after what was added, so that one that knows of it has all.
            if not await parts.stages.advance(shard, epoch, Stage.FILLED, after=Stage.SEEN):
                self._work.pop(shard, None)
        now_s = parts.clock.monotonic()
        for shard, epoch in ready.items():
            work = self._work.get(shard)
            if work is not None and work.epoch == epoch:
                # Of counters that were there before, journals may have what the ledger has not.
                work.applied_s, work.fresh = now_s, empty and not _ever(shard, known)
                waiting[JOURNALS] += not work.fresh
        fresh = [shard for shard, work in self._work.items() if work.fresh]
        await self._open([state for state in states if state.shard in fresh], waiting)

    async def _fill(self, epochs: Mapping[int, str], closing: Closing, catalog: Catalog) -> None:
        parts = self._parts
        at_us = await parts.stream.now_us()
        if parts.recredit is not None:
            # Before SEEN, with which journals begin to hand in: what they do is to be funded.
            async for operations in parts.recredit.operations(epochs, catalog, at_us):
                await self._apply(operations)
        await parts.seen.tell(closing.seen)
        for shard, epoch in epochs.items():
            if not await parts.stages.advance(shard, epoch, Stage.SEEN):
                self._work.pop(shard, None)
        recount = Recount(
            closing.usage,
            parts.declared,
            catalog,
            shards=self._options.shards,
            at_us=at_us,
            but_epochs=list(epochs.values()),
        )
        async for accounts in recount.accounts(epochs.keys()):
            if not await self._leads():
                raise _LeadLost("another process rebuilds counters now")
            for start in range(0, len(accounts), BATCH_MAX):
                part = accounts[start : start + BATCH_MAX]
                await self._apply([rebuilding(each, epochs[each.shard]) for each in part])

    async def _apply(self, operations: list[Operation]) -> None:
        """Give accounts their sums. Raises what still fails after some tries."""
        failure: TallygateError | None = None
        applied = 0
        for _ in range(TRIES_MAX):
            again: list[Operation] = []
            outcomes = await self._parts.store.decide(operations)
            for operation, outcome in zip(operations, outcomes, strict=True):
                match outcome:
                    case Decided():
                        applied += 1
                    case Fenced():
                        # Its epoch has been given up meanwhile.
                        self._work.pop(operation.shard, None)
                    case Stale(now_us):
                        again += still_live(operation, now_us)
                    case TallygateError() if outcome.transient:
                        failure = outcome
                        again.append(operation)
                    case _:
                        self._parts.observer.refused(type(outcome).__name__)
            operations = again
            if not operations:
                break
        self._parts.observer.applied(applied)
        if operations:
            raise failure or BackendUnavailable("the windows kept turning")

    async def _note_open(
        self, states: Sequence[ShardState], known: Mapping[tuple[int, str], bool]
    ) -> None:
        """Close what is before epochs that are open though nobody has rebuilt them."""
        noted = {
            state.shard: state.epoch
            for state in states
            if state.stage is Stage.OPEN and (state.shard, state.epoch) not in known
        }
        if noted:
            async with self._parts.ledger.close(noted):
                pass


def _ever(shard: int, known: Mapping[tuple[int, str], bool]) -> bool:
    """Say whether a shard's counters were ever made anew."""
    return any(each == shard for each, _ in known)
