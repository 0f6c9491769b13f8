"""app ──gRPC──▶ api ─▶ [ admit ] ─▶ rounds ═▶ Redis: decide and record in one atomic step.

If we die here before the store is called, nothing has happened. If we die after it was called and
before the caller is answered, the caller retries with the same operation id and gets the first
answer. The events are in the stream by then; `ingest` takes them on.

Guarantees: everything is a list; one bad request never fails its neighbours. A call that has
nothing to wait for but the store costs no task and no future.
Refuses to know: protos, Redis, and who runs the loop of `gather`.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import Decided, Mode, Outcome
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
from tallygate.flow.alone import Alone
from tallygate.flow.decide import Answer, Decide, granted
from tallygate.flow.draft import FOREVER, Draft
from tallygate.flow.durable import Durable, Level, Needed
from tallygate.flow.rounds import Result, Round, Rounds, Told

# An enumeration's members are slow to find, and every call needs these.
_NONE: Final = Durability.UNSPECIFIED
_REJECT: Final = Mode.REJECT


class Granting(Protocol):
    """Whoever answers charges without the store, where it can."""

    def grant(self, draft: Draft, now_s: float) -> Answer | None:
        """Return the answer to a draft at that loop time, None where the store has to decide."""
        ...

    def learn(self, draft: Draft, answer: Answer) -> None:
        """Take in what was decided of a draft that was not granted."""
        ...


@dataclass(frozen=True, slots=True)
class _Awaited:
    """Lets one caller go on that waits for its results."""

    results: asyncio.Future[list[Result]]

    def waits(self, ticket: int) -> bool:
        """Say whether it does still."""
        return not self.results.done()

    def answered(self, ticket: int, results: Sequence[Result]) -> None:
        """Hand the results over."""
        if not self.results.done():
            self.results.set_result([*results])

    def failed(self, ticket: int, error: Exception) -> None:
        """Raise it where the caller waits."""
        if not self.results.done():
            self.results.set_exception(error)


class Admit:
    """Decides lists of requests. `expires_at` is loop time, in seconds, when callers give up.

    Charges are granted by `granting` where it is given and can.
    """

    def __init__(self, decide: Decide, granting: Granting | None = None) -> None:
        self._decide = decide
        self._granting = granting
        self._rounds = Rounds(decide, decide.gate, self._decided)
        # Rounds that wait for the journal or the ledger, and those that wait for a tenant.
        self._unsafe: list[Round] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def charge(
        self, requests: Sequence[ConsumeRequest], expires_at: float, ticket: int, told: Told
    ) -> None:
        """Charge each request against its limits, all or nothing, and record its events.

        `told` hears of it once, now or later, on the loop's thread.
        """
        if len(requests) == 1:
            self._send(requests[0], expires_at, ticket, told, record=False)
        else:
            self._begin(Round(told, ticket, requests, expires_at, False, [], []))

    def keep(
        self, requests: Sequence[UsageRequest], expires_at: float, ticket: int, told: Told
    ) -> None:
        """Record each event and count it, and tell, as `charge` does; quota refuses nothing."""
        if len(requests) == 1:
            self._send(requests[0], expires_at, ticket, told, record=True)
        else:
            self._begin(Round(told, ticket, requests, expires_at, True, [], []))

    async def consume(
        self, requests: Sequence[ConsumeRequest], expires_at: float = FOREVER
    ) -> list[ConsumeResult | TallygateError]:
        """Charge each request; return one result per request. Raises why there are none."""
        awaited = _Awaited(asyncio.get_running_loop().create_future())
        self.charge(requests, expires_at, 0, awaited)
        return cast(list[ConsumeResult | TallygateError], await awaited.results)

    async def record(
        self, requests: Sequence[UsageRequest], expires_at: float = FOREVER
    ) -> list[RecordResult | TallygateError]:
        """Record each event; return one result per request. Raises why there are none."""
        awaited = _Awaited(asyncio.get_running_loop().create_future())
        self.keep(requests, expires_at, 0, awaited)
        return cast(list[RecordResult | TallygateError], await awaited.results)

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

    def _send(
        self,
        request: ConsumeRequest | UsageRequest,
        expires_at: float,
        ticket: int,
        told: Told,
        *,
        record: bool,
    ) -> None:
        """Have one request decided, without a round where there is nothing more to it."""
        decide = self._decide
        try:
            catalog = decide.catalog()
            lineage = decide.held(request.tenant_id)
            if lineage is None or (self._granting is not None and not record):
                self._begin(Round(told, ticket, _only(request), expires_at, record, [], []))
                return
            now_us = decide.now_us()
            try:
                make: Any = decide.drafter.record if record else decide.drafter.consume
                draft = make(request, catalog, lineage, now_us, expires_at=expires_at)
                operation = draft.operation
                if draft.place is None:
                    operation = decide.drafter.bound(draft, now_us, expires_at)
            except TallygateError as error:
                told.answered(ticket, (decide.failed(error),))
                return
            if decide.gate.recalled(operation) is not None:
                self._begin(Round(told, ticket, _only(request), expires_at, record, [], []))
                return
            sent = (draft, operation, now_us)
            alone = Alone(
                self._heard, (told, ticket), request, sent, expires_at=expires_at, record=record
            )
            decide.gate.submit(alone)
        except Exception as error:  # noqa: BLE001  it is the answer, whatever it is
            told.failed(ticket, error)

    def _heard(self, it: Alone, outcome: Outcome | TallygateError) -> None:
        """Tell what the store has decided; what is not told at once goes on as a round."""
        decide, draft, operation = self._decide, it.draft, it.operations[0]
        if type(outcome) is not Decided or not decide.gate.calm:
            self._rounds.go_on(_round_of(it, None), operation, outcome, it.now_us)
            return
        answer = decide.settle(operation, outcome)
        level: Level | None = _NONE
        if outcome.allowed:
            level = decide.durable.known(outcome, it.request.min_durability, record=it.record)
        if level is None:
            self._decided(_round_of(it, answer))
            return
        result = (_recorded if it.record else _consumed)(draft, answer, level)
        it.told.answered(it.ticket, (result,))

    def _begin(self, it: Round) -> None:
        try:
            catalog = self._decide.catalog()
            lineages = [self._decide.held(request.tenant_id) for request in it.requests]
            if None in lineages:
                self._spawn(self._read(it, catalog))
            else:
                self._draft(it, catalog, cast(Sequence[tuple[Tenant, ...]], lineages))
        except Exception as error:  # noqa: BLE001  it is the answer, whatever it is
            it.told.failed(it.ticket, error)

    async def _read(self, it: Round, catalog: Catalog) -> None:
        """Go on with a round some of whose tenants have to be read."""
        try:
            lineages: list[tuple[Tenant, ...] | TallygateError] = []
            for request in it.requests:
                try:
                    lineages.append(await self._decide.lineage(request.tenant_id))
                except TallygateError as error:
                    lineages.append(error)
            self._draft(it, catalog, lineages)
        except Exception as error:  # noqa: BLE001  it is the answer, whatever it is
            it.told.failed(it.ticket, error)

    def _draft(
        self, it: Round, catalog: Catalog, lineages: Sequence[tuple[Tenant, ...] | TallygateError]
    ) -> None:
        """Draft every request, grant what can be, and have the rest decided."""
        decide = self._decide
        now_us = decide.now_us()
        # The requests of a round are of one kind.
        make: Any = decide.drafter.record if it.record else decide.drafter.consume
        for request, lineage in zip(it.requests, lineages, strict=True):
            try:
                if isinstance(lineage, TallygateError):
                    raise lineage
                draft = make(request, catalog, lineage, now_us, expires_at=it.expires_at)
                it.drafts.append(draft)
                it.answers.append(None)
            except TallygateError as error:
                it.drafts.append(error)
                it.answers.append(decide.failed(error))
        if self._granting is not None and not it.record:
            self._grant(self._granting, it)
        self._rounds.begin(it)

    def _grant(self, granting: Granting, it: Round) -> None:
        now_s = self._decide.monotonic()
        for place, draft in enumerate(it.drafts):
            if isinstance(draft, Draft):
                it.answers[place] = granting.grant(draft, now_s)

    def _decided(self, it: Round) -> None:
        """Answer a round at once where nothing is waited for, or have it wait."""
        if it.fault is not None:
            it.told.failed(it.ticket, it.fault)
            return
        if self._granting is not None and not it.record:
            # What was granted without the store tells nothing of it.
            for draft, answer in zip(it.drafts, it.answers, strict=True):
                if isinstance(draft, Draft) and not (type(answer) is Decided and answer.leased):
                    self._granting.learn(draft, cast(Answer, answer))
        levels: list[Level] = []
        durable = self._decide.durable
        for place, answer in enumerate(it.answers):
            level: Level | None = _NONE
            if type(answer) is Decided and answer.allowed:
                least = it.requests[place].min_durability
                level = durable.known(answer, least, record=it.record)
            if level is None:
                if not self._unsafe:
                    asyncio.get_running_loop().call_soon(self._secure)
                self._unsafe.append(it)
                return
            levels.append(level)
        _tell(it, levels)

    def _secure(self) -> None:
        """Have the rounds that were decided together wait together for what they wait for."""
        together: list[Round] = []
        waiting, self._unsafe = self._unsafe, []
        for it in waiting:
            # Whoever has less time, or waits for the ledger, must not have others wait.
            if all(each is None or Durable.patient(each, it.expires_at) for each in _needs(it)):
                together.append(it)
            else:
                self._spawn(self._reach([it], it.expires_at))
        if together:
            self._spawn(self._reach(together, FOREVER))

    async def _reach(self, rounds: Sequence[Round], expires_at: float) -> None:
        try:
            needed = [each for it in rounds for each in _needs(it)]
            levels = await self._decide.durable.reach(needed, expires_at)
        except Exception as error:  # noqa: BLE001  it is the answer, whatever it is
            for it in rounds:
                it.told.failed(it.ticket, error)
            return
        place = 0
        for it in rounds:
            count = len(it.answers)
            _tell(it, levels[place : place + count])
            place += count

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _only(
    request: ConsumeRequest | UsageRequest,
) -> Sequence[ConsumeRequest] | Sequence[UsageRequest]:
    return cast(Sequence[ConsumeRequest], (request,))


def _round_of(it: Alone, answer: Answer | None) -> Round:
    """Return one request as a round, its answer known or not."""
    requests = _only(it.request)
    return Round(it.told, it.ticket, requests, it.expires_at, it.record, [it.draft], [answer])


def _needs(it: Round) -> list[Needed | None]:
    return [
        _needed(it, place, answer) if type(answer) is Decided else None
        for place, answer in enumerate(it.answers)
    ]


def _needed(it: Round, place: int, answer: Decided) -> Needed:
    draft = it.drafts[place]
    assert isinstance(draft, Draft)
    return Needed(answer, draft.operation, it.requests[place].min_durability, it.record)


def _tell(it: Round, levels: Sequence[Level]) -> None:
    """Say what came of a round."""
    results: list[Result] = []
    make = _recorded if it.record else _consumed
    for draft, answer, level in zip(it.drafts, it.answers, levels, strict=True):
        assert answer is not None
        results.append(make(draft, answer, level) if isinstance(draft, Draft) else draft)
    it.told.answered(it.ticket, results)


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
    if draft.operation.mode is _REJECT:
        return EventTimeTooOld(field="event_time")
    decided = granted(answer)
    event_id = draft.operation.event_ids[0]
    return RecordResult(event_id, decided.replayed, level, decided.degraded)


def _read(draft: Draft, answer: Answer) -> QuotaResult | TallygateError:
    if isinstance(answer, TallygateError):
        return answer
    return QuotaResult(granted(answer).readings, draft.lineage[0].plan, draft.catalog.version)
