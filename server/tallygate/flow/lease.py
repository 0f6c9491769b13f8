"""admit ─▶ [ lease ] ─▶ settle ═▶ Redis: hot calls are granted from units that are debited already.

If we die here, leases expire by the store's clock, and what is unused of them comes back. What was
granted and not yet settled is in the journal: `settle` says what is lost without one.

Guarantees: what is granted here was debited before, from every limit of the call, so that all
leases and all usage together never pass a limit; a limit that is `exact` is never leased. Nothing
is granted past a lease's window, nor once the catalog or the tenant's place in it has changed, nor
while the store does not take what was granted.
Refuses to know: protos, Redis, and how large leases should be.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, cast

from tallygate.domain.alike import Alike
from tallygate.domain.decision import Decided, Mode, ReservationState
from tallygate.domain.detail import Share
from tallygate.domain.errors import OperationIdReused, TallygateError
from tallygate.domain.ids import OperationId
from tallygate.flow.decide import Answer, Decide, DecideObserver
from tallygate.flow.draft import Draft
from tallygate.flow.granted import Recent, Repeatable
from tallygate.flow.heat import Hot, Key, granted_at_us, same, spent, taking_for
from tallygate.flow.resubmit import EventDater
from tallygate.flow.settle import (
    BATCH_MAX,
    Granted,
    Job,
    Lease,
    SettleObserver,
    Settler,
)
from tallygate.flow.settle import Answer as StoreAnswer
from tallygate.ports import Clock, QuotaStore, ReservationKey
from tallygate.ports.journal import Group, Journal

# Keys that are watched for heat; idle ones are forgotten when there are more.
KEYS_MAX: Final = 10_000
# Calls and operations in one call of the store: a script that runs for longer keeps others out.
AT_ONCE_MAX: Final = 2 * BATCH_MAX
# Between two tries at the end of the process.
PAUSE_S: Final = 0.01
S_US: Final = 1_000_000


class LeaseObserver(SettleObserver, Protocol):
    """What leases tell of themselves."""

    def leased(self, outcome: str) -> None:
        """A lease was asked for: taken, refused or failed."""

    def granted(self, calls: int) -> None:
        """So many calls were granted from leases: they are allowed ones, too."""

    def lost(self, grants: int) -> None:
        """So many grants were given up at the end of the process."""


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """When to lease, for how long, and how much may be granted before it is settled.

    `grants_known_max` is how many grants are remembered here, to know their repeats at once.
    """

    ttl_us: int = 2_000_000
    hot_per_s: int = 50
    unsettled_max: int = 4_096
    grants_known_max: int = 20_000


@dataclass(frozen=True, slots=True)
class LeaseParts:
    """What leases work with."""

    decide: Decide
    store: QuotaStore
    clock: Clock
    dater: EventDater
    observer: LeaseObserver
    decisions: DecideObserver
    # What is granted outlives the process only with it.
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run has settled; `more` says that as much waits again."""

    operations: int = 0
    more: bool = False


