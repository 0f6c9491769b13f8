"""The seam of billing periods: what was frozen of each, for whoever rates, sends and audits.

Guarantees: what stands under a revision never changes.
Refuses to know: SQL, prices, and how events are stored.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from tallygate.domain.catalog import Meter
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.period import (
    Cause,
    Group,
    Held,
    MeterTotal,
    PeriodKey,
    PeriodState,
    Placed,
)
from tallygate.domain.period_digest import Covered, Leaf
from tallygate.domain.period_fold import Fold


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """One period of a tenant, `start_us <= event_time < end_us`, both whole minutes.

    `revision` is the newest that was sealed, 0 for none. Totals that figures tell are readable as
    soon as the state is `sealed`, those that are folded, and the hash, once it is `closed`.
    `due_us` is when its grace ends; `held` says why it is not closed though that has passed.
    """

    tenant_id: TenantId
    start_us: int
    end_us: int
    state: PeriodState
    revision: int
    due_us: int = 0
    held: Held | None = None
    held_since_us: int = 0


@dataclass(frozen=True, slots=True)
class FrozenTotal:
    """What a meter is billed by in one revision of a period.

    `group` is empty for the whole meter. `quantity` is the one number of the meter's aggregation,
    a whole one but of levels, and may be below 0 after refunds; `count` is how many uses there
    were, refunds not among them.
    """

    meter: MeterName
    group: Group
    quantity: int | Decimal
    count: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What late events of a closed period change of what the period bills that has them.

    `closed_start_us` is None for events of before the tenant's first period. `count` is 0 where
    nothing came for that period, but a level of before it is another.
    """

    meter: MeterName
    group: Group
    quantity: int | Decimal
    count: int
    closed_start_us: int | None


@dataclass(frozen=True, slots=True)
class Revision:
    """One closing of a period. `digest` is the SHA-256, in hex, over all events it covers.

    `events` is their number. Revisions above 1 have the one before in their digest.
    """

    number: int
    cause: Cause
    closed_us: int
    events: int
    digest: str


@dataclass(frozen=True, slots=True)
class PeriodQuery:
    """Which periods to read, by tenant and start; `after` is such a place."""

    tenant_id: TenantId | None = None
    states: tuple[PeriodState, ...] = ()
    held: bool = False
    from_us: int | None = None
    to_us: int | None = None
    limit: int = 100
    after: tuple[str, int] | None = None


