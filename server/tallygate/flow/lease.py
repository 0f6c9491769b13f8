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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
    ReservationState,
)
from tallygate.domain.detail import (
    Share,
)
from tallygate.domain.errors import OperationIdReused, TallygateError
from tallygate.domain.ids import AccountId, OperationId, TenantId
from tallygate.flow.decide import Answer, Decide, DecideObserver
from tallygate.flow.draft import Draft
from tallygate.flow.heat import Hot, grant_from, same, spent, taking_for
from tallygate.flow.settle import BATCH_MAX, EventDater, Grant, Job, Lease, SettleObserver, Settler
from tallygate.flow.settle import Answer as StoreAnswer
from tallygate.ports import Clock, QuotaStore, ReservationKey
from tallygate.ports.journal import Entry, EntryKind, Journal

# Keys that are watched for heat; idle ones are forgotten when there are more.
KEYS_MAX: Final = 10_000
# Operations in one call of the store: its patience has to do for all of them.
JOBS_MAX: Final = 512
# Between two tries at the end of the process.
PAUSE_S: Final = 0.01
S_US: Final = 1_000_000

Key = tuple[TenantId, int, tuple[tuple[AccountId, str], ...]]


class LeaseObserver(SettleObserver, Protocol):
    """What leases tell of themselves."""

    def leased(self, outcome: str) -> None:
        """A lease was asked for: taken, refused or failed."""

    def granted(self) -> None:
        """A call was granted from a lease."""

    def lost(self, grants: int) -> None:
        """So many grants were given up at the end of the process."""


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """When to lease, for how long, and how much may be granted before it is settled.

    `grants_known_max` is how many grants are remembered here, to know their repeats at once.
    """

    ttl_us: int = 2_000_000
    hot_per_s: int = 50
    unsettled_max: int = BATCH_MAX
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


