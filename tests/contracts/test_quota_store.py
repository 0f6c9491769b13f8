"""What every `QuotaStore` promises, asked of the fake and of each Redis alike."""

import asyncio
from dataclasses import replace

import pytest

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
    Overflowed,
    Reused,
    Stale,
)
from tallygate.domain.ids import AMOUNT_MAX, TenantId
from tallygate.domain.window import DAY_US, MINUTE_US, Period
from tests.builders import (
    ACME,
    MEMORY_MS,
    SHARDS,
    charges,
    check,
    consume,
    decided,
    rate,
    used,
    window,
)
from tests.quota_subjects import OverFake, OverRedis, Seen, Subject, gapless


class QuotaStoreContract:
    """The promises; each subclass has a `subject` to ask."""

    async def test_grants_until_the_limit_and_not_past_it(self, subject: Subject) -> None:
        """Exactly the limit is granted; the refusal names its limit and when to come back."""
        limits = [window(limit=3)]
        store = subject.store()
        outcomes = await store.decide([consume(limits) for _ in range(5)])
        assert [decided(each).allowed for each in outcomes] == [True, True, True, False, False]
        refused = decided(outcomes[4])
        assert refused.refused_by == "monthly"
        ends_us = consume(limits).charges[0].rule.turns_us  # type: ignore[union-attr]
        assert refused.retry_after_us == ends_us - subject.time.now_us

    async def test_charges_all_limits_or_none(self, subject: Subject) -> None:
        """A call that one limit refuses leaves the others as they were."""
        wide, narrow = window("wide", 100), window("narrow", 5)
        store = subject.store()
        [first] = await store.decide([consume([wide, narrow], 4)])
        [second] = await store.decide([consume([wide, narrow], 2)])
        [third] = await store.decide([consume([wide, narrow], 1)])
        assert used(first) == [4, 4]
        assert (decided(second).allowed, decided(second).refused_by) == (False, "narrow")
        assert used(second) == [4, 4]
        assert used(third) == [5, 5]

    async def test_a_refusal_changes_nothing(self, subject: Subject) -> None:
        """Neither counter, record, sequence nor stream knows of a refused call."""
        limits = [rate(limit=1), window(limit=1)]
        store = subject.store()
        await store.decide([consume(limits, 1, "first")])
        before = await subject.state()
        assert before
        outcomes = await store.decide([consume(limits, 1, f"op-{n}") for n in range(3)])
        assert not any(decided(each).allowed for each in outcomes)
        assert await subject.state() == before

    async def test_a_question_changes_nothing(self, subject: Subject) -> None:
        """A check answers as the call would and leaves no trace."""
        limits = [window(limit=10)]
        store = subject.store()
        await store.decide([consume(limits, 4)])
        before = await subject.state()
        yes, no = await store.decide([check(limits, 6), check(limits, 7)])
        assert (decided(yes).allowed, decided(no).allowed) == (True, False)
        assert used(yes) == used(no) == [4]
        assert await subject.state() == before

    async def test_a_repeat_gets_the_first_answer(self, subject: Subject) -> None:
        """Whatever has happened since, the same call is answered with the same bytes."""
        limits = [window(limit=10), rate(limit=5)]
        store = subject.store()
        [first] = await store.decide([consume(limits, 2, "op")])
        subject.time.now_us += MINUTE_US // 2
        await store.decide([consume(limits, 3)])
        before = await subject.state()
        for source in ("a", "b"):
            [again] = await subject.store(source).decide([consume(limits, 2, "op")])
            assert decided(again).replayed
            assert replace(decided(again), replayed=False) == first
        assert await subject.state() == before

    async def test_a_repeat_within_one_call_is_a_repeat(self, subject: Subject) -> None:
        """Twins that arrive together are charged once."""
        store = subject.store()
        first, second = await store.decide([consume([window()], 2, "op")] * 2)
        assert (decided(first).replayed, decided(second).replayed) == (False, True)
        assert replace(decided(second), replayed=False) == first
        assert used((await store.decide([check([window()])]))[0]) == [2]

    async def test_a_reused_id_is_told_from_a_repeat(self, subject: Subject) -> None:
        """The same id with other content is neither charged nor answered."""
        store = subject.store()
        await store.decide([consume([window()], 2, "op")])
        before = await subject.state()
        assert await store.decide([consume([window()], 3, "op")]) == [Reused()]
        assert await subject.state() == before

    async def test_operations_of_tenants_do_not_meet(self, subject: Subject) -> None:
        """The same operation id of another tenant is another call, with its own counters."""
        store = subject.store()
        names = [TenantId(name) for name in ("acme", "acm", "e", "ümläut", "a;b", "a,b", "{tg:03}")]
        outcomes = await store.decide(
            [consume([window()], 2, "op", tenant_id=name) for name in names]
        )
        assert [used(each) for each in outcomes] == [[2]] * len(names)
        assert not any(decided(each).replayed for each in outcomes)

    async def test_a_refused_call_may_pass_later(self, subject: Subject) -> None:
        """A refusal is not remembered: the same id passes when the window has turned."""
        second = window("second", 1, period=Period.SECOND)
        store = subject.store()
        subject.time.now_us += 1_000_000 - subject.time.now_us % 1_000_000

        def call(name: str) -> Operation:
            return consume([], 1, name, charges=charges([second], 1, ACME, subject.time.now_us))

        one, two = await store.decide([call("one"), call("two")])
        assert (decided(one).allowed, decided(two).allowed) == (True, False)
        assert decided(two).retry_after_us == 1_000_000
        subject.time.now_us += 1_000_000
        assert decided((await store.decide([call("two")]))[0]).allowed

    async def test_a_call_is_forgotten_after_its_memory(self, subject: Subject) -> None:
        """A repeat is known up to the last microsecond of the memory, and new after it."""
        limits = [window(period=Period.BILLING_PERIOD)]
        store = subject.store()
        await store.decide([consume(limits, 1, "op")])
        subject.time.now_us += MEMORY_MS * 1000 - 1
        assert decided((await store.decide([consume(limits, 1, "op")]))[0]).replayed
        subject.time.now_us += 1
        [last] = await store.decide([consume(limits, 1, "op")])
        assert not decided(last).replayed

    async def test_windows_that_have_passed_are_told(self, subject: Subject) -> None:
        """Windows that do not hold the store's time decide nothing, and the time is told."""
        store = subject.store()
        minute = window("minute", 5, period=Period.MINUTE)
        for off_us in (-2 * MINUTE_US, 2 * MINUTE_US):
            made = charges([minute], 1, ACME, subject.time.now_us + off_us)
            outcomes = await store.decide([consume([], 1, "op", charges=made)])
            assert outcomes == [Stale(subject.time.now_us)]
        assert await subject.accepted() == []

    async def test_the_store_s_clock_picks_the_window(self, subject: Subject) -> None:
        """A caller whose clock is behind by a window is still counted in the store's window."""
        store = subject.store()
        minute = window("minute", 5, period=Period.MINUTE)
        behind = charges([minute], 1, ACME, subject.time.now_us - MINUTE_US)
        exact = charges([minute], 1, ACME, subject.time.now_us)
        first, second = await store.decide(
            [consume([], charges=behind), consume([], charges=exact)]
        )
        assert (used(first), used(second)) == ([1], [2])
        assert decided(first).readings[0].resets_at_us == decided(second).readings[0].resets_at_us

    async def test_a_clock_that_is_set_back_opens_no_limit(self, subject: Subject) -> None:
        """Behind a window that has begun, calls count in that window, and no more pass."""
        minute = window("minute", 3, period=Period.MINUTE)
        store = subject.store()
        start_us = subject.time.now_us - subject.time.now_us % MINUTE_US + MINUTE_US

        async def call() -> Decided:
            made = charges([minute], 1, ACME, subject.time.now_us)
            return decided((await store.decide([consume([], charges=made)]))[0])

        subject.time.now_us = start_us
        assert (await call()).allowed
        subject.time.now_us = start_us - 2_000_000
        found = [await call() for _ in range(4)]
        assert [each.allowed for each in found] == [True, True, False, False]
        assert [used(each) for each in found] == [[2], [3], [3], [3]]
        subject.time.now_us = start_us + 2_000_000
        assert not (await call()).allowed

    async def test_usage_is_recorded_whatever_the_limit(self, subject: Subject) -> None:
        """What has happened is counted past the limit, and the next check sees it."""
        limits = [window(limit=3)]
        store = subject.store()
        recorded, asked = await store.decide(
            [consume(limits, 5, mode=Mode.RECORD), consume(limits, 1)]
        )
        assert (decided(recorded).allowed, used(recorded)) == (True, [5])
        assert (decided(asked).allowed, used(asked)) == (False, [5])

    async def test_old_usage_does_not_count_in_this_window(self, subject: Subject) -> None:
        """An event from before the window is stored, and charges nothing."""
        limits = [window(limit=3)]
        old = subject.time.now_us - 32 * DAY_US
        store = subject.store()
        [late] = await store.decide([consume(limits, 2, mode=Mode.RECORD, event_time_us=old)])
        assert used(late) == [0]
        assert len(await subject.accepted()) == 1

    async def test_rejections_are_kept_without_a_charge(self, subject: Subject) -> None:
        """A rejected event takes a number, so that it is never missed."""
        rejection = consume([], 2, mode=Mode.REJECT, reject_reason="EVENT_TIME_TOO_OLD")
        [outcome] = await subject.store().decide([rejection])
        assert decided(outcome).first_seq == 1
        assert await subject.accepted() == [Seen("a", 1, 1)]

    @pytest.mark.parametrize("mode", [Mode.CONSUME, Mode.RECORD])
    async def test_a_counter_never_leaves_what_is_exact(self, subject: Subject, mode: Mode) -> None:
        """What would pass 2^53 - 1 is refused whole, and the counter stays exact."""
        limits = [window("soft", 10, on_exceed=OnExceed.ALLOW)]
        store = subject.store()
        full, over, still = await store.decide(
            [
                consume(limits, AMOUNT_MAX, mode=mode),
                consume(limits, 1, mode=mode),
                check(limits),
            ]
        )
        assert used(full) == used(still) == [AMOUNT_MAX]
        assert over == Overflowed(limits[0].limit_id)

    async def test_order_is_kept_over_shards_and_chunks(self, subject: Subject) -> None:
        """Outcomes come in the operations' order; those of a shard run in that order."""
        operations = [
            consume([window(limit=1_000)], 1, f"op-{n}", shard=n * 7 % SHARDS) for n in range(1_500)
        ]
        outcomes = await subject.store().decide(operations)
        reached = [0] * SHARDS
        for operation, outcome in zip(operations, outcomes, strict=True):
            reached[operation.shard] += 1
            assert used(outcome) == [reached[operation.shard]]
            assert decided(outcome).first_seq == reached[operation.shard]
        assert sum(reached) == 1_500
        for shard in range(SHARDS):
            assert gapless(await subject.accepted(shard)) == {"a": reached[shard]}

    async def test_one_bad_operation_spares_its_neighbours(self, subject: Subject) -> None:
        """Stale, reused and refused operations stand beside granted ones, each by itself."""
        limits = [window(limit=4)]
        store = subject.store()
        stale = charges([window("minute", period=Period.MINUTE)], 1, ACME, 0)
        outcomes = await store.decide(
            [
                consume(limits, 3, "op"),
                consume([], charges=stale),
                consume(limits, 1, "op"),
                consume(limits, 2),
                consume(limits, 1),
            ]
        )
        assert [type(each) for each in outcomes] == [Decided, Stale, Reused, Decided, Decided]
        assert [used(outcomes[n]) for n in (0, 3, 4)] == [[3], [3], [4]]

    async def test_nothing_asked_is_nothing_answered(self, subject: Subject) -> None:
        """An empty list is a list."""
        assert await subject.store().decide([]) == []

    async def test_sequences_have_no_gap_per_source_and_lane(self, subject: Subject) -> None:
        """Two sidecars that write to the same shards number their events each without a gap."""

        async def write(source: str) -> None:
            store = subject.store(source)
            for turn in range(10):
                await store.decide(
                    [
                        consume([window(limit=40)], 1, event_count=1 + n % 3, shard=n % 2)
                        for n in range(turn)
                    ]
                )

        await asyncio.gather(write("a"), write("b"))
        for shard in (0, 1):
            seen = await subject.accepted(shard)
            assert len(seen) == 40
            assert set(gapless(seen)) == {"a", "b"}

    async def test_a_threshold_is_crossed_once(self, subject: Subject) -> None:
        """However many callers race over a threshold, the stream tells of it once."""
        limits = [window(limit=50, warn_at_ppm=(500_000, 1_000_000))]

        async def spend(source: str) -> None:
            for _ in range(15):
                await subject.store(source).decide([consume(limits), consume(limits)])

        subject.store("a")
        await asyncio.gather(*(spend(source) for source in "abcd"))
        assert await subject.crossings() == [("monthly", 500_000, 25), ("monthly", 1_000_000, 50)]
        assert sum(each.count for each in await subject.accepted()) == 50

    async def test_one_charge_may_cross_several_thresholds(self, subject: Subject) -> None:
        """A large charge tells of every threshold it passes, in order, with what was used."""
        limits = [window(limit=10, warn_at_ppm=(100_000, 500_000, 900_000))]
        await subject.store().decide([consume(limits, 1), consume(limits, 9), consume(limits, 1)])
        assert [ratio for _, ratio, _ in await subject.crossings()] == [100_000, 500_000, 900_000]

    async def test_a_limit_is_never_passed_by_racing_sources(self, subject: Subject) -> None:
        """Sources that race for the last units get exactly those, and two limits agree."""
        limits = [window("one", 100), window("two", 120)]

        async def race(source: str) -> int:
            outcomes = await subject.store(source).decide([consume(limits, 3) for _ in range(25)])
            return sum(decided(each).allowed for each in outcomes)

        subject.store("a")
        grants = await asyncio.gather(*(race(source) for source in "abcd"))
        assert sum(grants) == 33
        [stands] = await subject.store().decide([check(limits)])
        assert used(stands) == [99, 99]


class TestFakeQuotaStore(OverFake, QuotaStoreContract):
    """The promises, of the fake."""


class TestRedisQuotaStore(OverRedis, QuotaStoreContract):
    """The promises, of each Redis."""