class Leases:
    """Grants what it can by itself. A loop's step settles and leases."""

    def __init__(self, parts: LeaseParts, options: LeaseOptions) -> None:
        self.parts: Final = parts
        self._options = options
        self._settler = Settler(parts.dater, parts.observer, parts.journal)
        self._keys: dict[Key, Hot] = {}
        # Those with leases, and those that were called since the last run.
        self._active: dict[Hot, None] = {}
        self.recent: Final = Recent(options.grants_known_max)
        # Rises when there may be something to grant from that was not there before.
        self.news = 0
        self._live = False
        self._closing = False
        # The end may begin while a loop's run is under way.
        self._turn = asyncio.Lock()

    @property
    def held(self) -> int:
        """How many leases are held."""
        return sum(len(hot.leases) for hot in self._active)

    def hot(self) -> list[Hot]:
        """Return the kinds of calls that are leased, or were called since the last run."""
        return list(self._active)

    @property
    def live(self) -> bool:
        """Whether there was a lease to grant from when the last run ended."""
        return self._live

    @property
    def unsettled(self) -> int:
        """How many grants the store may not have."""
        return sum(hot.unsettled for hot in self._active)

    @property
    def granting(self) -> bool:
        """Whether anything is granted: not without a disk that takes what is, nor at the end."""
        journal = self.parts.journal
        return not self._closing and (journal is None or journal.taking)

    def grant(self, draft: Draft, now_s: float) -> Answer | None:
        """Answer a draft without the store, None where that cannot be."""
        operation = draft.operation
        of = operation.operation_id
        if not draft.undurable or of is None or operation.mode is not Mode.CONSUME:
            return None
        if self._closing:
            return None
        hot = self.hot_of(draft)
        self.called(hot, now_s, 1)
        name = (operation.tenant_id, of)
        alike = Alike(operation.tenant_id, operation.event_count, 0, (operation.payload,))
        known = self.recent.get(name)
        if known is not None:
            return self.repeated(known, alike, of)
        lease = self.open(hot, draft, now_s) if self.granting else None
        if lease is None:
            return None
        amounts = tuple([charge.amount for charge in operation.charges])
        debit(lease, amounts)
        granted = Granted(alike, amounts, granted_at_us(lease, now_s), [of])
        self.enter(lease, granted)
        kept = Repeatable(alike, granted, lease, tuple(lease.left))
        self.recent.put(name, kept)
        return kept.answer(replayed=False)

    def learn(self, draft: Draft, answer: Answer) -> None:
        """Take in the exact answer to a draft that was not granted here."""
        if draft.undurable and not self._closing:
            self.hot_of(draft).learn(draft.operation.charges, answer)

    def repeated(self, known: Repeatable, alike: Alike, of: OperationId) -> Answer:
        """Return the answer to a call under an id that something was granted for."""
        if known.alike is not alike and known.alike.payload(of) != alike.payload(of):
            self.parts.decisions.decided("failed")
            return OperationIdReused(
                "the operation_id was used before with other content", field="operation_id"
            )
        self.parts.decisions.decided("replayed")
        return known.answer(replayed=True)

    def hot_of(self, draft: Draft) -> Hot:
        """Return what is known of calls that meet the counters of this one."""
        place, charges = draft.place, draft.operation.charges
        if place is not None and not place.scoped:
            # They meet the same counters whatever they weigh.
            hot = cast(Hot | None, place.hot)
            if hot is not None and hot.kept:
                hot.draft, hot.charges = draft, charges
                return hot
        key = (
            draft.operation.tenant_id,
            draft.operation.shard,
            tuple([(charge.account, charge.field) for charge in charges]),
        )
        hot = self._keys.get(key)
        if hot is None:
            if len(self._keys) >= KEYS_MAX:
                self._forget()
            hot = self._keys[key] = Hot(key, draft, charges)
        hot.draft, hot.charges = draft, charges
        if place is not None:
            place.hot = hot
        return hot

    def _forget(self) -> None:
        for hot in self._keys.values():
            hot.kept = hot in self._active
        self._keys = {key: hot for key, hot in self._keys.items() if hot.kept}

    def called(self, hot: Hot, now_s: float, calls: int) -> None:
        """Take in that such calls came."""
        hot.demand.count(int(now_s * S_US), calls)
        self._active[hot] = None

    def open(self, hot: Hot, draft: Draft, now_s: float) -> Lease | None:
        """Return a lease that has enough for a call, None for none."""
        if hot.leases and hot.unsettled < self._options.unsettled_max:
            for lease in hot.leases:
                if _grantable(lease, draft, now_s):
                    return lease
        return None

    def room(self, hot: Hot) -> int:
        """Return how many calls may be granted until some are settled."""
        return self._options.unsettled_max - hot.unsettled

    def enter(self, lease: Lease, granted: Granted) -> None:
        """Take in what was granted from a lease; what has no mark is not told, but counted."""
        journal, ids = self.parts.journal, granted.operation_ids
        if journal is not None:
            group = Group(granted.alike, lease.shard, granted.at_us, tuple(ids))
            granted.mark = journal.append(group)
        lease.enter(granted)
        self.parts.observer.granted(len(ids))

    async def run_once(self) -> Ran:
        """Settle what was granted, give back what is over, and lease for what is hot."""
        async with self._turn:
            return await self._run()

    async def close(self, grace_s: float, probe: Callable[[], Awaitable[None]]) -> None:
        """Grant no more; settle and give back all that the grace allows, probing for the store."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self.run_once()
                while self.held:
                    await asyncio.sleep(PAUSE_S)
                    with suppress(TallygateError):
                        await probe()
                        await self.run_once()
        except TimeoutError:
            self.parts.observer.lost(self.unsettled)

    async def _run(self) -> Ran:
        now_s = self.parts.clock.monotonic()
        jobs: list[Job] = []
        for hot in list(self._active):
            for lease in hot.leases:
                if lease.unsure:
                    await self._reread(lease)
                if self._closing or spent(lease, now_s):
                    hot.end(lease, now_s)
                jobs += self._settler.jobs(lease)
            if not self._closing and self._wanted(hot, now_s):
                jobs += self._taking(hot, now_s)
        for some in _at_once(jobs):
            answers = await self.parts.store.decide([operation for operation, _ in some])
            for (_, take), answer in zip(some, answers, strict=True):
                take(answer)
        if jobs:
            self.news += 1
        for hot in list(self._active):
            self._tidy(hot, int(now_s * S_US))
        self._live = self.held > 0
        return Ran(
            len(jobs), more=any(_full(lease) for hot in self._active for lease in hot.leases)
        )

    def _wanted(self, hot: Hot, now_s: float) -> bool:
        hot_per_s = self._options.hot_per_s
        return hot.wants(now_s, hot_per_s) and hot.divides(self.parts.decide.now_us())

    def _taking(self, hot: Hot, now_s: float) -> list[Job]:
        """Return the job of taking a lease, none where none is worth having."""
        taking = taking_for(hot, now_s, self._options.ttl_us)
        if taking is None:
            # Only calls that the store decides show whether there is room again.
            hot.cool(now_s)
            return []

        def take(answer: StoreAnswer) -> None:
            if isinstance(answer, Decided) and answer.allowed:
                self.parts.observer.leased("taken")
                hot.add(taking, answer, self.parts.clock.monotonic())
                return
            refused = isinstance(answer, Decided)
            self.parts.observer.leased("refused" if refused else "failed")
            hot.cool(now_s)

        return [(taking.operation, take)]

    async def _reread(self, lease: Lease) -> None:
        decide = self.parts.decide
        try:
            # Its tenant may have moved to another family, and takes what is held along.
            shard = decide.drafter.shard(await decide.lineage(lease.tenant_id))
            found = await self.parts.store.reservation(
                ReservationKey(shard, lease.tenant_id, lease.reservation_id)
            )
        except TallygateError:
            return
        held = found is not None and found.state is ReservationState.HELD
        shares: tuple[Share, ...] | None = found.shares if found is not None and held else None
        self._settler.reread(lease, shares, shard)

    def _tidy(self, hot: Hot, now_us: int) -> None:
        for lease in hot.leases:
            self._settler.finish(lease)
        hot.leases = [lease for lease in hot.leases if not lease.closed]
        if not hot.leases and hot.demand.per_second(now_us) == 0:
            del self._active[hot]


def debit(lease: Lease, amounts: Sequence[int]) -> None:
    """Take units off a lease that has enough, one amount per charge."""
    left = lease.left
    for place, amount in enumerate(amounts):
        left[place] -= amount


def lefts(lease: Lease, amounts: Sequence[int], calls: int) -> list[range]:
    """Return what is left after each of the next calls, per charge."""
    return [
        range(left - amount, left - amount * (calls + 1), -amount)
        for left, amount in zip(lease.left, amounts, strict=True)
    ]


def _grantable(lease: Lease, draft: Draft, now_s: float) -> bool:
    if not lease.usable:
        return False
    charges = draft.operation.charges
    # A fault or a change ends a lease, as what it was taken for is not asked for any more.
    if now_s >= lease.ends_s or not same(lease, draft, charges):
        lease.ended = True
        return False
    return all(charge.amount <= left for charge, left in zip(charges, lease.left, strict=True))


def _at_once(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Divide jobs into lists that the store takes in one call each."""
    some: list[Job] = []
    weight = 0
    for job in jobs:
        some.append(job)
        weight += 1 + job[0].event_count
        if weight >= AT_ONCE_MAX:
            yield some
            some, weight = [], 0
    if some:
        yield some


def _full(lease: Lease) -> bool:
    """Say whether there is a whole batch to settle."""
    batch = lease.batch
    return lease.pending_calls >= BATCH_MAX and not (batch and batch.failed) and not lease.unsure
