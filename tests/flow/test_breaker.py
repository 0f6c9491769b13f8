"""The breaker: nobody waits for a store that fails or hangs, and a probe finds it back."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import pytest

from tallygate.adapters.clock import SystemClock
from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
    Outcome,
    Reservation,
    TooLate,
)
from tallygate.domain.detail import (
    Hold,
)
from tallygate.domain.errors import BackendUnavailable, NotAsked, TallygateError
from tallygate.domain.ids import EventId, OperationId, ReservationId, TenantId
from tallygate.flow.breaker import Breaker, BreakerOptions, CircuitState
from tallygate.ports import OperationKey, Recorded, ReservationKey
from tests.builders import consume, now_us, window
from tests.servers import eventually

HANG_MS = 30
GRANTED = Decided(allowed=True, at_us=0, readings=(), first_seq=1)

Answer = Outcome | TallygateError


@dataclass(slots=True)
class Watched:
    """Keeps what a breaker tells."""

    turns: list[CircuitState] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def turned(self, state: CircuitState) -> None:
        """Keep it."""
        self.turns.append(state)

    def hung(self, operations: int) -> None:
        """Add them up."""
        self.told["hung"] += operations

    def granted_late(self, operations: int) -> None:
        """Add them up."""
        self.told["late"] += operations


@dataclass(slots=True)
class Scripted:
    """A store that answers as a test says, and waits while its gate is shut."""

    answer: Callable[[Operation], Answer] = lambda _: GRANTED
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[list[Operation]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    async def decide(self, operations: Sequence[Operation]) -> list[Answer]:
        """Answer each, once the gate is open."""
        self.calls.append(list(operations))
        await self.gate.wait()
        return [self.answer(operation) for operation in operations]

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Know none, once the gate is open."""
        await self.gate.wait()
        if isinstance(self.answer(consume()), BackendUnavailable):
            raise BackendUnavailable
        return None

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Know none, once the gate is open."""
        await self.gate.wait()
        return None


def away(_: Operation) -> Answer:
    """Answer as a store that cannot be reached."""
    return BackendUnavailable()


def breaker(
    store: Scripted, failures_max: int = 3, hang_ms: int = HANG_MS
) -> tuple[Breaker, Watched]:
    """Return a closed breaker, and who hears it."""
    watched = Watched()
    options = BreakerOptions(hang_ms=hang_ms, failures_max=failures_max)
    return Breaker(store, SystemClock(), options, watched), watched


async def test_a_store_that_answers_is_asked() -> None:
    """While the store is well its answers pass as they are."""
    it, watched = breaker(Scripted())
    assert await it.decide([consume(), consume()]) == [GRANTED, GRANTED]
    assert watched.turns == []


async def test_a_hanging_store_costs_one_wait() -> None:
    """The first call gives up in time and opens the circuit; later ones do not wait at all."""
    store = Scripted()
    it, watched = breaker(store)
    store.gate.clear()
    started = time.perf_counter()
    [answer] = await it.decide([consume(name="op")])
    waited_ms = (time.perf_counter() - started) * 1000
    assert isinstance(answer, BackendUnavailable)
    assert not isinstance(answer, NotAsked)
    assert HANG_MS * 0.9 < waited_ms < HANG_MS + 200
    assert watched.turns == [CircuitState.OPEN]
    assert watched.told["hung"] == 1

    started = time.perf_counter()
    for _ in range(1_000):
        [answer] = await it.decide([consume(name="op")])
        assert isinstance(answer, NotAsked)
    assert (time.perf_counter() - started) / 1_000 < 0.001
    assert len(store.calls) == 1
    store.gate.set()
    await it.close()


async def test_a_stall_of_this_process_is_not_the_stores_fault() -> None:
    """An answer that is there, unread because the process did not run, is no hang."""
    store = Scripted()
    it, watched = breaker(store, hang_ms=200)
    store.gate.clear()
    loop = asyncio.get_running_loop()

    def stall() -> None:
        began = time.monotonic()
        while time.monotonic() < began + 0.4:
            pass
        store.gate.set()

    loop.call_soon(loop.call_soon, stall)
    assert await it.decide([consume()]) == [GRANTED]
    assert watched.turns == []


async def test_a_call_that_was_given_up_goes_on_and_tells() -> None:
    """What the store grants after all is counted as granted late; nothing breaks it off."""
    store = Scripted()
    it, watched = breaker(store)
    store.gate.clear()
    await it.decide([consume(), consume()])
    assert it.unanswered == 1
    store.gate.set()
    await it.close()
    assert watched.told["late"] == 2
    assert not it.closed


async def test_failures_in_a_row_open() -> None:
    """Some failures are each other's reason to stop asking; an answer between starts anew."""
    store = Scripted()
    it, watched = breaker(store)
    for answer in (away, away, lambda _: GRANTED, away, away):
        store.answer = answer
        await it.decide([consume()])
    assert watched.turns == []
    await it.decide([consume()])
    assert watched.turns == [CircuitState.OPEN]
    assert len(store.calls) == 6


async def test_one_shard_away_does_not_open() -> None:
    """While some operations are decided the store is asked for all."""
    store = Scripted(lambda each: away(each) if each.shard else GRANTED)
    it, _ = breaker(store, failures_max=1)
    await it.decide([consume(shard=0), consume(shard=1)])
    assert it.closed


