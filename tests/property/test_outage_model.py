"""Sidecars over a store that loses calls before and after applying them: sums always agree.

Owns the faults of the store, and what must hold after every run. Refuses to know real servers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tallygate.domain.catalog import Limit, OnOutage
from tallygate.domain.decision import Decided, Operation, Outcome
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import check, consume, now_us, used, window
from tests.flow.outage_parts import Sidecar, recorded

SIDECARS = 2
LIMIT = 30
BUDGET = 5
OPERATIONS = 12
LIMITS = {
    OnOutage.REFUSE: window(limit=LIMIT),
    OnOutage.ALLOW: window(limit=LIMIT, on_outage=OnOutage.ALLOW),
    OnOutage.LOCAL_BUDGET: window(
        limit=LIMIT, on_outage=OnOutage.LOCAL_BUDGET, local_budget=BUDGET
    ),
}


class LossyStore(FakeQuotaStore):
    """A store whose calls go well, get lost on the way there, or on the way back."""

    def __init__(self) -> None:
        super().__init__(now_us)
        self.fate = "well"

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide as the fate of the call has it."""
        if self.fate == "there":
            return [BackendUnavailable() for _ in operations]
        answers = await super().decide(operations)
        if self.fate == "back":
            return [BackendUnavailable() for _ in operations]
        return answers


@dataclass(slots=True)
class Run:
    """One run: its store, its sidecars, and of each operation answered whether it was granted."""

    limit: Limit
    store: LossyStore = field(default_factory=LossyStore)
    sidecars: list[Sidecar] = field(default_factory=list)
    answers: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sidecars = [Sidecar(self.store, [self.limit]) for _ in range(SIDECARS)]

    async def ask(self, number: int) -> None:
        """Ask for an operation where it was asked before; a grant must stay one by the store.

        In an outage a sidecar does not know of grants that the store has by now, and may refuse the
        repeat of one; its caller has been told of the grant before.
        """
        operation = consume([self.limit], 1 + number % 4, f"op-{number}")
        [answer] = await self.sidecars[number % SIDECARS].ask(operation)
        if isinstance(answer, Decided):
            granted = self.answers.get(number, False)
            assert answer.allowed or not granted or answer.degraded
            self.answers[number] = granted or answer.allowed

    async def recover(self) -> None:
        """Have the store answer, and every backlog handed over."""
        self.store.fate = "well"
        for sidecar in self.sidecars:
            await sidecar.recover()

    async def charged(self) -> int:
        """Return what the counter holds."""
        [answer] = await self.store.decide([check([self.limit])])
        return used(answer)[0]


FATES = st.sampled_from(["well", "there", "back", "recover"])
ASKS = st.integers(0, OPERATIONS - 1)


@given(st.sampled_from(list(OnOutage)), st.lists(st.one_of(FATES, ASKS), max_size=60))
def test_counter_and_events_are_the_grants(rule: OnOutage, steps: list[str | int]) -> None:
    """Whatever gets lost: after recovery and retries, what is charged is what was granted."""

    async def play() -> None:
        run = Run(LIMITS[rule])
        for step in steps:
            if isinstance(step, int):
                await run.ask(step)
            elif step == "recover":
                await run.recover()
            else:
                run.store.fate = step
        await run.recover()
        # A caller that was left without an answer asks again.
        for number in range(OPERATIONS):
            if number not in run.answers:
                await run.ask(number)
        granted = sum(1 + number % 4 for number, allowed in run.answers.items() if allowed)
        assert await run.charged() == granted
        names = [event.event_id for event in recorded(run.store)]
        assert sorted(names) == sorted(f"op-{n}" for n, allowed in run.answers.items() if allowed)
        if rule is OnOutage.REFUSE:
            assert granted <= LIMIT

    asyncio.run(play())


@given(st.lists(ASKS, max_size=80))
def test_a_budget_bounds_each_outage(asked: list[int]) -> None:
    """However callers ask in an outage, its grants stay within the budget of each sidecar."""

    async def play() -> None:
        run = Run(LIMITS[OnOutage.LOCAL_BUDGET])
        run.store.fate = "there"
        for number in asked:
            await run.ask(number)
        await run.recover()
        assert await run.charged() <= BUDGET * SIDECARS

    asyncio.run(play())