class PeriodReader(Protocol):
    """Reads periods and what was frozen of them."""

    async def periods(self, query: PeriodQuery) -> list[BillingPeriod]:
        """Return periods by tenant and start, at most `query.limit`."""
        ...

    async def period(self, tenant_id: TenantId, start_us: int) -> BillingPeriod | None:
        """Return the period of a tenant that starts then, None when there is none."""
        ...

    async def newest(self, tenant_id: TenantId) -> BillingPeriod | None:
        """Return the newest period that was sealed, else the newest, None where there is none."""
        ...

    async def totals(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[FrozenTotal]:
        """Return the totals of one revision by meter and group, without adjustments."""
        ...

    async def adjustments(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[Adjustment]:
        """Return what the revision bills, beside its totals, of periods that were closed before."""
        ...

    async def revisions(self, tenant_id: TenantId, start_us: int) -> Sequence[Revision]:
        """Return the closings of a period that are complete, the first one first."""
        ...

    async def frozen(
        self, tenant_id: TenantId, start_us: int, revision: int
    ) -> Sequence[MeterTotal]:
        """Return the totals of one revision as they were frozen, by meter and group."""
        ...


@dataclass(frozen=True, slots=True)
class LateCount:
    """How many events came late for a period, and where they went."""

    placed: Placed
    allocated_start_us: int
    allocated_revision: int
    events: int


@dataclass(frozen=True, slots=True)
class PeriodAction:
    """What somebody did to a period: `close` it before its time, or `reopen` it."""

    action: str
    actor: str
    reason: str
    done_us: int


@dataclass(frozen=True, slots=True)
class PeriodAsked:
    """What an operator asks of a period, who, why, and when."""

    key: PeriodKey
    actor: str
    reason: str
    now_us: int


class PeriodDesk(Protocol):
    """What operators do to periods, each with its line in an audit that is append-only."""

    async def ask_close(self, asked: PeriodAsked, *, accept_missing: bool) -> BillingPeriod:
        """Have a period that has ended be due now; return it.

        With `accept_missing` it is closed whatever holds it. Raises `NotFound`, and `PeriodNotSo`
        unless it is in its grace or held.
        """
        ...

    async def reopen(self, asked: PeriodAsked, due_us: int) -> BillingPeriod:
        """Open a closed period again until then; return it. Raises `NotFound`, `PeriodNotSo`."""
        ...

    async def late(self, key: PeriodKey) -> Sequence[LateCount]:
        """Return what came late for a period."""
        ...

    async def actions(self, key: PeriodKey) -> Sequence[PeriodAction]:
        """Return what was done to a period by hand, the first one first."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A period that is, or is to be: whose, from when, until when."""

    key: PeriodKey
    end_us: int


@dataclass(frozen=True, slots=True)
class KnownTenant:
    """A tenant that is declared or has usage: its newest period, or else when it was first used."""

    tenant_id: TenantId
    newest: Span | None
    open: bool
    first_use_us: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """An open period that has ended, and whether its tenant has the next one already."""

    span: Span
    followed: bool


@dataclass(frozen=True, slots=True)
class Due:
    """A period whose grace is over; `letters` are its tenant's events that could not be stored."""

    period: BillingPeriod
    accept_missing: bool
    letters: int


@dataclass(frozen=True, slots=True)
class Sealing:
    """What to seal: which periods, how meters add up, what is known to be lost and accepted.

    Usage of up to `history_us` before a tenant was known belongs to periods of its own.
    """

    keys: Sequence[PeriodKey]
    meters: Mapping[MeterName, Meter]
    now_us: int
    history_us: int = 0
    accepted_lost: int = 0


@dataclass(frozen=True, slots=True)
class Sealed:
    """What was sealed, and which tenants were used before their first period, and when."""

    keys: Sequence[PeriodKey] = ()
    earlier: Mapping[PeriodKey, int] | None = None


@dataclass(frozen=True, slots=True)
class SealedRevision:
    """A revision whose totals are frozen, and what the one before covers."""

    span: Span
    revision: int
    cause: Cause
    sealed_us: int
    before: Covered | None = None
    accept_missing: bool = False


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many periods are in a state, held for a reason or for none, the first one since when."""

    state: PeriodState
    held: Held | None
    periods: int
    held_since_us: int = 0


class CoveredEvents(Protocol):
    """The events that a revision covers, minute by minute."""

    def leaves(self, revision: SealedRevision) -> AsyncIterator[Leaf]:
        """Iterate over what a revision covers beside those before it, in the order of its hash."""
        ...


class PeriodFolds(Protocol):
    """What revisions come to of meters that take more than figures."""

    async def fold(self, revision: SealedRevision) -> Fold:
        """Return what is to be frozen of a sealed revision: of the events that its sealing covers.

        It is folded from events, and held against rollups where these say just that; only by these
        where events are in an archive alone.
        """
        ...

    async def fold_again(self, revision: SealedRevision) -> Fold:
        """Return the same of a closed revision from events alone, by what was frozen with it.

        Adjustments are those of the groups that were adjusted. Of `missing`, events are archived.
        """
        ...

    async def archived(self, revision: SealedRevision) -> bool:
        """Say whether events that a revision covers, or may cover, are in an archive alone."""
        ...


class PeriodLedger(CoveredEvents, Protocol):
    """What closing asks of the ledger. Of all who ask to lead, one does."""

    async def lead(self, holder: str, lease_ms: int) -> bool:
        """Take the lease or keep it; say whether it is ours."""
        ...

    async def known(self, after: str, count: int, since_us: int) -> list[KnownTenant]:
        """Return up to `count` tenants by id; first uses are looked for from `since_us` on."""
        ...

    async def add(self, spans: Sequence[Span], now_us: int) -> int:
        """Add open periods that are not there yet; return how many."""
        ...

    async def resize(self, spans: Sequence[Span]) -> None:
        """Give open periods, the newest of their tenants, other ends."""
        ...

    async def ended(self, now_us: int, count: int) -> list[Ended]:
        """Return up to `count` open periods that have ended."""
        ...

    async def end(self, graces: Mapping[Span, int], following: Sequence[Span], now_us: int) -> None:
        """Give periods a grace until then, and add those that follow, in one step."""
        ...

    async def due(self, now_us: int, count: int) -> list[Due]:
        """Return up to `count` periods whose grace is over, each the first unsealed of a tenant."""
        ...

    async def hold(self, reasons: Mapping[PeriodKey, Held | None], now_us: int) -> int:
        """Note why periods are held, or that they are not; tell each that is newly held.

        Returns how many were told.
        """
        ...

    async def accepted_lost(self) -> int:
        """Return how many lost events periods have been closed without, by somebody's word."""
        ...

    async def waiting(self, delay_s: float, count: int) -> list[PeriodKey]:
        """Return up to `count` closed periods that have been due a correction for so long."""
        ...

    async def seal(self, asked: Sealing) -> Sealed:
        """Freeze the totals of periods, in one step with which what comes later is late for them.

        Of meters that are folded, it settles by which rule, and what is to be looked at again.

        Raises `BackendUnavailable` when those who store events keep it waiting.
        """
        ...

    async def unfinished(self, count: int) -> list[SealedRevision]:
        """Return up to `count` sealed revisions that are to be closed, the oldest first.

        One that adjusts others waits until those are closed.
        """
        ...

    async def close(
        self, revision: SealedRevision, covered: Covered, folded: Fold, now_us: int
    ) -> bool:
        """Close a revision and write its message, in one step; say whether it was not before.

        What was folded is frozen in that step.
        """
        ...

    async def states(self) -> list[StateCount]:
        """Count periods by state and by why they are held."""
        ...
