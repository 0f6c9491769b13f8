"""Leases: hot calls are decided without the store, and no limit knows the difference."""

from dataclasses import replace

import pytest

from tallygate.domain.catalog import LimitKind, OnExceed
from tallygate.domain.decision import LimitState
from tallygate.domain.errors import OperationIdReused
from tallygate.domain.ids import LimitId
from tallygate.domain.request import Durability
from tallygate.domain.window import MINUTE_US, Period
from tallygate.flow.lease import LeaseOptions
from tests.builders import catalog, rate, tenant, window
from tests.flow.lease_parts import Leasing, Time, recorded_events, used_by

PLENTY = 1_000_000


async def test_hot_calls_need_no_store() -> None:
    """Once a call is hot, calls are granted without a single command to the store."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    before = it.store.calls
    results = [await it.call() for _ in range(4)]
    assert it.store.calls == before
    assert all(result.decision.leased for result in results)


async def test_cold_calls_are_decided_by_the_store() -> None:
    """Forty calls a second are below the threshold of fifty: none is leased."""
    it = Leasing(window(limit=PLENTY))
    await it.calls(200, step_us=25_000)
    assert it.told["granted"] == 0
    assert it.store.asked["RESERVE"] == 0


async def test_lease_covers_most_of_a_steady_load() -> None:
    """At a thousand calls a second nine of ten are granted from leases, all are recorded once."""
    it = Leasing(window(limit=PLENTY))
    results = await it.calls(4_000)
    assert it.told["granted"] > 3_600
    await it.close()
    events = recorded_events(it.inner)
    assert len(events) == used_by(results) == 4_000
    assert it.counted() == 4_000


async def test_readings_follow_local_grants() -> None:
    """A leased reply shows each call's own use, and neither warns nor resets otherwise."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    first, second = await it.call(), await it.call()
    (before,), (after,) = first.decision.readings, second.decision.readings
    assert after.used == before.used + 1
    assert after.remaining == PLENTY - after.used
    assert after.state is LimitState.OK
    assert after.resets_at_us == before.resets_at_us > it.time.us
    assert before.used == it.told["allowed"] - 1


async def test_leased_reply_promises_no_durability() -> None:
    """What is in memory only is UNSPECIFIED, and not degraded."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    result = await it.call()
    assert result.durability is Durability.UNSPECIFIED
    assert not result.decision.degraded
    assert result.event_ids


@pytest.mark.parametrize("least", [Durability.BUFFERED, Durability.REDIS])
async def test_durable_calls_are_never_leased(least: Durability) -> None:
    """Who asks for a durability is answered by the store, however hot the call is."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    result = await it.call(least=least)
    assert not result.decision.leased
    assert result.durability is Durability.REDIS


@pytest.mark.parametrize(
    "limit",
    [
        window(limit=PLENTY, exact=True),
        window(kind=LimitKind.CONCURRENCY, limit=PLENTY, period=None),
        window(kind=LimitKind.SLIDING, limit=PLENTY, period=None, duration_us=1_000_000),
    ],
    ids=["exact", "concurrency", "narrow buckets"],
)
async def test_some_limits_are_never_leased(limit: object) -> None:
    """A call that meets such a limit is decided by the store, though others would do."""
    it = Leasing(window("other", PLENTY), limit)  # type: ignore[arg-type]  # as parametrized
    await it.calls(500)
    assert it.told["granted"] == 0


async def test_lease_ends_with_its_window() -> None:
    """A call in the next window is never granted from a lease of the one before."""
    time = Time()
    it = Leasing(window("m", PLENTY, period=Period.MINUTE), time=time)
    time.us = time.us // MINUTE_US * MINUTE_US + MINUTE_US - 600_000
    await it.heat()
    while time.us % MINUTE_US > MINUTE_US // 2:
        await it.calls(1)
    result = await it.call()
    assert not result.decision.leased
    turn = time.us // MINUTE_US * MINUTE_US
    assert result.decision.readings[0].resets_at_us == turn + MINUTE_US
    await it.close()
    assert it.counted("m/minute") == 1
    dated = [event.event_time.ToMicroseconds() for event in recorded_events(it.inner)]
    assert sum(1 for at in dated if at >= turn) == 0, "leased events are dated when granted"


