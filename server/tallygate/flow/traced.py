"""ports ─▶ [ traced ] ─▶ the same ports: what a hand-over does is recorded as spans.

If we die here, spans that were not sent are lost, and nothing else.

Guarantees: each of these does what it stands around does, and raises what that raises; where the
work is nobody's that is recorded, it is passed on untouched. They are put in only where a tracer
is: without one no call comes through here.
Refuses to know: OpenTelemetry, Redis, SQL and HTTP.

Work for many has one span: below the first of them, with links to the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import TallygateError
from tallygate.domain.trace import LINKS_MAX, unpacked
from tallygate.flow.durable import Durable, LedgerWatch, Level, Needed
from tallygate.ports import (
    Delivery,
    DestinationRefused,
    DestinationSender,
    Ledger,
    LedgerBatch,
    OperationKey,
    Persisted,
    QuotaStore,
    Recorded,
    ReservationKey,
    SourceProgress,
)
from tallygate.ports.journal import Journal
from tallygate.ports.tracing import Kind, Span, Tracer, Value, here, within


def begun(
    tracer: Tracer,
    name: str,
    kind: Kind,
    places: Iterable[bytes],
    attributes: Callable[[], Mapping[str, Value]],
) -> Span | None:
    """Return the span of work for these places, None where none of them is recorded."""
    found = [*dict.fromkeys(each for each in places if each)]
    if not found:
        return None
    return tracer.begin(name, kind, found[0], attributes(), found[1 : LINKS_MAX + 1])


@dataclass(frozen=True, slots=True)
class TracedStore:
    """A `QuotaStore` whose pipelines are recorded for the calls that share each."""

    store: QuotaStore
    tracer: Tracer

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Return one outcome per operation, in order."""
        span = begun(
            self.tracer,
            "admit batch",
            Kind.INTERNAL,
            (each.trace for each in operations),
            lambda: {"tallygate.operations": len(operations)},
        )
        if span is None:
            return await self.store.decide(operations)
        with within(span):
            return await self.store.decide(operations)

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands."""
        return await self.store.reservation(key)

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an operation's events while it is remembered."""
        return await self.store.recorded(key)


@dataclass(frozen=True, slots=True)
class TracedPipeline:
    """A `QuotaStore` that is a Redis, whose calls are recorded for whoever works for a span."""

    store: QuotaStore
    tracer: Tracer

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Return one outcome per operation, in order."""
        span = self._begun("EVALSHA", len(operations))
        if span is None:
            return await self.store.decide(operations)
        with within(span):
            found = await self.store.decide(operations)
            failed = sum(isinstance(each, TallygateError) for each in found)
            if failed:
                span.tell("tallygate.failed", failed)
            return found

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands."""
        span = self._begun("GET", 1)
        if span is None:
            return await self.store.reservation(key)
        with within(span):
            return await self.store.reservation(key)

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an operation's events while it is remembered."""
        span = self._begun("GET", 1)
        if span is None:
            return await self.store.recorded(key)
        with within(span):
            return await self.store.recorded(key)

    def _begun(self, command: str, count: int) -> Span | None:
        return begun(
            self.tracer,
            command,
            Kind.CLIENT,
            (here(),),
            lambda: {
                "db.system.name": "redis",
                "db.operation.name": command,
                "db.operation.batch.size": count,
            },
        )


class TracedDurable(Durable):
    """Has answers wait, and records for whom."""

    def __init__(self, journal: Journal | None, ledger: LedgerWatch | None, tracer: Tracer) -> None:
        super().__init__(journal, ledger)
        self._tracer = tracer

    async def reach(
        self, needed: Sequence[Needed | None], expires_at: float = float("inf")
    ) -> list[Level]:
        """Return the level that each answer has reached, or `NotDurable`."""
        span = begun(
            self._tracer,
            "journal sync",
            Kind.INTERNAL,
            (each.operation.trace for each in needed if each is not None),
            lambda: {"tallygate.operations": sum(each is not None for each in needed)},
        )
        if span is None:
            return await super().reach(needed, expires_at)
        with within(span):
            return await super().reach(needed, expires_at)


@dataclass(frozen=True, slots=True)
class TracedLedger:
    """A `Ledger` that is a Postgres, whose transactions are recorded."""

    ledger: Ledger
    tracer: Tracer

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store the batch whole, or raise and store nothing."""
        span = begun(
            self.tracer,
            "ledger transaction",
            Kind.CLIENT,
            (here(),),
            lambda: {
                "db.system.name": "postgresql",
                "db.operation.name": "COMMIT",
                "tallygate.events": len(batch.events),
            },
        )
        if span is None:
            return await self.ledger.persist(batch)
        with within(span):
            stored = await self.ledger.persist(batch)
            span.tell("tallygate.duplicates", stored.duplicates)
            span.tell("tallygate.messages", stored.messages)
            return stored

    async def progress(self) -> list[SourceProgress]:
        """Return the progress of every source's lane."""
        return await self.ledger.progress()


@dataclass(frozen=True, slots=True)
class TracedSender:
    """A `DestinationSender` that goes on with the trace of what a message tells of."""

    sender: DestinationSender
    tracer: Tracer

    @property
    def name(self) -> str:
        """The destination's name in the catalog."""
        return self.sender.name

    async def send(self, delivery: Delivery) -> None:
        """Deliver, or raise `DestinationRefused`."""
        span = begun(
            self.tracer,
            f"send {delivery.type}",
            Kind.PRODUCER,
            unpacked(delivery.trace),
            lambda: {
                "messaging.system": "webhook",
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": delivery.destination,
                "messaging.message.id": delivery.message_id,
                "tallygate.attempt": delivery.attempt,
            },
        )
        if span is None:
            await self.sender.send(delivery)
            return
        with within(span):
            try:
                await self.sender.send(delivery)
            except DestinationRefused as refused:
                span.tell("tallygate.reason", refused.reason)
                raise
