"""Ports with spans around them: what is recorded of their work, for whom, and when nothing is."""

import asyncio
from decimal import Decimal
from typing import Any, cast

import pytest

from tallygate.domain.decision import Mode, Operation
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import TenantId
from tallygate.domain.trace import LINKS_MAX, packed, place
from tallygate.flow.traced import TracedLedger, TracedPipeline, TracedSender, TracedStore, begun
from tallygate.flow.traced_stripe import TracedStripe
from tallygate.ports import (
    Delivery,
    DestinationRefused,
    LedgerBatch,
    OperationKey,
    Persisted,
    ReservationKey,
)
from tallygate.ports.stripe import Answer, Outcome
from tallygate.ports.tracing import Kind, here, within
from tallygate.testing.destination import FakeDestination
from tallygate.testing.tracing import FakeTracer

CALLS = [place(number, number) for number in range(1, 2 * LINKS_MAX)]


def operation(at: bytes = b"") -> Operation:
    """Return an operation of a call that is there in a trace."""
    return Operation(Mode.CHECK, TenantId("acme"), 0, trace=at)


class Store:
    """Answers that it is away, and keeps for which span it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def decide(self, operations: Any) -> list[Any]:
        """Keep it."""
        self.asked.append(here())
        # As the breaker does, whose call is a task of its own.
        await asyncio.create_task(self._in_a_task())
        return [BackendUnavailable() for _ in operations]

    async def reservation(self, key: Any) -> None:
        """Keep it."""
        self.asked.append(here())

    async def recorded(self, key: Any) -> None:
        """Keep it."""
        self.asked.append(here())

    async def _in_a_task(self) -> None:
        self.asked.append(here())


async def test_a_batch_is_below_its_first_call_and_linked_to_others() -> None:
    """Each call once, a bounded number of them; the store's own work is below the batch."""
    tracer, store = FakeTracer(roots=False), Store()
    traced = TracedStore(TracedPipeline(store, tracer), tracer)
    await traced.decide([operation(), *map(operation, CALLS), operation(CALLS[1])])
    batch, pipeline = tracer.spans
    assert (batch.name, batch.parent) == ("admit batch", CALLS[0])
    assert batch.links == tuple(CALLS[1 : LINKS_MAX + 1])
    assert batch.attributes == {"tallygate.operations": len(CALLS) + 2}
    assert (pipeline.name, pipeline.kind, pipeline.parent) == ("EVALSHA", Kind.CLIENT, batch.place)
    assert pipeline.attributes["tallygate.failed"] == len(CALLS) + 2
    assert store.asked == [pipeline.place] * 2
    assert batch.ended
    assert pipeline.ended


async def test_work_that_nobody_records_is_passed_on() -> None:
    """No span, not even where one is around us for another reason, and the same answers."""
    tracer, store = FakeTracer(), Store()
    traced = TracedStore(TracedPipeline(store, tracer), tracer)
    assert len(await traced.decide([operation(), operation()])) == 2
    key = ReservationKey(0, TenantId("acme"), cast(Any, "r"))
    of = OperationKey(0, TenantId("acme"), cast(Any, "o"), cast(Any, "e"))
    assert await traced.reservation(key) is None
    assert await traced.recorded(of) is None
    assert await TracedLedger(cast(Any, Ledger()), tracer).persist(LedgerBatch(())) == Persisted()
    assert tracer.spans == []


async def test_what_is_read_of_redis_is_recorded() -> None:
    """A reservation and an operation that are read for a call are client spans below it."""
    tracer, store = FakeTracer(), Store()
    traced = TracedPipeline(cast(Any, store), tracer)
    call = tracer.begin("call", Kind.SERVER, CALLS[0], {})
    assert call is not None
    with within(call):
        await traced.reservation(ReservationKey(0, TenantId("acme"), cast(Any, "r")))
        of = OperationKey(0, TenantId("acme"), cast(Any, "o"), cast(Any, "e"))
        await traced.recorded(of)
    reads = tracer.named("GET")
    assert [each.parent for each in reads] == [call.place] * 2
    assert store.asked == [each.place for each in reads]


