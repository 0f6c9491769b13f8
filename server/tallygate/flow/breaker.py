"""gather ─▶ [ breaker ] ─▶ QuotaStore: nobody waits for a store that fails or hangs.

If we die here, operations in flight may have been applied: callers retry with the same operation id
and are told. Whether the store answers is found out anew by the next process.

Guarantees: no call waits longer than `hang_ms`; while the circuit is open no call waits at all, and
the store is asked by one probe at a time. An operation that is given up carries a deadline in the
store's own time: a store that comes to it later leaves it alone, so that what was answered with an
error is not charged afterwards. What remains is named in docs/outages.md.
Refuses to know: what is decided instead.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
    Outcome,
    Reservation,
    Stale,
    TooLate,
)
from tallygate.domain.errors import BackendUnavailable, CatalogNotLoaded, NotAsked, TallygateError
from tallygate.domain.ids import TenantId
from tallygate.flow.store_time import S_US, StoreTime
from tallygate.ports import (
    CatalogView,
    Clock,
    OperationKey,
    QuotaStore,
    Recorded,
    ReservationKey,
)

# The last part of the time that an operation has is for the answer's way back.
ANSWER_SHARE: Final = 0.2
# A second try is for a deadline that a step of the store's clock made wrong.
LATE_TRIES_MAX: Final = 2
HANG_MS: Final = 250
FAILURES_MAX: Final = 3
HANGS: Final = "Redis hangs"

Answer = Outcome | TallygateError
T = TypeVar("T")


class CircuitState(StrEnum):
    """Whether the store is asked: always, never, or by a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerObserver(Protocol):
    """What the breaker tells of itself."""

    def turned(self, state: CircuitState) -> None:
        """The circuit came to another state."""

    def hung(self, operations: int) -> None:
        """So many operations were given up because the store did not answer in time."""

    def granted_late(self, operations: int) -> None:
        """So many operations were granted by the store after they had been given up."""


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When the circuit opens: after so many failures in a row, or one wait of `hang_ms`."""

    hang_ms: int = HANG_MS
    failures_max: int = FAILURES_MAX


@dataclass(slots=True)
class Circuit:
    """The state, as a machine without time: who calls it knows when."""

    failures_max: int
    observer: BreakerObserver
    state: CircuitState = CircuitState.CLOSED
    failures: int = 0

    def succeeded(self) -> None:
        """The store has answered."""
        self.failures = 0
        self._turn(CircuitState.CLOSED)

    def failed(self) -> None:
        """The store has failed to answer; a probe's failure opens at once."""
        self.failures += 1
        if self.failures >= self.failures_max or self.state is CircuitState.HALF_OPEN:
            self._turn(CircuitState.OPEN)

    def hung(self) -> None:
        """The store does not answer: one such wait is enough."""
        self.failures += 1
        self._turn(CircuitState.OPEN)

    def probing(self) -> None:
        """One question is let through."""
        assert self.state is CircuitState.OPEN
        self._turn(CircuitState.HALF_OPEN)

    def _turn(self, state: CircuitState) -> None:
        if state is not self.state:
            self.state = state
            self.observer.turned(state)


