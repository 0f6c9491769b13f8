"""admit, reserve, refund ─▶ [ decide ] ─▶ outage ─▶ gather ─▶ QuotaStore: drafts become answers.

If we die here, what was sent may have been applied: callers retry with the same operation id and
get the first answer.

Guarantees: one answer per draft; windows are bound anew where the store's clock was in others.
Refuses to know: what was asked, and what is said of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Broken,
    Changed,
    Crowded,
    Decided,
    Fenced,
    Known,
    Mode,
    Moved,
    Operation,
    Outcome,
    Overflowed,
    RefundExceeds,
    Reused,
    Stale,
    TooLate,
    Unresolved,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    CounterOverflow,
    OperationIdReused,
    RefundTooLarge,
    StorageFault,
    TallygateError,
    TooManyReservations,
)
from tallygate.domain.hold import HOLDS_MAX
from tallygate.domain.ids import TenantId
from tallygate.flow.draft import FOREVER, Draft, Drafter, Trace
from tallygate.flow.durable import Durable
from tallygate.flow.outage import Asked, OutageGate
from tallygate.ports import CatalogView, Clock, EventEncoder

# A window can turn between two tries, hardly ever twice.
STALE_TRIES_MAX: Final = 3

Answer = Decided | Unresolved | Changed | TallygateError


class HasTenant(Protocol):
    """A request of a tenant."""

    @property
    def tenant_id(self) -> TenantId:
        """Whose request it is."""
        ...


Request = TypeVar("Request", bound=HasTenant)

_KINDS: Final = {
    Mode.RECORD: "recorded",
    Mode.REJECT: "rejected",
    Mode.CHECK: "checked",
    Mode.COMMIT: "committed",
    Mode.RELEASE: "released",
    Mode.SETTLE: "settled",
    Mode.EXTEND: "extended",
    Mode.REFUND: "refunded",
}


class DecideObserver(Protocol):
    """What deciding tells of itself."""

    def decided(self, outcome: str) -> None:
        """An operation ended.

        It was: allowed, refused, replayed, recorded, rejected, checked, failed, committed,
        released, settled, extended, refunded, closed.
        """

    def accepted(self, events: int) -> None:
        """So many events are in the stream that were not there before."""


@dataclass(frozen=True, slots=True)
class DecideParts:
    """What deciding works with."""

    catalog: CatalogView
    outage: OutageGate
    clock: Clock
    encoder: EventEncoder
    observer: DecideObserver
    shards: int
    # What makes answers durable; None where the store is all there is.
    durable: Durable | None = None
    # Where calls are in traces; None where none are recorded.
    trace: Trace | None = None


class Decide:
    """Has drafts decided. `expires_at` is loop time, in seconds, when callers give up."""

    def __init__(self, parts: DecideParts) -> None:
        self._parts = parts
        self.gate: Final = parts.outage
        self.durable: Final = parts.durable or Durable()
        self.drafter: Final = Drafter(
            parts.encoder, parts.shards, self.durable.offered, parts.trace
        )
        # How far the store's clock is ahead of ours; learnt from its answers.
        self._ahead_us = 0
        self._learnt_us = 0

    def now_us(self) -> int:
        """Return the store's time, as far as it is known."""
        return self._parts.clock.now_us() + self._ahead_us

    def monotonic(self) -> float:
        """Return this process's own time, in seconds."""
        return self._parts.clock.monotonic()

    def catalog(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        return self._parts.catalog.current()

    def failed(self, error: TallygateError) -> TallygateError:
        """Tell of a call that cannot be decided; return why."""
        self._parts.observer.decided("failed")
        return error

    def held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the tenant's lineage where it is in memory."""
        return self._parts.catalog.lineage_held(tenant_id)

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant, its parent, and so on. Raises `UnknownTenant`."""
        view = self._parts.catalog
        held = view.lineage_held(tenant_id)
        return held if held is not None else await view.lineage(tenant_id)

    async def drafts(
        self,
        requests: Sequence[Request],
        make: Callable[[Request, Catalog, tuple[Tenant, ...]], Draft],
    ) -> list[Draft | TallygateError]:
        """Return one draft per request, or why there is none. Raises `CatalogNotLoaded`."""
        catalog = self.catalog()
        drafts: list[Draft | TallygateError] = []
        for request in requests:
            try:
                drafts.append(make(request, catalog, await self.lineage(request.tenant_id)))
            except TallygateError as error:
                drafts.append(self.failed(error))
        return drafts

    async def decide(
        self, drafts: Sequence[Draft | TallygateError], expires_at: float = FOREVER
    ) -> list[Answer]:
        """Return one answer per draft; what is an error already stays it."""
        answers: list[Answer] = [
            draft if isinstance(draft, TallygateError) else BackendUnavailable() for draft in drafts
        ]
        waiting = [place for place, draft in enumerate(drafts) if isinstance(draft, Draft)]
        for _ in range(STALE_TRIES_MAX):
            if not waiting:
                break
            waiting = await self._try(drafts, waiting, answers, expires_at)
        return answers

    async def _try(
        self,
        drafts: Sequence[Draft | TallygateError],
        waiting: Sequence[int],
        answers: list[Answer],
        expires_at: float,
    ) -> list[int]:
        """Decide the drafts at those places; return the places whose windows had passed."""
        now_us = self.now_us()
        operations: list[tuple[int, Operation]] = []
        asked: list[Asked] = []
        for place in waiting:
            draft = drafts[place]
            assert isinstance(draft, Draft)
            try:
                operation = self.drafter.bound(draft, now_us, expires_at)
                if self._parts.trace is not None and not operation.trace:
                    operation = replace(operation, trace=self._parts.trace(operation.tenant_id))
                operations.append((place, operation))
                asked.append(Asked(operation, draft.catalog, draft.lineage, draft.undurable))
            except TallygateError as error:
                answers[place] = self.failed(error)
        if not operations:
            return []
        outcomes = await self._parts.outage.decide(asked, now_us)
        stale: list[int] = []
        for (place, operation), outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, Stale):
                self.learn(outcome.now_us)
                stale.append(place)
            else:
                answers[place] = self.settle(operation, outcome)
        return stale

    def settle(self, operation: Operation, outcome: Outcome | TallygateError) -> Answer:
        """Return what an outcome comes to, told and learnt from."""
        observer = self._parts.observer
        # Nearly every outcome is a decision, and every call comes through here.
        answer = outcome if type(outcome) is Decided else _answer(operation, outcome)
        if isinstance(answer, TallygateError):
            observer.decided("failed")
        elif not isinstance(answer, Decided):
            observer.decided("closed")
        else:
            if not answer.replayed and not answer.degraded:
                # Operations of one script have one time.
                if answer.at_us != self._learnt_us:
                    self.learn(answer.at_us)
                if answer.first_seq:
                    events = operation.event_count
                    if operation.detail is not None:
                        events = accepted_events(operation, answer)
                    observer.accepted(events)
            observer.decided(_kind(operation.mode, answer))
        return answer

    def learn(self, store_us: int) -> None:
        """Take in what the store's clock said just now."""
        self._ahead_us = store_us - self._parts.clock.now_us()
        self._learnt_us = store_us


def accepted_events(operation: Operation, answer: Decided) -> int:
    """Return how many events a granted operation has put into the stream."""
    detail = operation.detail
    excess = getattr(detail, "excess_count", 0) if answer.refused_by is None else 0
    return operation.event_count + int(excess)


def granted(answer: Answer) -> Decided:
    """Return a decision. Raises the error that stands in its place."""
    if isinstance(answer, TallygateError):
        raise answer
    assert isinstance(answer, Decided), "only a reservation can be closed"
    return answer


def _answer(operation: Operation, outcome: Outcome | TallygateError) -> Answer:
    match outcome:
        case Decided() | Unresolved() | Changed() | TallygateError():
            return outcome
        case Reused():
            field = "event_id" if operation.mode is Mode.RECORD else "operation_id"
            return OperationIdReused(f"the {field} was used before with other content", field=field)
        case Overflowed(limit_id):
            return CounterOverflow(f"the counter of limit {limit_id} would pass 2^53 - 1")
        case RefundExceeds(left):
            return RefundTooLarge(f"the event has {left} units left to refund", field="amount")
        case Crowded():
            return TooManyReservations(
                f"an account of the tenant holds {HOLDS_MAX} reservations, as many as it may"
            )
        case Known():
            return OperationIdReused("one of its calls is known already", field="operation_id")
        case Moved():
            return BackendUnavailable("the tenant is on its way to another parent")
        case Fenced():
            return BackendUnavailable("the shard's counters are being rebuilt")
        case Broken(detail):
            return StorageFault(detail)
        case Stale() | TooLate():
            return BackendUnavailable("the store's clock moves too fast to decide by")


def _kind(mode: Mode, answer: Decided) -> str:
    if answer.replayed:
        return "replayed"
    kind = _KINDS.get(mode)
    if kind is None:
        return "allowed" if answer.allowed else "refused"
    return kind