async def test_a_probe_finds_the_store_back() -> None:
    """A failing probe leaves the circuit open and says so; one that is answered closes it."""
    store = Scripted(away)
    it, watched = breaker(store, failures_max=1)
    await it.decide([consume()])
    with pytest.raises(BackendUnavailable):
        await it.probe()
    store.answer = lambda _: GRANTED
    await it.probe()
    assert it.closed
    assert watched.turns == [
        CircuitState.OPEN,
        CircuitState.HALF_OPEN,
        CircuitState.OPEN,
        CircuitState.HALF_OPEN,
        CircuitState.CLOSED,
    ]
    assert store.calls[-1][0].mode is Mode.CHECK


async def test_a_store_that_is_well_is_not_probed() -> None:
    """A probe is for an open circuit only."""
    store = Scripted()
    it, _ = breaker(store)
    await it.probe()
    assert store.calls == []


async def test_probes_go_one_at_a_time() -> None:
    """While a probe waits another one does nothing, and callers go on unasked."""
    store = Scripted()
    it, _ = breaker(store, hang_ms=500)
    store.gate.clear()
    await it.decide([consume()])
    first = asyncio.create_task(it.probe())
    await eventually(lambda: len(store.calls) == 2, what="the probe")
    await it.probe()
    assert isinstance((await it.decide([consume()]))[0], NotAsked)
    assert len(store.calls) == 2
    store.gate.set()
    await first
    assert it.closed


async def test_a_fault_in_a_probe_does_not_end_probing() -> None:
    """A probe that breaks leaves an open circuit, which the next probe can close."""
    store = Scripted(away)
    it, _ = breaker(store, failures_max=1)
    await it.decide([consume()])

    def fault(_: Operation) -> Answer:
        raise ValueError("a fault in the store")

    store.answer = fault
    with pytest.raises(ValueError, match="a fault"):
        await it.probe()
    store.answer = lambda _: GRANTED
    await it.probe()
    assert it.closed


async def test_deadlines_are_in_the_stores_own_time() -> None:
    """Once the store's clock is known, what is sent names when it must not be applied any more."""
    store_us = now_us() + 3_600_000_000
    store = Scripted(lambda _: Decided(allowed=True, at_us=store_us, readings=(), first_seq=1))
    it, _ = breaker(store)
    await it.decide([consume()])
    soon = asyncio.get_running_loop().time() + HANG_MS / 4000
    await it.decide([consume(), consume(expires_at=soon)])
    assert store.calls[0][0].deadline_us == 0
    patient, hasty = (each.deadline_us - store_us for each in store.calls[1])
    assert hasty < patient <= HANG_MS * 1000 + 20_000
    assert hasty < HANG_MS * 1000 / 4 + 20_000


async def test_a_step_of_the_stores_clock_costs_a_second_try() -> None:
    """An operation refused as late, though it was not, is sent again by the time just learnt."""
    at_us = now_us()

    def answer(operation: Operation) -> Answer:
        late = 0 < operation.deadline_us < at_us
        return TooLate(at_us) if late else Decided(True, at_us, (), first_seq=1)

    store = Scripted(answer)
    it, _ = breaker(store)
    await it.decide([consume()])
    at_us += 10_000_000
    [outcome] = await it.decide([consume()])
    assert isinstance(outcome, Decided)
    assert len(store.calls) == 3


async def test_what_stays_late_was_surely_not_applied() -> None:
    """A store that keeps coming too late counts as one that does not answer."""
    it, watched = breaker(Scripted(lambda _: TooLate(now_us())), failures_max=1)
    [outcome] = await it.decide([consume()])
    assert isinstance(outcome, NotAsked)
    assert watched.turns == [CircuitState.OPEN]


RESERVATION = ReservationKey(0, TenantId("acme"), ReservationId("r"))


async def test_readings_are_broken_off_alike() -> None:
    """A reading waits no longer than a decision, counts as one, and is not tried while open."""
    store = Scripted()
    it, watched = breaker(store)
    assert await it.reservation(RESERVATION) is None
    store.gate.clear()
    with pytest.raises(BackendUnavailable, match="hangs"):
        await it.reservation(RESERVATION)
    assert watched.turns == [CircuitState.OPEN]
    with pytest.raises(NotAsked):
        await it.recorded(OperationKey(0, TenantId("acme"), OperationId("o"), EventId("e")))
    store.gate.set()
    await it.close()


async def test_readings_that_fail_open() -> None:
    """Failed readings in a row are as good a reason as failed decisions."""
    it, watched = breaker(Scripted(away), failures_max=2)
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await it.reservation(RESERVATION)
    assert watched.turns == [CircuitState.OPEN]


async def test_a_deadline_is_all_that_changes() -> None:
    """What is sent is the operation as it came, every field of it, but for its deadline."""
    store = Scripted(lambda _: Decided(True, now_us(), (), first_seq=1))
    it, _ = breaker(store)
    await it.decide([consume()])
    whole = consume(
        [window()],
        7,
        "op",
        event_ids=(EventId("e"),),
        event_time_us=5,
        reject_reason="why",
        expires_at=1e12,
        detail=Hold(ReservationId("r"), 1),
        epoch="0a1b2c3d",
        marked=False,
        trace=b"place",
    )
    await it.decide([whole])
    [sent] = store.calls[-1]
    assert sent.deadline_us > 0
    assert replace(sent, deadline_us=0) == whole
    # None is left at its default, which a field that was forgotten would have.
    plain = Operation(Mode.CHECK, TenantId(""), -1)
    names = [each.name for each in fields(Operation)]
    assert [name for name in names if getattr(sent, name) == getattr(plain, name)] == []
