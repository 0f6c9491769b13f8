"""Calls while the store is away: who is granted what, and what is counted afterwards."""

import asyncio

import pytest

from tallygate.domain.catalog import OnExceed, OnOutage
from tallygate.domain.decision import Mode, Reused
from tallygate.domain.errors import BackendUnavailable, NotAsked, Overloaded
from tallygate.domain.window import Period
from tallygate.testing.quota import FakeQuotaStore
from tallygate.wiring.place import Place
from tests.builders import charges, check, consume, decided, now_us, used, window
from tests.flow.outage_parts import Sidecar, recorded

OPEN = window(limit=100, on_outage=OnOutage.ALLOW)
TEN = window(limit=100, on_outage=OnOutage.LOCAL_BUDGET, local_budget=10)
SHUT = window(limit=100)


def away() -> FakeQuotaStore:
    """Return a store that does not answer."""
    store = FakeQuotaStore(now_us)
    store.down = True
    return store


async def counted(store: FakeQuotaStore) -> int:
    """Return what the tenant has used, by the store."""
    [answer] = await store.decide([check([OPEN])])
    return used(answer)[0]


async def test_what_was_granted_is_counted_and_recorded_afterwards() -> None:
    """After recovery the counter is the sum of the grants, and each has its event."""
    store = away()
    it = Sidecar(store, [OPEN])
    answers = [(await it.ask(consume([OPEN], 2, f"op-{n}")))[0] for n in range(10)]
    assert all(decided(each).allowed and decided(each).degraded for each in answers)
    store.down = False
    await it.recover()
    assert await counted(store) == 20
    assert [event.event_id for event in recorded(store)] == [f"op-{n}" for n in range(10)]
    assert it.told.told["counted"] == it.told.told["accepted"] == 10
    assert len(it.backlog) == it.backlog.size_bytes == 0


async def test_a_limit_that_refuses_decides_nothing_without_the_store() -> None:
    """By default a call fails as unavailable, and nothing of it is counted later."""
    store = away()
    it = Sidecar(store, [SHUT])
    for name in ("one", "two"):
        [answer] = await it.ask(consume([SHUT], 1, name))
        assert isinstance(answer, BackendUnavailable)
    store.down = False
    await it.recover()
    assert await counted(store) == 0


async def test_processes_of_a_group_divide_a_budget() -> None:
    """What all of them grant together without the store is the budget, and no unit more."""
    granted = 0
    for index in range(3):
        it = Sidecar(away(), [TEN], place=Place(index, 3))
        answers = [(await it.ask(consume([TEN], 1, f"op-{index}-{n}")))[0] for n in range(10)]
        granted += sum(decided(each).allowed for each in answers)
    assert granted == 10


async def test_counting_afterwards_passes_limits() -> None:
    """Grants are counted above the limit: what was used was used, and the limit refuses then."""
    store = away()
    it = Sidecar(store, [OPEN])
    for n in range(3):
        await it.ask(consume([OPEN], 60, f"op-{n}"))
    store.down = False
    await it.recover()
    assert await counted(store) == 180
    [answer] = await it.ask(consume([OPEN], 1, "after"))
    assert not decided(answer).allowed
    assert not decided(answer).degraded


async def test_a_budget_holds_over_an_outage_and_begins_anew_with_the_next() -> None:
    """Ten units and no more; after all is counted, the next outage has ten of its own."""
    store = away()
    it = Sidecar(store, [TEN])
    for outage in range(2):
        store.down = True
        await it.ask(consume([TEN], 5, f"sent-{outage}"))
        answers = [(await it.ask(consume([TEN], 1, f"{outage}-{n}")))[0] for n in range(8)]
        assert [decided(each).allowed for each in answers] == [True] * 5 + [False] * 3
        store.down = False
        await it.recover()
        assert await counted(store) == 10 * (outage + 1)


