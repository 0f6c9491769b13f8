"""credit ledger ─▶ [ credit ] ─▶ Redis: grants go to the counters, and what expires is posted.

If we die here before Redis has the grants, the next run gives them. If we die after it and before
the mark, they are given again, and Redis passes over the numbers it has had. If we die between two
balances, each stands for itself.

Guarantees: a balance's grants reach its counters in the order of their numbers, each once. After a
loss of Redis, or in another shard, they are given with what the ledger says is left of them and
with the overdraft in use, and only when all that the older counters had decided is in the ledger.
Refuses to know: SQL, Lua, and what a grant costs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Limit, LimitKind
from tallygate.domain.credit import LIVE_GRANTS_MAX
from tallygate.domain.decision import (
    Decided,
    Fenced,
    Mode,
    Operation,
    Outcome,
)
from tallygate.domain.detail import (
    Credit,
    Grant,
)
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import LimitId, TenantId, account_of, shard_of
from tallygate.domain.limit import charge
from tallygate.domain.window import HOUR_US
from tallygate.flow.family import Member, limit_named, members
from tallygate.ports import CatalogStore, Clock, QuotaStore, ShardDepth, UsageStream
from tallygate.ports.carry import PublishedCatalog
from tallygate.ports.credit import BalanceState, CreditLedger
from tallygate.ports.epochs import CounterEpochs, CounterStages, Stage

# A reservation lives for 24 hours at most and gives back to the grant it took from; the hour
# beyond is for its way through the stream. What comes later still is set right by another posting.
EXPIRY_GRACE_US: Final = 25 * HOUR_US
EXPIRED_MAX: Final = 500
# One pipeline's worth of grants: each balance has up to 64.
BALANCES_MAX: Final = 200
# First sights of lost counters that are remembered; past it, those waiting wait a little longer.
SIGHTS_MAX: Final = 100_000

STREAM: Final = "stream"
LIMIT: Final = "limit"
REFUSED: Final = "refused"
REASONS: Final = (STREAM, LIMIT, REFUSED)


class CreditObserver(Protocol):
    """What the handing over of credits tells of itself."""

    def given(self, grants: int, rebuilt: int) -> None:
        """So many grants were given to counters, of so many balances all anew."""

    def refused(self, tenant_id: TenantId, limit_id: LimitId, outcome: str) -> None:
        """The counters did not take a balance's grants."""

    def waiting(self, balances: Mapping[str, int]) -> None:
        """All balances were looked at; so many wait, by reason."""


class SilentCreditObserver:
    """Hears nothing."""

    def given(self, grants: int, rebuilt: int) -> None:
        """Ignore it."""

    def refused(self, tenant_id: TenantId, limit_id: LimitId, outcome: str) -> None:
        """Ignore it."""

    def waiting(self, balances: Mapping[str, int]) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class CreditParts:
    """What the handing over works with."""

    ledger: CreditLedger
    store: QuotaStore
    stream: UsageStream
    epochs: CounterEpochs
    catalogs: CatalogStore
    clock: Clock
    shards: int
    # What sidecars know: a tenant's counters are where they take them to be.
    published: PublishedCatalog | None = None
    observer: CreditObserver = field(default_factory=SilentCreditObserver)
    # How far lost counters are rebuilt; None where new ones are decided by at once.
    stages: CounterStages | None = None
    balances_max: int = BALANCES_MAX


@dataclass(frozen=True, slots=True)
class CreditCounts:
    """What one run did: balances whose grants were given, and those that wait."""

    given: int = 0
    waiting: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class _Round:
    """What all balances are compared with: when it changes, every balance is looked at anew."""

    epochs: Mapping[int, str]
    life: str
    version: int
    lost: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Due:
    """A balance with what is to be given, and the mark for afterwards."""

    mark: BalanceState
    operation: Operation | None
    grants: int = 0
    rebuilt: bool = False
    marked: bool = False


