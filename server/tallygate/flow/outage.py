"""admit ─▶ [ outage ] ─▶ gather: where the store does not decide, the limits' own rules do.

If we die here, nothing was answered yet. If we die after a grant was answered and before it was
handed over, it is in the journal; `backlog` says what is lost without one.

Guarantees: what is granted here is in the backlog before its caller is told; a repeat of it gets
the same decision, here until the store has it and from the store afterwards. What may have been
applied by the store is granted or left open, never refused.
Refuses to know: why the store does not answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Fenced,
    Mode,
    Operation,
    Outcome,
    Reused,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    DeadlineTooShort,
    NotAsked,
    Overloaded,
    TallygateError,
)
from tallygate.domain.fence import is_fenced
from tallygate.domain.outage import DECIDABLE, LocalGrants, Ungranted, opted_in, rules_of
from tallygate.flow.backlog import Backlog, Key, key_of
from tallygate.flow.fair import Part
from tallygate.ports.journal import Debit

Answer = Outcome | TallygateError

# A full backlog empties only when the store is back, which is looked for every two seconds.
FULL_RETRY_US: Final = 2_000_000
# Several pipelines' worth: so many were in flight when the store went away, and a few more.
UNSETTLED_MAX: Final = 10_000
UNSENT: Final = (Overloaded, DeadlineTooShort)


class Decider(Protocol):
    """Whoever puts operations to the store."""

    async def decide(self, operations: Sequence[Operation]) -> list[Answer]:
        """Return one answer per operation, in order. Raises `Overloaded`."""
        ...

    @property
    def size_max(self) -> int:
        """How many operations a part may have."""
        ...

    def submit(self, part: Part) -> None:
        """Have a part answered or failed later, or at once."""
        ...


class OutageObserver(Protocol):
    """What is decided without the store."""

    def degraded(self, action: str) -> None:
        """A call ended: granted, recorded, refused, replayed, unavailable or full."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation with what its limits' rules are looked up in.

    `undurable` says that the caller is content with a grant that is held in memory only.
    """

    operation: Operation
    catalog: Catalog
    lineage: tuple[Tenant, ...]
    undurable: bool = True


class OutageGate:
    """Asks the store, and decides by the limits' rules where it does not answer."""

    def __init__(
        self,
        decider: Decider,
        backlog: Backlog,
        observer: OutageObserver,
        *,
        records_accepted: bool = True,
        share_of: Callable[[int], int] = int,
    ) -> None:
        """Put them together; `share_of` says how much of a budget is this process's."""
        self._decider = decider
        self._backlog = backlog
        self._observer = observer
        self._records_accepted = records_accepted
        self._share_of = share_of
        self._grants = LocalGrants()
        # Shards whose counters are not rebuilt yet, as far as was heard.
        self._fenced: set[int] = set()
        # What was sent and left open, until the store has answered it.
        self._unsettled: dict[Key, None] = {}

    def resume(self, debits: Sequence[Debit]) -> None:
        """Go on with budgets from which the process before this one has granted."""
        for account, field, units in debits:
            counter = (account, field)
            self._grants.granted[counter] = self._grants.granted.get(counter, 0) + units

    async def decide(self, asked: Sequence[Asked], now_us: int) -> list[Answer]:
        """Return one answer per operation, in order; `now_us` is the store's time, as far as known.

        Raises `Overloaded` as the one that is asked does.
        """
        answers: list[Answer | None] = [self.recalled(each.operation) for each in asked]
        places = [place for place, answer in enumerate(answers) if answer is None]
        if places:
            outcomes = await self._decider.decide([asked[place].operation for place in places])
            for place, outcome in zip(places, outcomes, strict=True):
                answers[place] = self.answered(asked[place], outcome, now_us)
        return [answer for answer in answers if answer is not None]

    @property
    def size_max(self) -> int:
        """How many operations of a part are sent together, at most."""
        return self._decider.size_max

    @property
    def calm(self) -> bool:
        """Whether a decision of the store means nothing but itself: no outage is remembered."""
        return not (self._fenced or self._unsettled)

    def submit(self, part: Part) -> None:
        """Put what is not `recalled` to the store; what comes of it is for `answered`."""
        self._decider.submit(part)

    def answered(self, asked: Asked, outcome: Answer, now_us: int) -> Answer:
        """Return what to answer where the store has said that, asked at `now_us`."""
        key = key_of(asked.operation)
        outcome = self._heard(asked.operation, outcome)
        if not isinstance(outcome, BackendUnavailable):
            # What was not sent settles nothing.
            if self._unsettled and key is not None and not isinstance(outcome, UNSENT):
                self._unsettled.pop(key, None)
            return outcome
        # The store may have granted what was sent to it, now or in an earlier try.
        sent = not isinstance(outcome, NotAsked) or key in self._unsettled
        answer = self._without_store(asked, outcome, now_us, sent)
        if sent and answer is outcome and key is not None:
            self._unsettled[key] = None
            if len(self._unsettled) > UNSETTLED_MAX:
                del self._unsettled[next(iter(self._unsettled))]
        return answer

    def _heard(self, operation: Operation, outcome: Answer) -> Answer:
        """Return the outcome, that of a fence as of a store that was not asked: it did nothing.

        What is granted beside a fence is counted at once, so that an empty backlog is no end of
        that outage: only an answer that the fence would have held back is.
        """
        if isinstance(outcome, Fenced):
            if not self._fenced and not self._backlog:
                self._grants = LocalGrants()
            self._fenced.add(operation.shard)
            return NotAsked("the shard's counters are being rebuilt")
        if self._fenced and not isinstance(outcome, TallygateError) and is_fenced(operation):
            self._fenced.discard(operation.shard)
        return outcome

    def recalled(self, operation: Operation) -> Answer | None:
        """Return the answer to a repeat of what waits in the backlog, None to anything else."""
        if not self._backlog or operation.mode not in DECIDABLE:
            return None
        granted = self._backlog.get(operation)
        if granted is None:
            return None
        if granted.operation.fingerprint != operation.fingerprint:
            return Reused()
        self._observer.degraded("replayed")
        return replace(granted.answer, replayed=True)

    def _without_store(
        self, asked: Asked, error: BackendUnavailable, now_us: int, sent: bool
    ) -> Answer:
        operation = asked.operation
        # A twin may have come in the same call, or while this one was waiting.
        held = self.recalled(operation)
        if held is not None:
            return held
        if not self._decidable(asked):
            self._observer.degraded("unavailable")
            return error
        if not self._backlog and not self._fenced:
            # All that was granted before is counted: what begins now is another outage.
            self._grants = LocalGrants()
        rules = rules_of(
            asked.catalog, asked.lineage, operation.charges, now_us, share_of=self._share_of
        )
        if not (self._records_accepted or opted_in(rules)):
            # Nobody has asked for grants that a crash would lose.
            self._observer.degraded("unavailable")
            return error
        ruling = self._grants.judge(operation, rules, now_us)
        if isinstance(ruling, Ungranted):
            self._observer.degraded("unavailable")
            return error
        if not ruling.allowed:
            # Of what was sent a refusal could be untrue: a retry tells, once the store is back.
            self._observer.degraded("unavailable" if sent else "refused")
            return error if sent else ruling
        kept = self._backlog.add(operation, ruling)
        if kept is None:
            self._observer.degraded("full")
            return Overloaded(
                "Redis is away, and there is no room for what is granted without it",
                retry_after_us=FULL_RETRY_US,
            )
        self._grants.debit(operation)
        self._observer.degraded("recorded" if operation.mode is Mode.RECORD else "granted")
        return kept

    def _decidable(self, asked: Asked) -> bool:
        operation = asked.operation
        if operation.mode is Mode.RECORD and not self._records_accepted:
            return False
        # Without an id the store could not tell whether it has the operation already.
        return (
            asked.undurable and operation.mode in DECIDABLE and operation.operation_id is not None
        )
