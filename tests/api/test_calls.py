"""Facts about methods that take calls in batches."""

import asyncio
from collections.abc import Sequence

import pytest

from tallygate.api.convert import consume_request
from tallygate.api.status import MalformedMessage
from tallygate.domain.decision import Operation, Outcome, Stale
from tallygate.domain.errors import (
    BackendUnavailable,
    CatalogNotLoaded,
    DeadlineTooShort,
    InvalidField,
    OperationIdReused,
    Overloaded,
    TallygateError,
    UnknownMeter,
)
from tallygate.flow.durable import Durable
from tallygate.flow.journal import JournaledStore
from tallygate.gen.v1 import event_pb2, limit_pb2, quota_pb2, usage_pb2
from tallygate.testing.journal import FakeDisk, FakeJournal
from tallygate.testing.quota import FakeQuotaStore
from tests.api.calls_parts import (
    CHECK,
    CHECKS,
    RECORD,
    RECORDS,
    Heard,
    HeldCatalog,
    Methods,
    gathering,
)
from tests.builders import CatalogInMemory, catalog, now_us, window
from tests.sidecar import charge

GARBAGE = b"\xff\xff\xff"


class Store(FakeQuotaStore):
    """A store in memory that keeps the sizes of its pipelines, and may fail in ways of its own."""

    def __init__(self) -> None:
        super().__init__(now_us)
        self.sizes: list[int] = []
        self.stale = 0
        self.raises: Exception | None = None

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Do as it was told, or decide."""
        self.sizes.append(len(operations))
        if self.raises is not None:
            raise self.raises
        if self.stale:
            self.stale -= 1
            return [Stale(now_us()) for _ in operations]
        return await super().decide(operations)


def held(limit: int = 100) -> HeldCatalog:
    """Return a catalog of one limit."""
    return HeldCatalog(catalog(window(limit=limit)))


def check(name: str = "", *amounts: int, tenant: str = "acme", meter: str = "requests") -> bytes:
    """Return an encoded charge."""
    return charge(name, *amounts, tenant=tenant, meter=meter).SerializeToString()


def record(name: str, meter: str = "requests") -> bytes:
    """Return an encoded event."""
    request = usage_pb2.RecordUsageRequest(tenant_id="acme", event_id=name, meter=meter, amount=1)
    return request.SerializeToString()


def read(answer: bytes | Exception) -> quota_pb2.CheckAndConsumeResponse:
    """Return the answer as the reply that it has to be."""
    assert isinstance(answer, bytes), answer
    return quota_pb2.CheckAndConsumeResponse.FromString(answer)


async def test_a_batch_is_one_pipeline_and_each_call_has_its_own_answer() -> None:
    """In the order in which they came."""
    store = Store()
    async with gathering(Methods(store, held())) as it:
        answers = [read(each) for each in await it.answers(CHECK, [check() for _ in range(30)])]
    assert store.sizes == [30]
    assert [answer.limits[0].used for answer in answers] == list(range(1, 31))
    assert all(answer.allowed and len(answer.event_ids) == 1 for answer in answers)
    assert it.told["allowed"] == it.told["accepted"] == 30


async def test_what_is_wrong_with_a_call_is_its_own_matter() -> None:
    """Its neighbours are decided as if it were not there."""
    async with gathering(Methods(Store(), held())) as it:
        answers = await it.answers(
            CHECK,
            [
                check("one"),
                GARBAGE,
                check("two", tenant=""),
                check("three", meter="unknown"),
                check("one", 2),
                check("four"),
            ],
        )
    kinds = [type(answers[place]) for place in (1, 2, 3)]
    assert kinds == [MalformedMessage, InvalidField, UnknownMeter]
    assert isinstance(answers[4], OperationIdReused)
    assert [read(answers[place]).limits[0].used for place in (0, 5)] == [1, 2]


async def test_a_repeat_in_the_same_batch_gets_the_first_answer() -> None:
    """It is charged once."""
    async with gathering(Methods(Store(), held())) as it:
        first, again = map(read, await it.answers(CHECK, [check("same"), check("same")]))
    assert (first.replayed, again.replayed) == (False, True)
    assert first.event_ids == again.event_ids
    assert [each.limits[0].used for each in (first, again)] == [1, 1]


async def test_what_passes_no_limit_is_a_reply() -> None:
    """With the limit that refused, and when to come back."""
    async with gathering(Methods(Store(), held(limit=2))) as it:
        answers = [read(each) for each in await it.answers(CHECK, [check() for _ in range(4)])]
    assert [answer.allowed for answer in answers] == [True, True, False, False]
    refused = answers[-1]
    assert refused.refused_by == "monthly"
    assert refused.retry_after.seconds > 0
    assert refused.limits[0].state == limit_pb2.LIMIT_STATE_EXCEEDED
    assert not refused.event_ids


async def test_a_call_whose_time_is_over_is_not_charged() -> None:
    """Nor is one whose caller has gone, and both cost their neighbours nothing."""
    store = Store()
    it, heard = Methods(store, held()), Heard()
    it.take(CHECK, [check("late")], heard, time_s=0.0)
    fresh = Heard()
    fresh.gone.add(1)
    it.take(CHECK, [check("here"), check("gone")], fresh)
    async with gathering(it):
        [late] = await heard.all(1)
        [here] = await fresh.all(1)
        assert isinstance(late, DeadlineTooShort)
        assert read(here).limits[0].used == 1
        assert store.sizes == [1]


async def test_a_store_that_fails_fails_the_calls_it_was_asked_for() -> None:
    """And the next ones are decided."""
    store = Store()
    async with gathering(Methods(store, held())) as it:
        store.raises = ValueError("a fault in the store")
        failed = await it.answers(CHECK, [check(), check()])
        assert all(isinstance(each, ValueError) for each in failed)
        store.raises, store.down = None, True
        away = await it.answers(CHECK, [check()])
        assert isinstance(away[0], BackendUnavailable)
        store.down = False
        assert read((await it.answers(CHECK, [check()]))[0]).limits[0].used == 1


async def test_windows_that_had_passed_are_bound_anew() -> None:
    """As often as it takes once, and not for ever."""
    store = Store()
    async with gathering(Methods(store, held())) as it:
        store.stale = 2
        assert read((await it.answers(CHECK, [check()]))[0]).allowed
        store.stale = 3
        [given_up] = await it.answers(CHECK, [check()])
        assert isinstance(given_up, BackendUnavailable)


async def test_calls_beyond_the_room_are_told_to_come_back() -> None:
    """Each by itself; what found room is decided."""
    it = Methods(Store(), held(), queue_max=8, batch_max=8)
    heard = Heard()
    it.take(CHECK, [check() for _ in range(12)], heard)
    async with gathering(it):
        answers = await heard.all(12)
    refused = [each for each in answers if isinstance(each, Overloaded)]
    assert len(refused) == 4
    assert all(each.retry_after_us for each in refused)
    assert sum(read(each).allowed for each in answers if isinstance(each, bytes)) == 8


async def test_a_tenant_that_has_to_be_read_is_waited_for() -> None:
    """Without a catalog all are told so, and a batch without calls is none."""
    nothing = CatalogInMemory(None)
    async with gathering(Methods(Store(), nothing)) as it:
        it.take(CHECK, [], Heard())
        [answer] = await it.answers(CHECK, [check()])
        assert isinstance(answer, CatalogNotLoaded)
        nothing.catalog = catalog(window())
        assert read((await it.answers(CHECK, [check()]))[0]).allowed


async def test_lists_have_one_result_per_request_in_order() -> None:
    """Also of several tenants, longer than a pipeline, and with some that are wrong."""
    store = Store()
    requests = [charge(f"op-{n}", tenant=f"t{n % 3}") for n in range(100)]
    requests[7] = charge("bad", meter="unknown")
    requests[9] = charge("none", 0)
    message = quota_pb2.BatchCheckAndConsumeRequest(requests=requests)
    async with gathering(Methods(store, held())) as it:
        [answer] = await it.answers(CHECKS, [message.SerializeToString()])
    assert isinstance(answer, bytes)
    results = quota_pb2.BatchCheckAndConsumeResponse.FromString(answer).results
    wrong = [place for place, each in enumerate(results) if each.HasField("error")]
    assert wrong == [7, 9]
    told = [results[place].response.event_ids[0] for place in range(100) if place not in wrong]
    assert told == [f"op-{n}:0" for n in range(100) if n not in wrong]


@pytest.mark.parametrize("method", [CHECKS, RECORDS])
async def test_lists_that_are_no_lists_are_refused(method: str) -> None:
    """An empty one, and bytes that are none."""
    async with gathering(Methods(Store(), held())) as it:
        empty, garbage = await it.answers(method, [b"", GARBAGE])
    assert isinstance(empty, InvalidField)
    assert isinstance(garbage, MalformedMessage)


async def test_a_list_that_finds_no_room_at_all_is_refused_whole() -> None:
    """So that its caller is told to wait, and not a hundred times."""
    it = Methods(Store(), held(), queue_max=8, batch_max=8)
    heard, listed = Heard(), Heard()
    it.take(CHECK, [check() for _ in range(8)], heard)
    requests = [charge(f"op-{n}") for n in range(20)]
    message = quota_pb2.BatchCheckAndConsumeRequest(requests=requests)
    it.take(CHECKS, [message.SerializeToString()], listed)
    assert isinstance((await listed.all(1))[0], Overloaded)
    async with gathering(it):
        await heard.all(8)


async def test_records_wait_for_the_disk_together() -> None:
    """Events are told of when they are synced, those that were decided together at once."""
    journal = FakeJournal(FakeDisk())
    store = JournaledStore(Store(), journal)
    async with gathering(Methods(store, held(), durable=Durable(journal))) as it:
        answers = await it.answers(RECORD, [record(f"e-{n}") for n in range(5)])
        message = usage_pb2.BatchRecordUsageRequest(
            requests=[usage_pb2.RecordUsageRequest.FromString(record(f"e-{n}")) for n in (4, 5)]
        )
        [listed] = await it.answers(RECORDS, [message.SerializeToString()])
    encoded = [each for each in answers if isinstance(each, bytes)]
    replies = [usage_pb2.RecordUsageResponse.FromString(each) for each in encoded]
    assert [reply.event_id for reply in replies] == [f"e-{n}" for n in range(5)]
    assert {reply.durability for reply in replies} == {event_pb2.DURABILITY_JOURNAL}
    assert isinstance(listed, bytes)
    results = usage_pb2.BatchRecordUsageResponse.FromString(listed).results
    assert [each.response.replayed for each in results] == [True, False]


async def test_a_caller_that_is_cancelled_is_not_charged_while_it_queues() -> None:
    """The list that a caller awaits goes the same way as a transport's calls."""
    store = Store()
    it = Methods(store, held())
    waiting = asyncio.create_task(it.admit.consume([consume_request(charge("gone"))]))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with gathering(it):
        [answer] = await it.answers(CHECK, [check("here")])
    assert read(answer).limits[0].used == 1