async def test_change_of_the_catalog_ends_a_lease() -> None:
    """A limit that is lowered holds for the very next call, and the lease is given back."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    it.view.catalog = replace(catalog(window(limit=1)), version=2)
    result = await it.call()
    assert not result.decision.allowed
    await it.settle()
    assert it.leases.held == 0
    assert it.counted() == it.told["allowed"]


async def test_change_of_the_tenant_ends_a_lease() -> None:
    """A tenant that is moved to another parent is decided by the store."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    it.view.tenants = {tenant().tenant_id: tenant(currency="EUR")}
    assert not (await it.call()).decision.leased


async def test_repeat_is_known_before_it_is_settled() -> None:
    """The second call of an operation id is marked as a repeat, and charged once."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    first, second = await it.call("twice"), await it.call("twice")
    assert first.decision.leased
    assert second.decision == replace(first.decision, replayed=True)
    before = it.told["allowed"]
    await it.close()
    assert it.counted() == before == len(recorded_events(it.inner))


async def test_reused_id_is_refused_before_it_is_settled() -> None:
    """An operation id with other content is refused here as it is by the store."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    await it.call("twice")
    (error,) = await it.admit.consume([it.request("twice", amount=2)])
    assert isinstance(error, OperationIdReused)


async def test_repeat_at_another_sidecar_is_known_once_settled() -> None:
    """What was granted from a lease is answered as a repeat by any sidecar afterwards."""
    it = Leasing(window(limit=PLENTY))
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    await it.heat()
    assert (await it.call("twice")).decision.leased
    await it.settle()
    before = it.counted()
    assert (await other.call("twice")).decision.replayed
    assert it.counted() == before


async def test_unknown_repeat_is_given_back() -> None:
    """A repeat of what the store decided is granted again, recorded once and charged once."""
    it = Leasing(window(limit=PLENTY))
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    await other.call("twice")
    it.time.us += 1
    await it.heat()
    assert (await it.call("twice")).decision.leased
    granted = it.told["allowed"]
    await it.close()
    assert it.told["repeated"] == 1
    assert it.counted() == granted == len(recorded_events(it.inner))


async def test_end_gives_everything_back() -> None:
    """After a stop in good order the counter is what was granted, and no reservation is held."""
    it = Leasing(window(limit=PLENTY), window("week", PLENTY, period=Period.WEEK))
    results = await it.calls(700)
    assert it.leases.held > 0
    await it.close()
    assert it.leases.held == 0
    assert it.counted() == it.counted("week/week") == used_by(results)
    assert not any(account.holds for account in it.accounts.accounts.values())
    assert not (await it.call()).decision.leased


async def test_crash_returns_what_was_not_settled() -> None:
    """When a holder is gone, the store counts what was settled once the lease has expired."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    await it.settle()
    settled = len(recorded_events(it.inner))
    lost = 3
    assert all([(await it.call()).decision.leased for _ in range(lost)])
    it.time.us += 2_000_001
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    result = await other.call()
    assert result.decision.readings[0].used == settled + 1
    assert len(recorded_events(it.inner)) == settled + 1


async def test_unsettled_grants_are_bounded() -> None:
    """Without a settlement in between, no more than the bound is granted; the rest is decided."""
    it = Leasing(window(limit=PLENTY), options=LeaseOptions(unsettled_max=5))
    await it.calls(1_000)
    await it.settle()
    results = [await it.call() for _ in range(20)]
    assert sum(result.decision.leased for result in results) == 5
    assert all(result.decision.allowed for result in results)


async def test_nothing_is_granted_while_the_store_takes_nothing() -> None:
    """Once a settlement failed, calls go to the store, and its absence is told."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    it.inner.down = True
    await it.settle()
    (error,) = await it.admit.consume([it.request()])
    assert not hasattr(error, "decision")
    it.inner.down = False
    await it.close()
    assert it.counted() == it.told["allowed"] == len(recorded_events(it.inner))