class PublishCredits:
    """Brings the counters up to the credit ledger, run by run."""

    def __init__(self, parts: CreditParts) -> None:
        self._parts = parts
        self._round: _Round | None = None
        self._whole = True
        # After a start of the server what it was given last may be lost; then all is given again,
        # and what it has had is passed over.
        self._again = True
        self._cursor = ("", "")
        self._waiting: Counter[str] = Counter()
        # When a balance was first seen with counters that are not those it was given to.
        self._sights: dict[tuple[TenantId, LimitId], tuple[int, str, int]] = {}

    async def run_once(self) -> CreditCounts:
        """Give a page of balances what they lack; after the last page begin anew.

        Raises what the ledger and the stream raise, and the first outage of Redis.
        """
        parts = self._parts
        now_us = parts.clock.now_us()
        catalog = await parts.catalogs.effective(now_us)
        if parts.published and await parts.published.published_version() != catalog.version:
            # Counters may be on their way to another shard until it is.
            return CreditCounts()
        current = await self._current(catalog.version)
        if current != self._round:
            self._begin(current)
        page = await parts.ledger.balances(
            self._cursor, parts.balances_max, unpublished=not self._whole
        )
        waited = Counter(self._waiting)
        due = await self._due(page, catalog, now_us)
        given, failure = await self._give(due)
        if failure is not None:
            # The same page comes again.
            self._waiting = waited
            raise failure
        waiting = self._waiting.total() - waited.total()
        full = len(page) == parts.balances_max
        if full:
            self._cursor = (page[-1].tenant_id, page[-1].limit_id)
        else:
            self._end()
        return CreditCounts(given, waiting, more=full)

    async def _current(self, version: int) -> _Round:
        # The life first: counters that are lost in between are then looked at once more.
        life = await self._parts.epochs.life()
        stages = self._parts.stages
        if stages is None:
            return _Round(await self._parts.epochs.epochs(), life, version)
        states = await stages.states()
        epochs = {state.shard: state.epoch for state in states}
        lost = frozenset(state.shard for state in states if state.stage is Stage.LOST)
        return _Round(epochs, life, version, lost)

    def _begin(self, current: _Round) -> None:
        if self._round is None or current.life != self._round.life:
            self._again = True
        self._round, self._whole, self._cursor = current, True, ("", "")
        self._waiting = Counter()

    def _end(self) -> None:
        """Tell who waits. Who waits for the stream is looked for among all balances again."""
        self._parts.observer.waiting({each: self._waiting[each] for each in REASONS})
        self._whole = self._whole and bool(self._waiting[STREAM] or self._waiting[REFUSED])
        self._again = self._again and self._whole
        self._cursor = ("", "")
        self._waiting = Counter()

    async def _due(self, page: Sequence[BalanceState], catalog: Catalog, now_us: int) -> list[Due]:
        tenants = self._parts.published or self._parts.catalogs
        found = await members(tenants, catalog, sorted({state.tenant_id for state in page}))
        depths: list[ShardDepth] | None = None
        due: list[Due] = []
        for state in page:
            member = found.get(state.tenant_id)
            limit = balance_of(catalog, member, state.limit_id, now_us)
            if member is None or limit is None:
                # Its plan has lost the limit: there is nothing to give credits to until it is back.
                self._waiting[LIMIT] += 1
                continue
            shard = shard_of(member.root, self._parts.shards)
            epoch = self._round.epochs.get(shard, "") if self._round else ""
            if self._round and shard in self._round.lost:
                # What is left of its grants is certain only once the ledger has closed the epochs
                # before; flow/recredit.py gives them then.
                self._waiting[STREAM] += 1
                continue
            known = (state.published_shard, state.published_epoch) == (shard, epoch)
            if known and state.published_seq >= state.last_seq and not self._again:
                continue
            if not known and state.published_epoch:
                depths = depths or await self._parts.stream.depths()
                if not await self._drained(state, shard, epoch, depths):
                    self._waiting[STREAM] += 1
                    continue
            mark = replace(state, published_shard=shard, published_epoch=epoch)
            prepared = await due_of(self._parts.ledger, mark, (member, limit), now_us, known=known)
            if self._parts.stages is not None and prepared.operation is not None:
                # Lost between our look and our call, it may have more to burn than we know of.
                prepared = replace(prepared, operation=replace(prepared.operation, epoch=epoch))
            if prepared.operation is not None or prepared.mark != state:
                due.append(replace(prepared, marked=prepared.mark == state))
        return due

    async def _drained(
        self, state: BalanceState, shard: int, epoch: str, depths: Sequence[ShardDepth]
    ) -> bool:
        """Say whether the ledger has all that counters of before have decided.

        Nothing is decided by them any more once the new ones are seen, so that what was written
        to the streams before that is all there is.
        """
        key = (state.tenant_id, state.limit_id)
        if key not in self._sights or self._sights[key][:2] != (shard, epoch):
            if len(self._sights) >= SIGHTS_MAX:
                self._sights.clear()
            self._sights[key] = (shard, epoch, await self._parts.stream.now_us())
        since_us = self._sights[key][2]
        streams = {shard, state.published_shard}
        if any(depth.shard in streams and 0 < depth.oldest_us <= since_us for depth in depths):
            return False
        del self._sights[key]
        return True

    async def _give(self, due: Sequence[Due]) -> tuple[int, TallygateError | None]:
        """Give the counters what is due, and mark what they took; return the first outage."""
        parts = self._parts
        asked = [each for each in due if each.operation is not None]
        operations = [each.operation for each in asked if each.operation is not None]
        outcomes = await parts.store.decide(operations) if operations else []
        failure: TallygateError | None = None
        taken = [each for each in due if each.operation is None]
        for each, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, TallygateError) and outcome.transient:
                failure = failure or outcome
            elif isinstance(outcome, Decided) and outcome.allowed:
                taken.append(each)
            elif isinstance(outcome, Fenced):
                self._waiting[STREAM] += 1
            else:
                self._refused(each, outcome)
        for each in taken:
            if not each.marked:
                await parts.ledger.published(each.mark)
        given = [each for each in taken if each.operation is not None]
        if given:
            rebuilt = sum(each.rebuilt for each in given)
            parts.observer.given(sum(each.grants for each in given), rebuilt)
        return len(given), failure

    def _refused(self, due: Due, outcome: Outcome | TallygateError) -> None:
        self._waiting[REFUSED] += 1
        mark, name = due.mark, type(outcome).__name__
        self._parts.observer.refused(mark.tenant_id, mark.limit_id, name)