async def test_what_may_have_been_applied_is_left_open_rather_than_refused() -> None:
    """A refusal would be untrue of what the store has granted; a retry tells."""
    store = away()
    it = Sidecar(store, [TEN])
    [sent] = await it.ask(consume([TEN], 11, "op"))
    assert isinstance(sent, BackendUnavailable)
    assert not isinstance(sent, NotAsked)
    [again] = await it.ask(consume([TEN], 11, "op"))
    assert isinstance(again, NotAsked)
    [unsent] = await it.ask(consume([TEN], 11, "other"))
    assert not decided(unsent).allowed
    store.down = False
    await it.recover()
    [answered] = await it.ask(consume([TEN], 11, "op"))
    assert decided(answered).allowed


async def test_what_the_store_had_applied_is_not_counted_twice() -> None:
    """An operation that was applied and whose answer was lost is known again by its id."""
    store = FakeQuotaStore(now_us)
    it = Sidecar(store, [OPEN])
    await store.decide([consume([OPEN], 3, "op")])
    store.down = True
    [answer] = await it.ask(consume([OPEN], 3, "op"))
    assert decided(answer).degraded
    store.down = False
    await it.recover()
    assert await counted(store) == 3
    assert len(recorded(store)) == 1
    assert it.told.told["replayed"] == 1
    assert it.told.told["accepted"] == 0


async def test_a_repeat_gets_the_same_decision_before_and_after() -> None:
    """A retry is answered from the backlog, and once that is handed over by the store."""
    store = away()
    it = Sidecar(store, [TEN])
    [first] = await it.ask(consume([TEN], 10, "op"))
    [again] = await it.ask(consume([TEN], 10, "op"))
    assert decided(first).readings == decided(again).readings
    assert (decided(first).replayed, decided(again).replayed) == (False, True)
    store.down = False
    # The store is back, but has not been told yet: asking it would charge anew, or refuse.
    await it.breaker.probe()
    [waiting] = await it.ask(consume([TEN], 10, "op"))
    assert decided(waiting).replayed
    await it.recover()
    [after] = await it.ask(consume([TEN], 10, "op"))
    assert decided(after).allowed
    assert decided(after).replayed
    assert await counted(store) == 10


async def test_twins_in_one_call_are_granted_once() -> None:
    """The same operation twice in a list is one grant and its repeat."""
    store = away()
    it = Sidecar(store, [TEN])
    twins = await it.ask(consume([TEN], 6, "op"), consume([TEN], 6, "op"))
    assert [decided(each).replayed for each in twins] == [False, True]
    assert len(it.backlog) == 1


async def test_an_operation_id_with_other_content_is_reused() -> None:
    """The backlog tells repeats from reuse as the store does."""
    it = Sidecar(away(), [OPEN])
    await it.ask(consume([OPEN], 1, "op"))
    [answer] = await it.ask(consume([OPEN], 2, "op"))
    assert isinstance(answer, Reused)


async def test_a_full_backlog_grants_no_more() -> None:
    """What cannot be kept is not granted, whether operations or bytes run out."""
    for it in (Sidecar(away(), [OPEN], operations_max=2), Sidecar(away(), [OPEN], bytes_max=4_000)):
        answers = [(await it.ask(consume([OPEN], 1, f"op-{n}")))[0] for n in range(3)]
        assert [isinstance(each, Overloaded) for each in answers] == [False, False, True]
        assert it.told.told["full"] == 1


async def test_a_caller_that_asks_for_durability_is_not_granted_from_memory() -> None:
    """Memory has no durability: such a call fails as unavailable."""
    it = Sidecar(away(), [OPEN])
    [answer] = await it.ask(consume([OPEN], 1, "op"), undurable=False)
    assert isinstance(answer, BackendUnavailable)
    assert len(it.backlog) == 0


@pytest.mark.parametrize("accepted", [True, False])
async def test_recorded_usage_is_kept_where_that_is_wished(accepted: bool) -> None:
    """A fact is accepted whatever the limits' rules, unless the operator wants it refused."""
    store = away()
    it = Sidecar(store, [SHUT], records_accepted=accepted)
    [answer] = await it.ask(consume([SHUT], 7, "event", mode=Mode.RECORD))
    assert isinstance(answer, BackendUnavailable) is not accepted
    store.down = False
    await it.recover()
    assert await counted(store) == (7 if accepted else 0)


