"""admit ─▶ [ rounds ] ─▶ outage ─▶ gather: calls are decided without a task or a future for each.

If we die here, what was sent may have been applied: callers retry with the same operation id and
get the first answer.

Guarantees: a round ends once, when each of its drafts has an answer; windows are bound anew where
the store's clock was in others; what nobody waits for any more is not sent.
Refuses to know: what was asked, and what is said of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tallygate.domain.decision import Decided, Operation, Outcome, Stale
from tallygate.domain.errors import BackendUnavailable, Overloaded, TallygateError
from tallygate.domain.ids import TenantId
from tallygate.domain.request import ConsumeRequest, ConsumeResult, RecordResult, UsageRequest
from tallygate.flow.decide import STALE_TRIES_MAX, Answer, Decide
from tallygate.flow.draft import Draft
from tallygate.flow.fair import Answers
from tallygate.flow.outage import Asked, OutageGate

Result = ConsumeResult | RecordResult | TallygateError
FIRST: Final = (0,)


class Told(Protocol):
    """Who hears what came of calls, by the ticket of each."""

    def waits(self, ticket: int) -> bool:
        """Say whether anybody still waits for the answer."""
        ...

    def answered(self, ticket: int, results: Sequence[Result]) -> None:
        """Take one result per request, in order."""
        ...

    def failed(self, ticket: int, error: Exception) -> None:
        """Take why there are no results."""
        ...


@dataclass(slots=True, eq=False)
class Round:
    """Requests that are answered together, and how far they are."""

    told: Told
    ticket: int
    requests: Sequence[ConsumeRequest] | Sequence[UsageRequest]
    expires_at: float
    record: bool
    drafts: list[Draft | TallygateError]
    answers: list[Answer | None]
    # Parts that are under way, those that were refused for want of room, and all there were.
    open: int = 0
    refused: int = 0
    parts: int = 0
    fault: Exception | None = None


@dataclass(slots=True, eq=False)
class _Sent:
    """Some operations of a round, of one tenant, on their way to the store and back."""

    rounds: "Rounds"
    round: Round
    tenant_id: TenantId
    places: Sequence[int]
    operations: Sequence[Operation]
    now_us: int
    tries: int

    def gone(self) -> bool:
        """Say whether nobody waits for the round any more."""
        return not self.round.told.waits(self.round.ticket)

    def answered(self, answers: Answers) -> None:
        """Take the store's answers, one per operation."""
        self.rounds.hear(self, answers)

    def failed(self, error: Exception) -> None:
        """Take why the store was not asked, or has not answered."""
        self.rounds.lose(self, error)


class Rounds:
    """Has the drafts of rounds decided. `ended` is called once for each, on the loop's thread."""

    def __init__(self, decide: Decide, gate: OutageGate, ended: Callable[[Round], None]) -> None:
        self._decide = decide
        self._gate = gate
        self._ended = ended

    def begin(self, it: Round) -> None:
        """Have every draft decided that has no answer yet."""
        # One for this call itself, so that an answer at once does not end the round too early.
        it.open = 1
        if len(it.answers) == 1:
            places: Sequence[int] = FIRST if it.answers[0] is None else ()
        else:
            places = [place for place, answer in enumerate(it.answers) if answer is None]
        if places:
            self._ask(it, places, 1)
        self._leave(it)

    def go_on(self, it: Round, sent: Operation, outcome: Outcome | TallygateError, at: int) -> None:
        """Take up a round of one request at what the store said of its first try, bound at `at`."""
        it.open = it.parts = 1
        self.hear(_Sent(self, it, sent.tenant_id, FIRST, (sent,), at, 1), [outcome])

    def hear(self, sent: _Sent, answers: Answers) -> None:
        """Take in what the store has answered."""
        it = sent.round
        try:
            stale = self._take(sent, answers)
            if stale:
                self._ask(it, stale, sent.tries + 1)
        except Exception as error:  # noqa: BLE001  a fault in one round must not end all others
            it.fault = error
        self._leave(it)

    def lose(self, sent: _Sent, error: Exception) -> None:
        """Take in that there are no answers."""
        it = sent.round
        if isinstance(error, Overloaded):
            it.refused += 1
            for place in sent.places:
                it.answers[place] = error
        else:
            it.fault = error
        self._leave(it)

    def _ask(self, it: Round, places: Sequence[int], tries: int) -> None:
        """Send the drafts at those places, each tenant's operations by themselves."""
        decide, gate = self._decide, self._gate
        now_us = decide.now_us()
        by_tenant: dict[TenantId, tuple[list[int], list[Operation]]] = {}
        for place in places:
            draft = it.drafts[place]
            assert isinstance(draft, Draft)
            try:
                if tries == 1 and draft.place is not None:
                    # It was bound when it was drafted, a moment ago.
                    operation = draft.operation
                else:
                    operation = decide.drafter.bound(draft, now_us, it.expires_at)
            except TallygateError as error:
                it.answers[place] = decide.failed(error)
                continue
            recalled = gate.recalled(operation)
            if recalled is not None:
                it.answers[place] = decide.settle(operation, recalled)
                continue
            if len(places) == 1:
                self._submit(it, places, [operation], (now_us, tries))
                return
            found = by_tenant.get(operation.tenant_id)
            if found is None:
                found = by_tenant[operation.tenant_id] = ([], [])
            found[0].append(place)
            found[1].append(operation)
        size = gate.size_max
        for own, operations in by_tenant.values():
            for start in range(0, len(own), size):
                to_send = operations[start : start + size]
                self._submit(it, own[start : start + size], to_send, (now_us, tries))

    def _submit(
        self,
        it: Round,
        places: Sequence[int],
        operations: Sequence[Operation],
        at: tuple[int, int],
    ) -> None:
        """Send a part, bound at that time in the so-manieth try."""
        it.open += 1
        it.parts += 1
        tenant_id = operations[0].tenant_id
        self._gate.submit(_Sent(self, it, tenant_id, places, operations, *at))

    def _take(self, sent: _Sent, outcomes: Answers) -> list[int]:
        """Settle what was decided; return the places of what has to be asked again."""
        it, decide, gate = sent.round, self._decide, self._gate
        stale: list[int] = []
        for place, operation, outcome in zip(sent.places, sent.operations, outcomes, strict=True):
            if type(outcome) is Decided and gate.calm:
                it.answers[place] = decide.settle(operation, outcome)
                continue
            draft = it.drafts[place]
            assert isinstance(draft, Draft)
            asked = Asked(operation, draft.catalog, draft.lineage, draft.undurable)
            answer = gate.answered(asked, outcome, sent.now_us)
            if isinstance(answer, Stale):
                decide.learn(answer.now_us)
                if sent.tries < STALE_TRIES_MAX:
                    stale.append(place)
                else:
                    it.answers[place] = BackendUnavailable()
            else:
                it.answers[place] = decide.settle(operation, answer)
        return stale

    def _leave(self, it: Round) -> None:
        it.open -= 1
        if not it.open:
            if it.parts and it.refused == it.parts and it.fault is None:
                # Nothing of it was let in: whoever asked is told to come back with all of it.
                it.fault = next(each for each in it.answers if isinstance(each, Overloaded))
            self._ended(it)
