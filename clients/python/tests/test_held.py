"""Reservations settle themselves, and what was used is recorded once, whatever befalls them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from fake_sidecar import FakeSidecar, answers, refuses

import tallygate_client as tg
from conformance_words import now, scope
from tallygate_client.gen.v1 import quota_pb2
from tallygate_client.keeper import FORGOTTEN_MAX, Keeper

Make = Callable[..., Any]

ITEMS = [tg.Item("requests", 1), tg.Item("tokens", 100, {"model": "x"})]
REFUSED = quota_pb2.ReserveResponse(allowed=False, refused_by="monthly")
EXPIRED = quota_pb2.CommitResponse(outcome=quota_pb2.RESERVATION_OUTCOME_EXPIRED)
RELEASED = quota_pb2.CommitResponse(outcome=quota_pb2.RESERVATION_OUTCOME_ALREADY_RELEASED)


class Failed(Exception):
    """The work's own fault."""


async def test_a_normal_end_commits(make: Make, fake: FakeSidecar) -> None:
    """What the work has said is committed, else what was reserved; excess is recorded."""
    client = make()
    async with scope(client.reserve("a", ITEMS, operation_id="op", ttl=30)) as held:
        held.use({"tokens": 7})
    async with scope(client.reserve("a", ITEMS)) as other:
        pass
    first, second = fake.seen["Commit"]
    assert (first.reservation_id, list(first.amounts)) == ("01-op", [1, 7])
    assert first.operation_id == "01-op#c"
    assert first.excess == quota_pb2.EXCESS_RECORD
    assert list(second.amounts) == []
    assert held.settlement.outcome is other.settlement.outcome is tg.Outcome.COMMITTED
    assert fake.seen["Reserve"][0].ttl.seconds == 30


async def test_an_error_releases(make: Make, fake: FakeSidecar) -> None:
    """Work that fails gives all back, and its error goes on, also where that fails too."""
    client = make()
    fake.script("Release", refuses(grpc.StatusCode.UNAVAILABLE))
    for _ in range(2):
        with pytest.raises(Failed):
            async with scope(client.reserve("a", ITEMS)):
                raise Failed
    assert len(fake.seen["Release"]) == 2
    assert not fake.seen["Commit"]


async def test_a_refusal_is_raised_by_helpers_alone(make: Make, fake: FakeSidecar) -> None:
    """Raw, a refusal is a value; entered or held, it is `QuotaExceeded`, and nothing settles."""
    client = make()
    fake.script("Reserve", *[answers(REFUSED)] * 3)
    held = await now(client.reserve("a", ITEMS))
    assert not held.allowed
    with pytest.raises(tg.QuotaExceeded):
        await now(client.hold("a", ITEMS))
    with pytest.raises(tg.QuotaExceeded, match="monthly") as caught:
        async with scope(client.reserve("a", ITEMS)):
            pytest.fail("refused work is not done")
    assert caught.value.decision.refused_by == "monthly"
    with pytest.raises(tg.QuotaExceeded):
        await now(held.commit())
    assert not fake.seen["Commit"]
    assert not fake.seen["Release"]


async def test_what_the_work_settled_is_settled(make: Make, fake: FakeSidecar) -> None:
    """Work that commits or releases by itself is not settled again at its end."""
    client = make()
    async with scope(client.reserve("a", ITEMS)) as held:
        await now(held.commit([1, 2]))
    async with scope(client.reserve("a", ITEMS)) as held:
        await now(held.release())
    assert (len(fake.seen["Commit"]), len(fake.seen["Release"])) == (1, 1)


@pytest.mark.parametrize(
    ("amounts", "message"), [([1], "1 amounts for 2"), ({"x": 1}, "'x' is not the meter")]
)
async def test_amounts_fit_the_items(make: Make, amounts: Any, message: str) -> None:
    """Amounts are one per item, or by the meter of exactly one."""
    held = await now(make().reserve("a", ITEMS))
    with pytest.raises(tg.InvalidRequest, match=message) as caught:
        held.use(amounts)
    assert caught.value.field == "amounts"


@pytest.mark.parametrize(
    "gone",
    [
        answers(EXPIRED),
        answers(RELEASED),
        refuses(grpc.StatusCode.NOT_FOUND, reason="RESERVATION_NOT_FOUND"),
    ],
)
async def test_usage_of_what_is_gone_is_recorded(make: Make, fake: FakeSidecar, gone: Any) -> None:
    """Where the reservation is gone, usage is recorded under the ids that the commit would give.

    What was reserved has the item's number, what went beyond comes after all items: the service
    names a commit's events so, and the ledger takes an id once.
    """
    fake.script("Commit", gone)
    held = await now(make().reserve("a", ITEMS, operation_id="op"))
    settled = await now(held.commit([0, 130]))
    assert settled.recorded
    assert settled.event_ids == ("01-op#c:1", "01-op#c:3")
    assert {name: each.amount for name, each in fake.events.items()} == {
        "01-op#c:1": 100,
        "01-op#c:3": 30,
    }
    assert fake.events["01-op#c:3"].dimensions == {"model": "x"}


async def test_nothing_used_of_what_is_gone(make: Make, fake: FakeSidecar) -> None:
    """Where the reservation is gone and nothing was used, there is nothing to record."""
    fake.script("Commit", refuses(grpc.StatusCode.NOT_FOUND, reason="RESERVATION_NOT_FOUND"))
    held = await now(make().reserve("a", ITEMS))
    assert (await now(held.commit([0, 0]))).outcome is tg.Outcome.EXPIRED
    assert not fake.events
    fake.script("Commit", refuses(grpc.StatusCode.NOT_FOUND, reason="RESERVATION_NOT_FOUND"))
    with pytest.raises(tg.NotFound):
        await now(make().commit("a", "01-x", [0, 0]))