@pytest.mark.parametrize("accepted", [True, False])
async def test_calls_that_no_limit_speaks_for_are_kept_where_that_is_wished(
    accepted: bool,
) -> None:
    """A soft limit refuses nobody, but does not ask for grants that a crash would lose."""
    store = away()
    soft = window(limit=1, on_exceed=OnExceed.ALLOW)
    it = Sidecar(store, [soft], records_accepted=accepted)
    [answer] = await it.ask(consume([soft], 7, "op"))
    assert isinstance(answer, BackendUnavailable) is not accepted
    spoken_for = window(limit=1, on_exceed=OnExceed.ALLOW, on_outage=OnOutage.ALLOW)
    it = Sidecar(store, [spoken_for], records_accepted=accepted)
    [answer] = await it.ask(consume([spoken_for], 7, "op"))
    assert decided(answer).degraded


@pytest.mark.parametrize("mode", [Mode.CHECK, Mode.REJECT, Mode.RESERVE, Mode.REFUND])
async def test_only_charges_and_facts_are_decided_without_the_store(mode: Mode) -> None:
    """What needs the store's memory waits for the store."""
    it = Sidecar(away(), [OPEN])
    [answer] = await it.ask(consume([OPEN], 1, "op", mode=mode))
    assert isinstance(answer, BackendUnavailable)


async def test_events_are_dated_when_they_were_granted() -> None:
    """Counted minutes later, an event still tells when it was; one with a time of its own too."""
    shift_us = 0
    store = FakeQuotaStore(lambda: now_us() + shift_us)
    store.down = True
    it = Sidecar(store, [OPEN])
    before_us = now_us()
    await it.ask(consume([OPEN], 1, "op"))
    after_us = now_us()
    store.down, shift_us = False, 600_000_000
    await it.recover()
    [event] = recorded(store)
    assert before_us <= event.event_time.ToMicroseconds() <= after_us


async def test_a_window_that_is_over_is_not_charged_to_the_next() -> None:
    """Usage of a minute that has passed is recorded, and leaves the present minute alone."""
    minute = window(limit=100, period=Period.MINUTE, on_outage=OnOutage.ALLOW)
    month = window("month", limit=100, on_outage=OnOutage.ALLOW)
    shift_us = 0
    store = FakeQuotaStore(lambda: now_us() + shift_us)
    store.down = True
    it = Sidecar(store, [minute, month])
    await it.ask(consume([minute, month], 5, "op"))
    store.down, shift_us = False, 300_000_000
    await it.recover()
    later = window(limit=100, period=Period.MINUTE)
    at_us = now_us() + shift_us
    [answer] = await store.decide([consume([], charges=charges([later, month], 1, at_us=at_us))])
    assert used(answer) == [1, 6]
    assert len(recorded(store)) == 2


async def test_a_flush_hands_over_what_the_store_takes_in_time() -> None:
    """At the end of a process the backlog goes to a store that comes back within the grace."""
    store = away()
    it = Sidecar(store, [OPEN])
    for n in range(9):
        await it.ask(consume([OPEN], 1, f"op-{n}"))

    def come_back() -> None:
        store.down = False

    asyncio.get_running_loop().call_later(0.1, come_back)
    assert await it.backlog.flush(5.0, it.breaker.probe) == 0
    assert await counted(store) == 9


async def test_a_flush_in_vain_says_what_is_lost() -> None:
    """A store that stays away costs the grace and no more, and the loss is told."""
    it = Sidecar(away(), [OPEN])
    await it.ask(consume([OPEN], 1, "op"))
    assert await it.backlog.flush(0.1, it.breaker.probe) == 1
    assert it.told.told["lost"] == 1


async def test_a_broken_counter_keeps_no_event_from_the_ledger() -> None:
    """What cannot be counted is recorded without its counters, and told apart."""
    store = away()
    it = Sidecar(store, [OPEN])
    huge = 2**53 - 2
    for n in range(2):
        await it.ask(consume([OPEN], huge, f"op-{n}"))
    store.down = False
    await it.recover()
    assert await counted(store) == huge
    assert len(recorded(store)) == 2
    assert (it.told.told["counted"], it.told.told["uncounted"]) == (1, 1)