class Breaker:
    """The `QuotaStore` port in front of another one."""

    def __init__(
        self, store: QuotaStore, clock: Clock, options: BreakerOptions, observer: BreakerObserver
    ) -> None:
        self._store = store
        self._clock = clock
        self._hang_s = options.hang_ms / 1000
        self._observer = observer
        self._circuit = Circuit(options.failures_max, observer)
        self._time = StoreTime()
        self._calls: set[asyncio.Task[Any]] = set()

    @property
    def closed(self) -> bool:
        """Whether the store is asked."""
        return self._circuit.state is CircuitState.CLOSED

    @property
    def unanswered(self) -> int:
        """How many calls of the store have not ended, given up or not."""
        return len(self._calls)

    async def decide(self, operations: Sequence[Operation]) -> list[Answer]:
        """Decide, within `hang_ms`. `NotAsked` says of an operation that it was surely not applied.

        Any other `BackendUnavailable` says that it may have been.
        """
        if not self.closed:
            return [NotAsked() for _ in operations]
        call = await self._within_patience(self._ask(operations))
        if not call.done():
            self._gave_up(len(operations))
            call.add_done_callback(self._came_late)
            return [BackendUnavailable(HANGS) for _ in operations]
        answers = call.result()
        # One unreachable shard of many is no reason to leave the others unasked.
        if _unavailable(answers):
            self._circuit.failed()
        else:
            self._circuit.succeeded()
        return answers

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return what the store does. Raises `BackendUnavailable`, and what the store raises."""
        return await self.read(self._store.reservation(key))

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return what the store does. Raises `BackendUnavailable`, and what the store raises."""
        return await self.read(self._store.recorded(key))

    async def probe(self) -> None:
        """Ask the store, unless it is known to answer. Raises `BackendUnavailable`."""
        if self._circuit.state is not CircuitState.OPEN:
            return
        self._circuit.probing()
        call = await self._within_patience(self._ask([PROBE]))
        answered = call.done() and call.exception() is None and not _unavailable(call.result())
        if answered:
            self._circuit.succeeded()
            return
        self._circuit.failed()
        # One question at a time: the store's own timeout ends one that hangs.
        await call
        raise BackendUnavailable

    async def close(self) -> None:
        """Wait until no call of the store is under way; its own timeouts end them."""
        while self._calls:
            await asyncio.wait(set(self._calls))

    async def read(self, asking: Coroutine[Any, Any, T]) -> T:
        """Return what is read from where the store is, with the breaker's patience.

        Raises `BackendUnavailable`, and what the reading raises.
        """
        if not self.closed:
            asking.close()
            raise NotAsked
        call = await self._within_patience(asking)
        if not call.done():
            self._gave_up(1)
            call.add_done_callback(_heard)
            raise BackendUnavailable(HANGS)
        error = call.exception()
        # Without a catalog the store has answered that it has none.
        if isinstance(error, BackendUnavailable) and not isinstance(error, CatalogNotLoaded):
            self._circuit.failed()
        else:
            self._circuit.succeeded()
        return call.result()

    def _gave_up(self, operations: int) -> None:
        self._circuit.hung()
        self._observer.hung(operations)

    async def _within_patience(self, asking: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Return the call, ended when that was in time."""
        call = asyncio.create_task(asking)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        # Given up, it goes on: to break it off would not undo it, and its answer tells the truth.
        # In two parts: when this process itself was kept from running meanwhile, the second one
        # lets it read what has come, before the store is blamed for it.
        for share in (1 - ANSWER_SHARE, ANSWER_SHARE):
            await asyncio.wait({call}, timeout=self._hang_s * share)
            if call.done():
                break
        return call

    async def _ask(self, operations: Sequence[Operation]) -> list[Answer]:
        began_s = self._clock.monotonic()
        answers: list[Answer] = [NotAsked("Redis came to it too late; nothing was charged")] * len(
            operations
        )
        waiting = list(range(len(operations)))
        for _ in range(LATE_TRIES_MAX):
            sent_s = self._clock.monotonic()
            if sent_s - began_s >= self._hang_s:
                break
            outcomes = await self._store.decide(
                self._dated([operations[place] for place in waiting], began_s)
            )
            self._learn(outcomes, sent_s)
            late: list[int] = []
            for place, outcome in zip(waiting, outcomes, strict=True):
                if isinstance(outcome, TooLate):
                    late.append(place)
                else:
                    answers[place] = outcome
            waiting = late
            if not waiting:
                break
        return answers

    def _dated(self, operations: list[Operation], began_s: float) -> list[Operation]:
        began_us = self._time.at(began_s)
        if not began_us:
            return operations
        share_us = (1 - ANSWER_SHARE) * S_US
        return [
            # What brings a deadline of its own keeps it: nobody waits for what was leased.
            each
            if each.deadline_us
            else _due(each, began_us + int(min(self._hang_s, each.expires_at - began_s) * share_us))
            for each in operations
        ]

    def _learn(self, outcomes: Sequence[Answer], sent_s: float) -> None:
        received_s = self._clock.monotonic()
        for outcome in outcomes:
            match outcome:
                case Decided(replayed=False, at_us=store_us) | TooLate(store_us) | Stale(store_us):
                    self._time.learn(store_us, sent_s, received_s)
                    # The others of the pipeline were decided within a millisecond of it.
                    return

    def _came_late(self, call: asyncio.Task[list[Answer]]) -> None:
        if not _heard(call):
            return
        granted = sum(
            1
            for answer in call.result()
            if isinstance(answer, Decided) and answer.allowed and not answer.replayed
        )
        if granted:
            self._observer.granted_late(granted)


class GuardedCatalog:
    """The `CatalogView` port in front of a view that reads tenants from where the store is."""

    def __init__(self, view: CatalogView, breaker: Breaker) -> None:
        self._view = view
        self._breaker = breaker

    def current(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        return self._view.current()

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the lineage where it is in memory."""
        return self._view.lineage_held(tenant_id)

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the lineage. Raises `UnknownTenant`, and `BackendUnavailable` within `hang_ms`."""
        return await self._breaker.read(self._view.lineage(tenant_id))


PROBE: Final = Operation(Mode.CHECK, TenantId("probe"), 0)
"""A question about nothing: it runs the script and changes nothing."""


def _due(operation: Operation, deadline_us: int) -> Operation:
    # Spelt out and by place: `replace`, and names, cost several times as much, for every call.
    return Operation(
        operation.mode,
        operation.tenant_id,
        operation.shard,
        operation.operation_id,
        operation.fingerprint,
        operation.charges,
        operation.event_count,
        operation.event_ids,
        operation.event_time_us,
        operation.payload,
        operation.reject_reason,
        operation.expires_at,
        deadline_us,
        operation.detail,
        operation.epoch,
        operation.marked,
        operation.trace,
    )


def _heard(call: asyncio.Task[Any]) -> bool:
    """Say whether the call ended well; what it raised is nobody's any more."""
    return not call.cancelled() and call.exception() is None


def _unavailable(answers: Sequence[Answer]) -> bool:
    """Say whether the store has decided nothing at all."""
    return bool(answers) and all(isinstance(answer, BackendUnavailable) for answer in answers)
