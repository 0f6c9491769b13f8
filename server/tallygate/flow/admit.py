"""app ──gRPC──▶ api ─▶ [ admit ] ─▶ decide ═▶ Redis: decide and record in one atomic step.

If we die here before the store is called, nothing has happened. If we die after it was called and
before the caller is answered, the caller retries with the same operation id and gets the first
answer. The events are in the stream by then; `ingest` takes them on.

Guarantees: everything is a list; one bad request never fails its neighbours.
Refuses to know: protos, Redis, and who runs the loop of `gather`.
"""

from collections.abc import Sequence
from typing import Protocol

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import Decided, Mode
from tallygate.domain.errors import EventTimeTooOld, TallygateError
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
from tallygate.domain.spread import spread
from tallygate.flow.decide import FOREVER, Answer, Decide, granted
from tallygate.flow.draft import Draft
from tallygate.flow.durable import Level, Needed


class Decider(Protocol):
    """Whoever has drafts decided: `Decide`, or what stands in front of it."""

    async def decide(
        self, drafts: Sequence[Draft | TallygateError], expires_at: float = FOREVER
    ) -> list[Answer]:
        """Return one answer per draft."""
        ...


class Admit:
    """Decides lists of requests. `expires_at` is loop time, in seconds, when callers give up.

    Charges are decided by `charging` where it is given.
    """

    def __init__(self, decide: Decide, charging: Decider | None = None) -> None:
        self._decide = decide
        self._charging = charging or decide

    async def consume(
        self, requests: Sequence[ConsumeRequest], expires_at: float = FOREVER
    ) -> list[ConsumeResult | TallygateError]:
        """Charge each request against its limits, all or nothing, and record its events."""
        drafts = await self._decide.drafts(requests, self._decide.drafter.consume)
        answers = await self._charging.decide(drafts, expires_at)
        reached = await self._decide.durable.reach(
            [
                Needed(answer, draft.operation, request.min_durability)
                if isinstance(draft, Draft) and isinstance(answer, Decided)
                else None
                for request, draft, answer in zip(requests, drafts, answers, strict=True)
            ],
            expires_at,
        )
        return [
            _consumed(draft, answer, level) if isinstance(draft, Draft) else draft
            for draft, answer, level in zip(drafts, answers, reached, strict=True)
        ]

    async def record(
        self, requests: Sequence[UsageRequest], expires_at: float = FOREVER
    ) -> list[RecordResult | TallygateError]:
        """Record each event and count it; never refuse it for quota."""
        now_us = self._decide.now_us()

        def make(request: UsageRequest, catalog: Catalog, lineage: tuple[Tenant, ...]) -> Draft:
            return self._decide.drafter.record(request, catalog, lineage, now_us)

        drafts = await self._decide.drafts(requests, make)
        answers = await self._decide.decide(drafts, expires_at)
        reached = await self._decide.durable.reach(
            [
                Needed(answer, draft.operation, request.min_durability, record=True)
                if isinstance(draft, Draft) and isinstance(answer, Decided)
                else None
                for request, draft, answer in zip(requests, drafts, answers, strict=True)
            ],
            expires_at,
        )
        return [
            _recorded(draft, answer, level) if isinstance(draft, Draft) else draft
            for draft, answer, level in zip(drafts, answers, reached, strict=True)
        ]

    async def check(self, request: CheckRequest, expires_at: float = FOREVER) -> Decided:
        """Decide without charging. Raises the `TallygateError` that keeps it undecided."""
        drafts = await self._decide.drafts([request], self._decide.drafter.check)
        return granted((await self._decide.decide(drafts, expires_at))[0])

    async def quota(self, request: QuotaRequest, expires_at: float = FOREVER) -> QuotaResult:
        """Read a tenant's limits. Raises the `TallygateError` that keeps them unread."""
        (result,) = await self.quotas([request], expires_at)
        if isinstance(result, TallygateError):
            raise result
        return result

    async def quotas(
        self, requests: Sequence[QuotaRequest], expires_at: float = FOREVER
    ) -> list[QuotaResult | TallygateError]:
        """Read the limits of each request's tenant, also of one that is suspended."""
        drafts = await self._decide.drafts(requests, self._decide.drafter.quota)
        answers = await self._decide.decide(drafts, expires_at)
        return [
            _read(draft, answer) if isinstance(draft, Draft) else draft
            for draft, answer in zip(drafts, answers, strict=True)
        ]


def _consumed(draft: Draft, answer: Answer, level: Level) -> ConsumeResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    decided = granted(answer)
    if not decided.allowed:
        told = spread(decided, draft.operation.operation_id)
        return ConsumeResult(told, (), Durability.UNSPECIFIED)
    if isinstance(level, TallygateError):
        return level
    return ConsumeResult(decided, draft.operation.event_ids, level)


def _recorded(draft: Draft, answer: Answer, level: Level) -> RecordResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    if isinstance(level, TallygateError):
        return level
    if draft.operation.mode is Mode.REJECT:
        return EventTimeTooOld(field="event_time")
    decided = granted(answer)
    event_id = draft.operation.event_ids[0]
    return RecordResult(event_id, decided.replayed, level, decided.degraded)


def _read(draft: Draft, answer: Answer) -> QuotaResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    return QuotaResult(granted(answer).readings, draft.lineage[0].plan, draft.catalog.version)