class ExpireCredits:
    """Posts what is left of expired grants to `expired`, run by run."""

    def __init__(self, ledger: CreditLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def run_once(self) -> CreditCounts:
        """Post a bounded number of grants, once their grace has passed."""
        now_us = self._clock.now_us()
        posted = await self._ledger.expire(now_us - EXPIRY_GRACE_US, EXPIRED_MAX, now_us)
        return CreditCounts(given=posted, more=posted == EXPIRED_MAX)


def balance_of(
    catalog: Catalog, member: Member | None, limit_id: LimitId, now_us: int
) -> Limit | None:
    """Return a tenant's balance as its plan has it, None where it has none of that name."""
    if member is None:
        return None
    limit = limit_named(catalog, member.tenant, limit_id, now_us)
    return limit if limit is not None and limit.kind is LimitKind.BALANCE else None


async def due_of(
    ledger: CreditLedger,
    mark: BalanceState,
    counted: tuple[Member, Limit],
    now_us: int,
    *,
    known: bool,
) -> Due:
    """Return what the counters that `mark` names are to be given of a balance, and the mark then.

    `known` says that they are those it was given to before. Raises what the ledger raises.
    """
    member, limit = counted
    tenant_id, epoch = mark.tenant_id, mark.published_epoch
    # All of them, though the counters have most: those that are lost between our look and our
    # call would otherwise take a new grant's number, and then none below it.
    live = await ledger.live(tenant_id, limit.limit_id, now_us)
    owed = await ledger.owed(tenant_id, limit.limit_id, epoch)
    grants = [grant.as_counted() for grant in live]
    new = sum(not known or grant.seq > mark.published_seq for grant in live)
    seq = live[-1].seq if len(live) == LIVE_GRANTS_MAX else mark.last_seq
    seq = max(seq, mark.published_seq) if known else seq
    mark = replace(mark, published_seq=seq)
    if not grants and not owed:
        return Due(mark, None)
    if not grants:
        # So that the counters know that these numbers were had, and take the overdraft once.
        seq = mark.last_seq or await ledger.open(tenant_id, limit.limit_id)
        mark, grants = replace(mark, last_seq=seq, published_seq=seq), [_had(seq)]
    operation = Operation(
        mode=Mode.GRANT,
        tenant_id=tenant_id,
        shard=mark.published_shard,
        # Without an operation id: a repeat must be looked at, and its numbers make it vain.
        charges=(charge(limit, account_of(tenant_id), member.tenant.calendar, 0, now_us),),
        detail=Credit(tuple(grants), owed),
    )
    return Due(mark, operation, new, rebuilt=not known)


def _had(seq: int) -> Grant:
    """Return a grant of the past that says only that the numbers up to it were had."""
    return Grant(seq=seq, priority=0, starts_us=0, expires_us=1, granted=1, remaining=0)