class Ledger:
    """Stores nothing; `fault` is raised instead."""

    fault: Exception | None = None

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Do so."""
        if self.fault is not None:
            raise self.fault
        return Persisted(duplicates=0)


async def test_a_transaction_that_fails_is_a_failed_span() -> None:
    """The error goes on to whoever asked; the span names its kind and not its text."""
    tracer, ledger = FakeTracer(), Ledger()
    ledger.fault = BackendUnavailable("hunter2")
    batch = tracer.begin("ingest batch", Kind.CONSUMER, CALLS[0], {})
    assert batch is not None
    with pytest.raises(BackendUnavailable), within(batch):
        await TracedLedger(cast(Any, ledger), tracer).persist(LedgerBatch(()))
    (transaction,) = tracer.named("ledger transaction")
    assert (transaction.error, transaction.parent) == ("BackendUnavailable", batch.place)
    assert batch.error == "BackendUnavailable"
    assert "hunter2" not in repr(tracer.spans)


def delivery(trace: bytes, attempt: int = 1) -> Delivery:
    """Return a delivery."""
    return Delivery("m", "hook", "usage.batch", b"{}", attempt, "lease", 0, trace)


async def test_each_attempt_of_a_send_is_a_span() -> None:
    """It goes on with the first call's trace; a refusal says why, as the outbox does."""
    tracer, destination = FakeTracer(roots=False), FakeDestination("hook")
    sender = TracedSender(destination, tracer)
    destination.refuse_next("HTTP 503", transient=True)
    with pytest.raises(DestinationRefused):
        await sender.send(delivery(packed(CALLS[:3])))
    await sender.send(delivery(packed(CALLS[:3]), 2))
    await sender.send(delivery(b""))
    await sender.send(delivery(b"no places"))
    first, second = tracer.spans
    assert (first.parent, first.links) == (CALLS[0], tuple(CALLS[1:3]))
    assert (first.error, first.attributes["tallygate.reason"]) == ("DestinationRefused", "HTTP 503")
    assert (second.error, second.attributes["tallygate.attempt"]) == ("", 2)
    assert sender.name == "hook"


class Stripe:
    """Answers with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        self.answer = Answer(outcome, "code", "reason")

    async def tell(self, claimed: Any, *, checked: bool = False) -> Answer:
        """Answer."""
        return self.answer

    async def stream(self, batch_key: str, claimed: Any) -> Answer:
        """Answer."""
        return self.answer

    async def summed(self, *_: Any) -> Decimal:
        """Answer."""
        return Decimal(7)

    async def item_known(self, claimed: Any) -> bool:
        """Answer."""
        return True


@pytest.mark.parametrize("outcome", Outcome)
async def test_sends_to_stripe_begin_traces(outcome: Outcome) -> None:
    """One span for each call, failed unless Stripe has it; what is only read begins none."""
    tracer = FakeTracer()
    for own in (tracer, FakeTracer(roots=False)):
        traced = TracedStripe(cast(Any, Stripe(outcome)), own)
        assert (await traced.tell(cast(Any, None))).outcome is outcome
        assert (await traced.stream("key", [])).outcome is outcome
        assert await traced.summed("", "", 0, 1) == 7
        assert await traced.item_known(cast(Any, None))
    assert [each.name for each in tracer.spans] == ["stripe send", "stripe stream"]
    well = outcome in (Outcome.TAKEN, Outcome.REPEATED)
    assert [each.error for each in tracer.spans] == ["" if well else outcome.value] * 2
    assert all(each.ended for each in tracer.spans)


def test_nothing_is_told_of_work_that_has_no_span() -> None:
    """What a span would say is not even put together."""

    def told() -> dict[str, Any]:
        raise AssertionError("nobody asked")

    assert begun(FakeTracer(), "a", Kind.INTERNAL, (b"", b""), told) is None