async def test_a_commit_by_id_says_that_it_is_gone(make: Make, fake: FakeSidecar) -> None:
    """Who commits by an id alone is told that it has expired: its meters are not known here."""
    fake.script("Commit", answers(EXPIRED))
    settled = await now(make().commit("a", "01-x", [1]))
    assert settled.outcome is tg.Outcome.EXPIRED
    assert fake.seen["Commit"][0].operation_id == "01-x#c"
    assert fake.seen["Commit"][0].excess == quota_pb2.EXCESS_ASK


async def test_a_commit_without_an_answer(make: Make, fake: FakeSidecar) -> None:
    """Without a buffer the error is raised; with one the commit goes on there, the same one."""
    away = refuses(grpc.StatusCode.UNAVAILABLE)
    fake.script("Commit", away, away)
    held = await now(make().reserve("a", ITEMS))
    with pytest.raises(tg.Unavailable):
        await now(held.commit())
    client = make(buffer=tg.BufferOptions(flush_ms=0))
    held = await now(client.reserve("a", ITEMS))
    settled = await now(held.commit([1, 5]))
    assert settled.buffered
    assert await now(client.buffer.flush(20))
    assert fake.seen["Commit"][1] == fake.seen["Commit"][2]
    assert client.stats().sent == 1


async def test_usage_of_what_is_gone_is_buffered(make: Make, fake: FakeSidecar) -> None:
    """A commit that waited so long that its reservation is gone becomes usage in the buffer."""
    fake.script("Commit", refuses(grpc.StatusCode.UNAVAILABLE), answers(EXPIRED))
    client = make(buffer=tg.BufferOptions(flush_ms=0))
    held = await now(client.reserve("a", ITEMS, operation_id="op"))
    await now(held.commit([1, 5]))
    assert await now(client.buffer.flush(20))
    assert set(fake.events) == {"01-op#c:0", "01-op#c:1"}
    assert client.stats().pending == 0


async def test_a_local_reservation_is_recorded(make: Make, fake: FakeSidecar) -> None:
    """What passed without an answer is recorded when it is committed, not when it is released."""
    away = refuses(grpc.StatusCode.UNAVAILABLE)
    fake.script("Reserve", away, away)
    client = make(on_absent="open", buffer=tg.BufferOptions(flush_ms=0))
    async with scope(client.reserve("a", ITEMS)) as held:
        held.use([1, 9])
    with pytest.raises(Failed):
        async with scope(client.reserve("a", ITEMS)):
            raise Failed
    assert await now(client.buffer.flush(20))
    assert sorted(each.amount for each in fake.events.values()) == [1, 9]
    assert not fake.seen["Commit"]
    assert not fake.seen["Release"]


async def test_long_work_is_kept_alive(make: Make, fake: FakeSidecar) -> None:
    """Work that takes longer than a third of its ttl is extended again and again, then no more."""
    client = make()
    fake.script("ExtendReservation", refuses(grpc.StatusCode.UNAVAILABLE))
    async with scope(client.reserve("a", ITEMS, ttl=0.15)):
        await asyncio.to_thread(fake.wait_for, "ExtendReservation", 3)
    held = await now(client.hold("a", ITEMS, ttl=0.15))
    await asyncio.to_thread(fake.wait_for, "ExtendReservation", 4)
    await now(held.commit())
    assert fake.seen["ExtendReservation"][0].ttl.ToMilliseconds() == 150


async def test_what_nobody_holds_ends_by_itself(make: Make, fake: FakeSidecar) -> None:
    """A reservation that was forgotten is extended no more, so that its units come back."""
    client = make()
    held = await now(client.hold("a", ITEMS, ttl=0.15))
    await asyncio.to_thread(fake.wait_for, "ExtendReservation", 1)
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    weakref.finalize(held, loop.call_soon_threadsafe, gone.set)
    del held
    await asyncio.wait_for(gone.wait(), 30)


async def test_what_has_expired_is_extended_no_more(make: Make, fake: FakeSidecar) -> None:
    """Once the service says that a reservation is gone, no further extension is tried."""
    client = make()
    gone = quota_pb2.ExtendReservationResponse(outcome=quota_pb2.RESERVATION_OUTCOME_EXPIRED)
    fake.script("ExtendReservation", answers(gone))
    first = await now(client.hold("a", ITEMS, ttl=0.06))
    await asyncio.to_thread(fake.wait_for, "ExtendReservation", 1)
    second = await now(client.hold("b", ITEMS, ttl=0.06))
    await asyncio.to_thread(fake.wait_for, "ExtendReservation", 4)
    assert [each.tenant_id for each in fake.seen["ExtendReservation"]].count("a") == 1
    await now(second.release())
    await now(first.release())


def test_the_keeper_forgets_what_has_ended() -> None:
    """What ended before its first extension leaves nothing behind, and no thread goes on."""
    keeper = Keeper()
    for _ in range(3 * FORGOTTEN_MAX):
        keeper.drop(keeper.keep(3600.0, lambda: None))
    assert len(keeper._due) <= FORGOTTEN_MAX + 1
    kept = [each for each in threading.enumerate() if each.name == "tallygate-keeper"]
    assert len(kept) == 1
    keeper.close()
    kept[0].join(30)
    assert not kept[0].is_alive()
