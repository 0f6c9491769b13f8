"""app ──gRPC──▶ api ─▶ [ admit ] ─▶ QuotaStore ═▶ Redis: decide and record in one atomic step.

If we die here before the store is called, nothing has happened. If we die after it was called and
before the caller is answered, the caller retries with the same operation id and gets the first
answer. The events are in the stream by then; `ingest` takes them on.

Guarantees: everything is a list; one bad request never fails its neighbours.
Refuses to know: protos, Redis, and who runs the loop of `gather`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Broken,
    Decided,
    Mode,
    Operation,
    Outcome,
    Overflowed,
    Reused,
    Stale,
    TooLate,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    CounterOverflow,
    EventTimeTooOld,
    OperationIdReused,
    StorageFault,
    TallygateError,
    UnknownMeter,
)
from tallygate.domain.ids import TenantId
from tallygate.domain.request import (
    CheckRequest,
    ConsumeRequest,
    ConsumeResult,
    Durability,
    QuotaRequest,
    QuotaResult,
    RecordResult,
    UsageRequest,
)
from tallygate.flow.bind import amounts_by_meter
from tallygate.flow.draft import OFFERED, Draft, Drafter
from tallygate.flow.gather import Gather
from tallygate.flow.outage import Asked, OutageGate
from tallygate.ports import CatalogView, Clock, EventEncoder

# A window can turn between two tries, hardly ever twice.
STALE_TRIES_MAX: Final = 3
FOREVER: Final = float("inf")

Answer = Decided | TallygateError
_Request = TypeVar("_Request", ConsumeRequest, UsageRequest)


class AdmitObserver(Protocol):
    """What admit tells of itself."""

    def decided(self, outcome: str) -> None:
        """An operation ended: allowed, refused, recorded, replayed, rejected, checked or failed."""

    def accepted(self, events: int) -> None:
        """So many events are in the stream that were not there before."""


@dataclass(frozen=True, slots=True)
class AdmitParts:
    """What admit works with."""

    catalog: CatalogView
    gather: Gather
    clock: Clock
    encoder: EventEncoder
    observer: AdmitObserver
    shards: int
    outage: OutageGate


class Admit:
    """Decides lists of requests. `expires_at` is loop time, in seconds, when callers give up."""

    def __init__(self, parts: AdmitParts) -> None:
        self._parts = parts
        self._drafter = Drafter(parts.encoder, parts.shards)
        # How far the store's clock is ahead of ours; learnt from its answers.
        self._ahead_us = 0

    async def consume(
        self, requests: Sequence[ConsumeRequest], expires_at: float = FOREVER
    ) -> list[ConsumeResult | TallygateError]:
        """Charge each request against its limits, all or nothing, and record its events."""
        drafts = await self._drafts(requests, self._drafter.consume)
        answers = await self._decide(drafts, expires_at)
        return [
            _consumed(draft, answer) if isinstance(draft, Draft) else draft
            for draft, answer in zip(drafts, answers, strict=True)
        ]

    async def record(
        self, requests: Sequence[UsageRequest], expires_at: float = FOREVER
    ) -> list[RecordResult | TallygateError]:
        """Record each event and count it; never refuse it for quota."""
        now_us = self._now_us()

        def make(request: UsageRequest, catalog: Catalog, lineage: tuple[Tenant, ...]) -> Draft:
            return self._drafter.record(request, catalog, lineage, now_us)

        drafts = await self._drafts(requests, make)
        answers = await self._decide(drafts, expires_at)
        return [
            _recorded(draft, answer) if isinstance(draft, Draft) else draft
            for draft, answer in zip(drafts, answers, strict=True)
        ]

    async def check(self, request: CheckRequest, expires_at: float = FOREVER) -> Decided:
        """Decide without charging. Raises the `TallygateError` that keeps it undecided."""
        catalog = self._parts.catalog.current()
        lineage = await self._lineage(request.tenant_id)
        draft = self._drafter.check(catalog, lineage, amounts_by_meter(catalog, request.items))
        return _decided((await self._decide([draft], expires_at))[0])

    async def quota(self, request: QuotaRequest, expires_at: float = FOREVER) -> QuotaResult:
        """Read a tenant's limits. Raises the `TallygateError` that keeps them unread."""
        catalog = self._parts.catalog.current()
        for meter in request.meters:
            if meter not in catalog.meters:
                raise UnknownMeter(f"the catalog has no meter {meter!r}", field="meters")
        lineage = await self._lineage(request.tenant_id)
        amounts = dict.fromkeys(request.meters or catalog.meters, 0)
        draft = self._drafter.check(catalog, lineage, amounts)
        decided = _decided((await self._decide([draft], expires_at))[0])
        return QuotaResult(decided.readings, lineage[0].plan, catalog.version)

    async def _drafts(
        self,
        requests: Sequence[_Request],
        make: Callable[[_Request, Catalog, tuple[Tenant, ...]], Draft],
    ) -> list[Draft | TallygateError]:
        catalog = self._parts.catalog.current()
        drafts: list[Draft | TallygateError] = []
        for request in requests:
            try:
                drafts.append(make(request, catalog, await self._lineage(request.tenant_id)))
            except TallygateError as error:
                self._parts.observer.decided("failed")
                drafts.append(error)
        return drafts

    async def _lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        view = self._parts.catalog
        held = view.lineage_held(tenant_id)
        return held if held is not None else await view.lineage(tenant_id)

    async def _decide(
        self, drafts: Sequence[Draft | TallygateError], expires_at: float
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
        now_us = self._now_us()
        operations: list[tuple[int, Operation]] = []
        asked: list[Asked] = []
        for place in waiting:
            draft = drafts[place]
            assert isinstance(draft, Draft)
            try:
                operation = self._drafter.bound(draft, now_us, expires_at)
                operations.append((place, operation))
                asked.append(Asked(operation, draft.catalog, draft.lineage, draft.undurable))
            except TallygateError as error:
                self._parts.observer.decided("failed")
                answers[place] = error
        if not operations:
            return []
        outcomes = await self._parts.outage.decide(asked, now_us)
        stale: list[int] = []
        for (place, operation), outcome in zip(operations, outcomes, strict=True):
            if isinstance(outcome, Stale):
                self._learn(outcome.now_us)
                stale.append(place)
            else:
                answers[place] = self._settle(operation, outcome)
        return stale

    def _settle(self, operation: Operation, outcome: Outcome | TallygateError) -> Answer:
        observer = self._parts.observer
        answer = _answer(operation, outcome)
        if isinstance(answer, TallygateError):
            observer.decided("failed")
            return answer
        if not answer.replayed and not answer.degraded:
            self._learn(answer.at_us)
            if answer.first_seq:
                observer.accepted(operation.event_count)
        observer.decided(_kind(operation.mode, answer))
        return answer

    def _now_us(self) -> int:
        return self._parts.clock.now_us() + self._ahead_us

    def _learn(self, store_us: int) -> None:
        self._ahead_us = store_us - self._parts.clock.now_us()


def _answer(operation: Operation, outcome: Outcome | TallygateError) -> Answer:
    match outcome:
        case Decided() | TallygateError():
            return outcome
        case Reused():
            field = "event_id" if operation.mode is Mode.RECORD else "operation_id"
            return OperationIdReused(f"the {field} was used before with other content", field=field)
        case Overflowed(limit_id):
            return CounterOverflow(f"the counter of limit {limit_id} would pass 2^53 - 1")
        case Broken(detail):
            return StorageFault(detail)
        case Stale() | TooLate():
            return BackendUnavailable("the store's clock moves too fast to decide by")


def _kind(mode: Mode, answer: Decided) -> str:
    if answer.replayed:
        return "replayed"
    if mode is Mode.CONSUME:
        return "allowed" if answer.allowed else "refused"
    return {Mode.RECORD: "recorded", Mode.REJECT: "rejected", Mode.CHECK: "checked"}[mode]


def _consumed(draft: Draft, answer: Answer) -> ConsumeResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    if not answer.allowed:
        return ConsumeResult(answer, (), Durability.UNSPECIFIED)
    durability = Durability.UNSPECIFIED if answer.degraded else OFFERED
    return ConsumeResult(answer, draft.operation.event_ids, durability)


def _recorded(draft: Draft, answer: Answer) -> RecordResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    if draft.operation.mode is Mode.REJECT:
        return EventTimeTooOld(field="event_time")
    durability = Durability.UNSPECIFIED if answer.degraded else OFFERED
    return RecordResult(draft.operation.event_ids[0], answer.replayed, durability, answer.degraded)


def _decided(answer: Answer) -> Decided:
    if isinstance(answer, TallygateError):
        raise answer
    return answer