class Leases:
    """Grants what it can by itself and has the rest decided. A loop's step settles and leases."""

    def __init__(self, parts: LeaseParts, options: LeaseOptions) -> None:
        self._parts = parts
        self._options = options
        self._settler = Settler(parts.dater, parts.observer, parts.journal)
        self._keys: dict[Key, Hot] = {}
        # Those with leases, and those that were called since the last run.
        self._active: set[Key] = set()
        self._known: dict[tuple[TenantId, OperationId], Grant] = {}
        self._closing = False
        # The end may begin while a loop's run is under way.
        self._turn = asyncio.Lock()

    @property
    def held(self) -> int:
        """How many leases are held."""
        return sum(len(self._keys[key].leases) for key in self._active)

    @property
    def unsettled(self) -> int:
        """How many grants the store may not have."""
        return sum(self._keys[key].unsettled for key in self._active)

    def grant(self, draft: Draft, now_s: float) -> Answer | None:
        """Answer a draft without the store, None where that cannot be."""
        hot, charges = self._meet(draft, now_s)
        return self._local(draft, charges, hot, now_s) if hot is not None else None

    def learn(self, draft: Draft, answer: Answer) -> None:
        """Take in the exact answer to a draft that was not granted here."""
        hot = self._keys.get(_key(draft, draft.operation.charges))
        if hot is not None:
            hot.learn(draft.operation.charges, answer)

    def _meet(
        self, draft: Draft | TallygateError, now_s: float
    ) -> tuple[Hot | None, tuple[Charge, ...]]:
        """Return what is known of calls like this one, None where none is ever leased."""
        if isinstance(draft, TallygateError) or not draft.undurable or self._closing:
            return None, ()
        decide = self._parts.decide
        try:
            charges = decide.drafter.binder.charges(
                draft.catalog, draft.lineage, draft.items, draft.context, decide.now_us()
            )
        except TallygateError:
            return None, ()
        key = _key(draft, charges)
        hot = self._keys.get(key)
        if hot is None:
            if len(self._keys) >= KEYS_MAX:
                self._keys = {each: self._keys[each] for each in self._active}
            hot = self._keys[key] = Hot(draft, charges)
        hot.draft, hot.charges = draft, charges
        hot.demand.count(int(now_s * S_US))
        self._active.add(key)
        return hot, charges

    def _local(
        self, draft: Draft, charges: tuple[Charge, ...], hot: Hot, now_s: float
    ) -> Decided | TallygateError | None:
        operation = draft.operation
        if operation.operation_id is None or operation.mode is not Mode.CONSUME:
            return None
        name = (operation.tenant_id, operation.operation_id)
        known = self._known.get(name)
        if known is not None:
            if known.operation.fingerprint != operation.fingerprint:
                self._parts.decisions.decided("failed")
                return OperationIdReused(
                    "the operation_id was used before with other content", field="operation_id"
                )
            self._parts.decisions.decided("replayed")
            return replace(known.answer, replayed=True)
        journal = self._parts.journal
        if hot.unsettled >= self._options.unsettled_max or not (journal is None or journal.taking):
            return None
        for lease in hot.leases:
            if self._grantable(lease, draft, charges, now_s):
                answer = self._entered(operation, grant_from(lease, charges, now_s))
                grant = Grant(operation, charges, answer)
                lease.pending.append(grant)
                self._remember(name, grant)
                self._parts.observer.granted()
                self._parts.decisions.decided("allowed")
                return answer
        return None

    def _entered(self, operation: Operation, answer: Decided) -> Decided:
        """Return the answer with its mark; one that has none is not told, but counted."""
        if self._parts.journal is None:
            return answer
        entry = Entry(EntryKind.PENDING, operation, answer.at_us)
        return replace(answer, journal_mark=self._parts.journal.append(entry))

    def _grantable(
        self, lease: Lease, draft: Draft, charges: tuple[Charge, ...], now_s: float
    ) -> bool:
        if not lease.usable:
            return False
        # A fault or a change ends a lease, as what it was taken for is not asked for any more.
        if now_s >= lease.ends_s or not same(lease, draft, charges):
            lease.ended = True
            return False
        return all(charge.amount <= left for charge, left in zip(charges, lease.left, strict=True))

    def _remember(self, name: tuple[TenantId, OperationId], grant: Grant) -> None:
        if len(self._known) >= self._options.grants_known_max:
            del self._known[next(iter(self._known))]
        self._known[name] = grant

    async def run_once(self) -> None:
        """Settle what was granted, give back what is over, and lease for what is hot."""
        async with self._turn:
            await self._run()

    async def close(self, grace_s: float, probe: Callable[[], Awaitable[None]]) -> None:
        """Grant no more; settle and give back all that the grace allows, probing for the store."""
        self._closing = True
        try:
            async with asyncio.timeout(grace_s):
                await self.run_once()
                while self.held or self._settler.owed:
                    await asyncio.sleep(PAUSE_S)
                    with suppress(TallygateError):
                        await probe()
                        await self.run_once()
        except TimeoutError:
            self._parts.observer.lost(self.unsettled + self._settler.owed)

    async def _run(self) -> None:
        now_s = self._parts.clock.monotonic()
        jobs: list[Job] = list(self._settler.corrections())
        for key in list(self._active):
            hot = self._keys[key]
            for lease in hot.leases:
                if lease.unsure:
                    await self._reread(lease)
                if self._closing or spent(lease, now_s):
                    hot.end(lease, now_s)
                jobs += self._settler.jobs(lease)
            if not self._closing and self._wanted(hot, now_s):
                jobs += self._taking(hot, now_s)
        for start in range(0, len(jobs), JOBS_MAX):
            some = jobs[start : start + JOBS_MAX]
            answers = await self._parts.store.decide([operation for operation, _ in some])
            for (_, take), answer in zip(some, answers, strict=True):
                take(answer)
        for key in list(self._active):
            self._tidy(key, int(now_s * S_US))

    def _wanted(self, hot: Hot, now_s: float) -> bool:
        hot_per_s = self._options.hot_per_s
        return hot.wants(now_s, hot_per_s) and hot.divides(self._parts.decide.now_us())

    def _taking(self, hot: Hot, now_s: float) -> list[Job]:
        """Return the job of taking a lease, none where none is worth having."""
        taking = taking_for(hot, now_s, self._options.ttl_us)
        if taking is None:
            # Only calls that the store decides show whether there is room again.
            hot.cool(now_s)
            return []

        def take(answer: StoreAnswer) -> None:
            if isinstance(answer, Decided) and answer.allowed:
                self._parts.observer.leased("taken")
                hot.add(taking, answer, self._parts.clock.monotonic())
                return
            refused = isinstance(answer, Decided)
            self._parts.observer.leased("refused" if refused else "failed")
            hot.cool(now_s)

        return [(taking.operation, take)]

    async def _reread(self, lease: Lease) -> None:
        decide = self._parts.decide
        try:
            # Its tenant may have moved to another family, and takes what is held along.
            shard = decide.drafter.shard(await decide.lineage(lease.tenant_id))
            found = await self._parts.store.reservation(
                ReservationKey(shard, lease.tenant_id, lease.reservation_id)
            )
        except TallygateError:
            return
        held = found is not None and found.state is ReservationState.HELD
        shares: tuple[Share, ...] | None = found.shares if found is not None and held else None
        self._settler.reread(lease, shares, shard)

    def _tidy(self, key: Key, now_us: int) -> None:
        hot = self._keys[key]
        for lease in hot.leases:
            self._settler.finish(lease)
        hot.leases = [lease for lease in hot.leases if not lease.closed]
        if not hot.leases and hot.demand.per_second(now_us) == 0:
            self._active.discard(key)


def _key(draft: Draft, charges: Sequence[Charge]) -> Key:
    accounts = tuple((charge.account, charge.field) for charge in charges)
    return draft.operation.tenant_id, draft.operation.shard, accounts