async def test_lost_answers_settle_once() -> None:
    """A batch whose answer was lost is sent again, and is counted and recorded once."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    it.store.deaf = True
    await it.settle()
    await it.settle()
    it.store.deaf = False
    await it.close()
    assert it.told["repeated"] == 0
    # A lease of which nobody knows is nobody's: it expires.
    it.time.us += 2_000_001
    await it.call(least=Durability.REDIS)
    assert it.counted() == it.told["allowed"] == len(recorded_events(it.inner))


async def test_grants_of_a_lost_lease_are_counted_late() -> None:
    """A sidecar that was cut off for longer than its lease still records and counts its grants."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    it.inner.down = True
    await it.settle()
    it.time.us += 3_000_000
    it.inner.down = False
    other = Leasing(window(limit=PLENTY), inner=it.inner, time=it.time)
    await other.call()
    await it.close()
    assert it.told["late"] > 0
    assert it.counted() == it.told["allowed"] + 1 == len(recorded_events(it.inner))


async def test_new_epoch_counts_what_was_granted() -> None:
    """A store that forgot everything has the unsettled grants of its leases afterwards."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    await it.settle()
    granted = [await it.call() for _ in range(4)]
    assert all(result.decision.leased for result in granted)
    it.inner.accounts.clear()
    await it.close()
    assert it.counted() == len(recorded_events(it.inner)) == 4


async def test_lease_does_not_reach_a_warning() -> None:
    """Warnings are crossed by calls, once, and not by what is leased ahead."""
    it = Leasing(window(limit=10_000, warn_at_ppm=(500_000,)))
    crossed_at: list[int] = []
    for number in range(6_000):
        await it.call()
        if number % 10 == 0:
            await it.settle()
        it.time.us += 1_000
        crossed = [each for entry in it.accounts.stream for each in entry.crossings]
        if crossed and not crossed_at:
            crossed_at.append(number + 1)
            assert [each.threshold for each in crossed] == [5_000]
    assert crossed_at == [5_000]
    assert it.told["granted"] > 3_000


async def test_limit_is_met_to_the_unit() -> None:
    """However calls are granted, exactly as many are as the limit has."""
    it = Leasing(window(limit=1_000))
    results = await it.calls(1_500)
    assert used_by(results) == 1_000
    await it.close()
    assert it.counted() == 1_000 == len(recorded_events(it.inner))


async def test_soft_limits_are_leased_below_themselves() -> None:
    """What only watches is leased while it is not passed, and tells when it is."""
    it = Leasing(window(limit=1_000, on_exceed=OnExceed.SHADOW))
    results = await it.calls(1_200)
    assert used_by(results) == 1_200
    assert it.told["granted"] > 0
    last = results[-1].decision
    assert not last.leased
    assert last.readings[0].state is LimitState.SHADOW_EXCEEDED


async def test_rate_is_leased_for_a_tenth_of_a_second() -> None:
    """A rate's tokens are not granted later than 100 ms after they were taken."""
    it = Leasing(rate(limit=10_000))
    await it.heat()
    it.time.us += 100_000
    assert not (await it.call()).decision.leased


async def test_all_limits_of_a_call_are_leased_together() -> None:
    """A call that meets a full limit beside a free one is refused, leased or not."""
    it = Leasing(window(limit=PLENTY), window("small", 300))
    results = await it.calls(600)
    assert used_by(results) == 300
    assert results[-1].decision.refused_by == LimitId("small")
    await it.close()
    assert it.counted() == it.counted("small/month") == 300


async def test_batches_are_granted_call_by_call() -> None:
    """A list of calls is granted from a lease as far as that goes, in order."""
    it = Leasing(window(limit=PLENTY))
    await it.heat()
    results = await it.admit.consume([it.request() for _ in range(500)])
    leased = [getattr(result, "decision").leased for result in results]  # noqa: B009
    assert any(leased)
    assert not all(leased)
    await it.close()
    assert it.counted() == it.told["allowed"] == len(recorded_events(it.inner))
