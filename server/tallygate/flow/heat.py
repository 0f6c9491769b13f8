"""admit ─▶ [ heat ] ─▶ lease: which calls come often enough to be leased for, and what to take.

If we die here, nothing is lost: heat is found out anew.

Guarantees: a lease knows for which call it was taken: any change of the call's limits shows.
Refuses to know: when leases are settled, and stores.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Charge,
    Decided,
    LimitReading,
    Mode,
    Operation,
    RateRule,
)
from tallygate.domain.detail import (
    Hold,
)
from tallygate.domain.ids import AccountId, OperationId, ReservationId, TenantId
from tallygate.domain.lease import (
    Demand,
    Past,
    ends_us,
    leasable,
    lease_charges,
    reading_now,
    room_for,
    shares_leased,
    size_after,
)
from tallygate.domain.request import reservation_id_of
from tallygate.flow.decide import Answer
from tallygate.flow.draft import Draft
from tallygate.flow.settle import Lease

# Half of a lease's time is for use, half for settling what was granted last.
LIFE_SHARE: Final = 2
# One that is used up and one to go on with.
LIVE_MAX: Final = 2
# With those that are being given back.
LEASES_MAX: Final = 4
# After a refused lease: long beside a call, short beside what a person notices.
COOL_S: Final = 0.25
S_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Taking:
    """A lease that is asked for: the call it is for, and what reserves it."""

    draft: Draft
    charges: tuple[Charge, ...]
    reservation_id: ReservationId
    operation: Operation
    size: int
    ttl_us: int
    sent_s: float


Key = tuple[TenantId, int, tuple[tuple[AccountId, str], ...]]


@dataclass(slots=True, eq=False)
class Hot:
    """One kind of call: how often it comes, its last draft and readings, and its leases.

    It is `kept` while calls of its key find it.
    """

    key: Key
    draft: Draft
    charges: tuple[Charge, ...]
    kept: bool = True
    demand: Demand = field(default_factory=Demand)
    readings: Sequence[LimitReading] = ()
    leases: list[Lease] = field(default_factory=list)
    past: Past | None = None
    cool_until_s: float = 0.0
    divisible: tuple[Catalog, tuple[Tenant, ...], bool] | None = None

    @property
    def unsettled(self) -> int:
        """How many of its grants the store may not have."""
        return sum(lease.unsettled for lease in self.leases)

    def learn(self, charges: tuple[Charge, ...], answer: Answer) -> None:
        """Take in the store's own answer: it tells where the limits stand."""
        if not isinstance(answer, Decided) or answer.replayed or answer.degraded:
            return
        if [each.limit_id for each in answer.readings] == [each.limit_id for each in charges]:
            self.readings = answer.readings

    def cool(self, now_s: float) -> None:
        """Ask for no lease for a while, and not before the store has told where limits stand."""
        self.cool_until_s = now_s + COOL_S
        self.readings = ()

    def wants(self, now_s: float, hot_per_s: int) -> bool:
        """Say whether calls come often enough, and have not enough leased to go on with."""
        if len(self.readings) != len(self.charges) or now_s < self.cool_until_s:
            return False
        if self.demand.per_second(int(now_s * S_US)) < hot_per_s:
            return False
        live = [lease for lease in self.leases if lease.usable]
        fresh = any(calls_used(lease) * 2 < lease.size for lease in live)
        return not fresh and len(live) < LIVE_MAX and len(self.leases) < LEASES_MAX

    def divides(self, store_us: int) -> bool:
        """Say whether the limits of the call may be leased; found out once per catalog."""
        draft, known = self.draft, self.divisible
        if known is None or known[0] is not draft.catalog or known[1] != draft.lineage:
            may = leasable(self.charges, draft.catalog, draft.lineage, store_us)
            known = self.divisible = (draft.catalog, draft.lineage, may)
        return known[2]

    def add(self, taking: Taking, answer: Decided, received_s: float) -> None:
        """Take in a lease that the store has granted."""
        life_us = taking.ttl_us // LIFE_SHARE
        over_us = ends_us(taking.charges, answer.readings, answer.at_us, life_us)
        leased = taking.operation.charges
        self.readings = answer.readings
        self.leases.append(
            Lease(
                reservation_id=taking.reservation_id,
                shard=taking.operation.shard,
                tenant_id=taking.operation.tenant_id,
                charges=taking.charges,
                catalog=taking.draft.catalog,
                lineage=taking.draft.lineage,
                readings=answer.readings,
                at_us=answer.at_us,
                received_s=received_s,
                # The store's clock was read after we had sent: it then shows `over_us` at most.
                ends_s=taking.sent_s + (over_us - answer.at_us) / S_US,
                size=taking.size,
                shares=shares_leased(leased, answer.readings, answer.at_us),
                left=[charge.amount for charge in leased],
            )
        )

    def end(self, lease: Lease, now_s: float) -> None:
        """Grant nothing more from a lease, and learn from how it went."""
        lease.ended = True
        if not lease.judged:
            lease.judged = True
            lasted_us = int((now_s - lease.received_s) * S_US)
            self.past = Past(lease.size, calls_used(lease), lasted_us)


def taking_for(hot: Hot, now_s: float, ttl_us: int) -> Taking | None:
    """Return the lease to ask for, None where none is worth having."""
    charges, draft = hot.charges, hot.draft
    rated = any(isinstance(charge.rule, RateRule) for charge in charges)
    demand_per_s = hot.demand.per_second(int(now_s * S_US))
    size = size_after(hot.past, room_for(charges, hot.readings), demand_per_s, rated)
    if size == 0:
        return None
    shard = draft.operation.shard
    name = reservation_id_of(shard, OperationId(f"lease-{uuid.uuid4().hex}"))
    operation = Operation(
        Mode.RESERVE,
        draft.operation.tenant_id,
        shard,
        charges=lease_charges(charges, hot.readings, size),
        detail=Hold(name, ttl_us),
    )
    return Taking(draft, charges, name, operation, size, ttl_us, now_s)


def spent(lease: Lease, now_s: float) -> bool:
    """Say whether a lease is over, or has not another such call."""
    short = any(
        left < charge.amount for left, charge in zip(lease.left, lease.charges, strict=True)
    )
    return lease.ended or short or now_s >= lease.ends_s


def same(lease: Lease, draft: Draft, charges: tuple[Charge, ...]) -> bool:
    """Say whether a call meets the limits for which the lease was taken."""
    if draft.catalog is not lease.catalog and draft.catalog.version != lease.catalog.version:
        return False
    if draft.lineage != lease.lineage:
        return False
    return all(
        charge.limit == leased.limit
        and charge.on_exceed is leased.on_exceed
        and (charge.rule is leased.rule or charge.rule == leased.rule)
        for charge, leased in zip(charges, lease.charges, strict=True)
    )


def granted_at_us(lease: Lease, now_s: float) -> int:
    """Return the store's time at that loop time; not after it: its answer was on its way to us."""
    return lease.at_us + int((now_s - lease.received_s) * S_US)


def readings_of(lease: Lease, left: Sequence[int]) -> Sequence[LimitReading]:
    """Return the limits as they stand while that much is left of a lease, per charge."""
    places = zip(lease.charges, lease.readings, left, strict=True)
    return tuple(reading_now(charge, taken, unused) for charge, taken, unused in places)


def calls_used(lease: Lease) -> int:
    """Return how many of the calls that the lease was taken for are used up, by its units."""
    return max(
        lease.size - left // charge.amount
        for left, charge in zip(lease.left, lease.charges, strict=True)
    )
