"""What every `QuotaStore` promises of holding and settling."""

import asyncio
from dataclasses import replace

import pytest

from tallygate.domain.decision import (
    Changed,
    Charge,
    Decided,
    Operation,
    Reservation,
    ReservationState,
    Reused,
    Unresolved,
)
from tallygate.domain.ids import TenantId
from tallygate.domain.window import MINUTE_US, Period
from tests.builders import (
    ACME,
    MEMORY_MS,
    charges,
    check,
    consume,
    decided,
    payload,
    rate,
    used,
    window,
)
from tests.quota_subjects import OverFake, OverRedis, Seen, Subject
from tests.reservations import (
    TTL_US,
    commit,
    commit_more,
    concurrency,
    extend,
    found,
    key_of,
    release,
    reserve,
    settle,
)

LIMITS = [window(limit=10)]
HELD, COMMITTED = ReservationState.HELD, ReservationState.COMMITTED
RELEASED, EXPIRED = ReservationState.RELEASED, ReservationState.EXPIRED
# More than the script lets come back in one call.
CROWD = 1_100


class ReservationContract:
    """Holding and settling; each subclass has a `subject` to ask."""

    async def test_what_is_held_counts_as_used(self, subject: Subject) -> None:
        """A reservation is in every later answer, and no event of it is in the stream."""
        store = subject.store()
        [made] = await store.decide([reserve(LIMITS, 7)])
        refused, passed = await store.decide([consume(LIMITS, 4), consume(LIMITS, 3)])
        assert used(made) == [7]
        assert (decided(refused).allowed, decided(passed).allowed) == (False, True)
        assert used(passed) == [10]
        assert await subject.accepted() == [Seen("a", 1, 1)]
        reservation = await found(store)
        assert (reservation.state, reservation.payload) == (HELD, payload("hold", 7))
        assert reservation.reserved_at_us == subject.time.now_us
        assert reservation.expires_us == subject.time.now_us + TTL_US
        assert [piece.amount for share in reservation.shares for piece in share.pieces] == [7]

    async def test_a_refused_reservation_holds_nothing(self, subject: Subject) -> None:
        """One limit that refuses leaves all others as they were, and no reservation behind."""
        store = subject.store()
        await store.decide([consume(LIMITS, 1)])
        before = await subject.state()
        [refused] = await store.decide([reserve([window("wide", 50), *LIMITS, concurrency()], 10)])
        assert (decided(refused).allowed, decided(refused).refused_by) == (False, "monthly")
        assert await store.reservation(key_of()) is None
        assert await subject.state() == before

    async def test_a_commit_of_less_gives_the_rest_back(self, subject: Subject) -> None:
        """What was used stays and is recorded; the rest can be used by others at once."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        done, stands = await store.decide([commit(await found(store), 3), check(LIMITS)])
        assert decided(done).first_seq == 1
        assert used(stands) == [3]
        assert await subject.accepted() == [Seen("a", 1, 1)]
        assert (await found(store)).state is COMMITTED

    async def test_a_commit_of_nothing_records_nothing(self, subject: Subject) -> None:
        """Nothing used is settled with no event, and all units come back."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        done, stands = await store.decide([commit(await found(store), 0), check(LIMITS)])
        assert (decided(done).first_seq, used(stands)) == (0, [0])
        assert await subject.accepted() == []

    async def test_a_release_gives_all_back(self, subject: Subject) -> None:
        """All units come back, and no event is recorded."""
        store = subject.store()
        await store.decide([reserve([*LIMITS, concurrency()], 2)])
        _, stands = await store.decide(
            [release(await found(store)), check([*LIMITS, concurrency()])]
        )
        assert used(stands) == [0, 0]
        assert await subject.accepted() == []
        assert (await found(store)).state is RELEASED

    @pytest.mark.parametrize("state", [COMMITTED, RELEASED])
    async def test_a_reservation_is_resolved_once(
        self, subject: Subject, state: ReservationState
    ) -> None:
        """Whatever comes second is told what came first, and changes nothing."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held = await found(store)
        first = commit(held, 3, "one") if state is COMMITTED else release(held, "one")
        await store.decide([first])
        before = await subject.state()
        for source in ("a", "b"):
            again = [commit(held, 3, "two"), release(held, "three"), extend(held)]
            assert await subject.store(source).decide(again) == [Unresolved(state)] * 3
        assert await subject.state() == before

    async def test_repeats_get_the_first_answer(self, subject: Subject) -> None:
        """Reserve, commit and release are each answered again as the first time."""
        for name, tenant in (("commit", ACME), ("release", TenantId("other"))):
            made = replace(reserve(LIMITS, 4), tenant_id=tenant)
            await _twice(subject, made)
            held = await subject.store().reservation(key_of("hold", tenant))
            assert held is not None
            ending = commit(held, 2) if name == "commit" else release(held)
            await _twice(subject, replace(ending, tenant_id=tenant))
        assert len(await subject.accepted()) == 1

    async def test_a_reused_id_is_told_from_a_repeat(self, subject: Subject) -> None:
        """The same id with other content holds nothing and settles nothing."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 4)])
        held = await found(store)
        assert await store.decide([reserve(LIMITS, 5)]) == [Reused()]
        await store.decide([commit(held, 3)])
        assert await store.decide([commit(held, 2)]) == [Reused()]
        assert used((await store.decide([check(LIMITS)]))[0]) == [3]

    async def test_units_come_back_by_the_stores_clock(self, subject: Subject) -> None:
        """At the very microsecond of its end a reservation has expired, and not before."""
        store = subject.store()
        await store.decide([reserve([*LIMITS, concurrency()], 2)])
        held = await found(store)
        limits = [*LIMITS, concurrency()]
        subject.time.now_us += TTL_US - 1
        [still] = await store.decide([check(limits)])
        subject.time.now_us += 1
        late, stands = await store.decide([commit(held, 2), check(limits)])
        assert (used(still), used(stands)) == ([2, 2], [0, 0])
        assert late == Unresolved(EXPIRED)
        assert await store.decide([release(held), extend(held)]) == [Unresolved(EXPIRED)] * 2
        assert await subject.accepted() == []

    async def test_a_clock_set_back_takes_no_units_again(self, subject: Subject) -> None:
        """Units that have come back stay, though by the clock the reservation lasts still."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held = await found(store)
        subject.time.now_us += TTL_US
        await store.decide([consume(LIMITS, 10)])
        subject.time.now_us -= TTL_US // 2
        late, stands = await store.decide([commit(held, 7), check(LIMITS)])
        assert (late, used(stands)) == (Unresolved(EXPIRED), [10])

    async def test_an_expired_reservation_is_known_for_the_memory(self, subject: Subject) -> None:
        """It is told as expired while it is remembered, and as unknown from then on."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held = await found(store)
        subject.time.now_us += TTL_US + MEMORY_MS * 1000 - 1
        assert await store.decide([commit(held, 7)]) == [Unresolved(EXPIRED)]
        subject.time.now_us += 1
        assert await store.decide([commit(held, 7)]) == [Unresolved(ReservationState.UNKNOWN)]

    async def test_a_heartbeat_moves_the_end(self, subject: Subject) -> None:
        """Each extension counts from its own moment, to later or to sooner."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held = await found(store)
        for _ in range(3):
            subject.time.now_us += TTL_US - 1
            assert decided((await store.decide([extend(held)]))[0]).allowed
        assert (await found(store)).expires_us == subject.time.now_us + TTL_US
        await store.decide([extend(held, 1_000)])
        subject.time.now_us += 1_000
        assert used((await store.decide([check(LIMITS)]))[0]) == [0]

    async def test_a_crowd_that_expires_comes_back_whole(self, subject: Subject) -> None:
        """However many holds end together, calls soon see all of their units back."""
        limits = [window(limit=CROWD)]
        store = subject.store()
        await store.decide([reserve(limits, 1, f"hold-{n}") for n in range(CROWD)])
        [full] = await store.decide([consume(limits)])
        subject.time.now_us += TTL_US
        await store.decide([check(limits)])
        [stands] = await store.decide([check(limits)])
        assert (decided(full).allowed, used(stands)) == (False, [0])

    async def test_a_part_may_be_settled(self, subject: Subject) -> None:
        """Settling uses up and gives back as told; what remains is held and still expires."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 10)])
        await store.decide([settle(await found(store), 3, 2, "part")])
        kept = await found(store)
        assert kept.state is HELD
        assert [piece.amount for share in kept.shares for piece in share.pieces] == [5]
        assert used((await store.decide([check(LIMITS)]))[0]) == [8]
        subject.time.now_us += TTL_US
        assert used((await store.decide([check(LIMITS)]))[0]) == [3]

    async def test_a_holding_that_has_changed_is_told(self, subject: Subject) -> None:
        """Whoever goes by what was held before settles nothing."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 10)])
        old = await found(store)
        await store.decide([settle(old, 3, 2, "part")])
        assert await store.decide([commit(old, 9), extend(old)]) == [Changed()] * 2
        assert used((await store.decide([check(LIMITS)]))[0]) == [8]

    async def test_an_excess_is_asked_for(self, subject: Subject) -> None:
        """What goes beyond is granted where there is room, and recorded beside the rest."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 4)])
        [done] = await store.decide([commit_more(await found(store), LIMITS, 4, 6, record=False)])
        assert (used(done), decided(done).refused_by) == ([10], None)
        assert await subject.accepted() == [Seen("a", 1, 1), Seen("a", 2, 1)]

    async def test_a_refused_excess_leaves_the_rest_settled(self, subject: Subject) -> None:
        """The reservation is committed, the limit is named, and the excess leaves no trace."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 4)])
        asked = commit_more(await found(store), LIMITS, 4, 7, record=False)
        [done] = await store.decide([asked])
        [again] = await store.decide([asked])
        assert (decided(done).allowed, decided(done).refused_by) == (True, "monthly")
        assert used(done) == [4]
        assert replace(decided(again), replayed=False) == done
        assert await subject.accepted() == [Seen("a", 1, 1)]
        assert (await found(store)).state is COMMITTED

    async def test_an_excess_may_be_recorded_whatever_the_limit(self, subject: Subject) -> None:
        """Work that was done is counted past the limit, where that is asked for."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 4)])
        [done] = await store.decide([commit_more(await found(store), LIMITS, 4, 7, record=True)])
        assert (used(done), decided(done).refused_by) == ([11], None)
        assert sum(each.count for each in await subject.accepted()) == 2

    async def test_tokens_of_a_rate_do_not_come_back(self, subject: Subject) -> None:
        """A rate paces what begins: what was reserved has begun, and drains as ever."""
        limits = [rate(limit=10)]
        store = subject.store()
        await store.decide([reserve(limits, 10)])
        _, stands = await store.decide([release(await found(store)), check(limits)])
        assert used(stands) == [10]
        subject.time.now_us += 500_000
        assert used((await store.decide([check(limits)]))[0]) == [5]

    async def test_concurrency_is_held_by_reservations_only(self, subject: Subject) -> None:
        """A charge asks for room and takes none; a commit gives back what was held."""
        limits = [concurrency(2)]
        store = subject.store()
        passing, first, second, third, charge = await store.decide(
            [
                consume(limits, 2),
                reserve(limits, 1),
                reserve(limits, 1, "second"),
                reserve(limits, 1, "third"),
                consume(limits, 1),
            ]
        )
        allowed = [decided(each).allowed for each in (passing, first, second, third, charge)]
        assert allowed == [True, True, True, False, False]
        assert decided(third).retry_after_us == TTL_US
        await store.decide([commit(await found(store), 1)])
        assert used((await store.decide([check(limits)]))[0]) == [1]

    async def test_usage_belongs_to_the_window_of_its_reservation(self, subject: Subject) -> None:
        """A window that turns meanwhile is neither charged for it nor given anything back."""
        minute = window("minute", 10, period=Period.MINUTE)
        store = subject.store()
        subject.time.now_us += MINUTE_US - subject.time.now_us % MINUTE_US - 1_000_000

        def charged(amount: int) -> tuple[Charge, ...]:
            return charges([minute], amount, ACME, subject.time.now_us)

        await store.decide([reserve([], 7, charges=charged(7))])
        subject.time.now_us += 2_000_000
        _, done, stands = await store.decide(
            [
                consume([], 4, charges=charged(4)),
                commit(await found(store), 3),
                check([], charges=charged(0)),
            ]
        )
        assert decided(done).first_seq == 2
        assert used(stands) == [4]

    async def test_tenants_do_not_meet_in_a_reservation(self, subject: Subject) -> None:
        """Another tenant's reservation of the same name is nothing that can be seen or settled."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held, other = await found(store), TenantId("other")
        assert await store.reservation(key_of("hold", other)) is None
        asked = [
            replace(each, tenant_id=other)
            for each in (commit(held, 7, "theirs"), release(held), extend(held))
        ]
        assert await store.decide(asked) == [Unresolved(ReservationState.UNKNOWN)] * 3
        assert (await found(store)).state is HELD

    async def test_many_reservations_are_read_at_once(self, subject: Subject) -> None:
        """However many ask together, each reads its own, and those who give up harm nobody."""
        store = subject.store()
        names = [f"hold-{n}" for n in range(300)]
        await store.decide([reserve([window(limit=1_000)], 1, name) for name in names])
        reads = [asyncio.create_task(found(store, name)) for name in names]
        await asyncio.sleep(0)
        for each in reads[::7]:
            each.cancel()
        answers = await asyncio.gather(*reads, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 7:
                assert isinstance(answer, Reservation), answer
                assert answer.payload == payload(names[number])

    async def test_racing_commits_settle_once(self, subject: Subject) -> None:
        """Of many that race from several sources one settles; the others are told so."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 7)])
        held = await found(store)
        lists = await asyncio.gather(
            *(
                subject.store(source).decide(
                    [commit(held, n % 7, f"{source}-{n}") for n in range(10)]
                )
                for source in "abcd"
            )
        )
        outcomes = [outcome for some in lists for outcome in some]
        assert sum(isinstance(each, Decided) for each in outcomes) == 1
        assert outcomes.count(Unresolved(COMMITTED)) == 39
        assert used((await store.decide([check(LIMITS)]))[0])[0] < 7


async def _twice(subject: Subject, operation: Operation) -> None:
    """Ask two sources the same; the second's answer must be the first's, as a repeat."""
    [first] = await subject.store().decide([operation])
    [again] = await subject.store("b").decide([operation])
    assert decided(again).replayed
    assert replace(decided(again), replayed=False) == first


class TestFakeReservations(OverFake, ReservationContract):
    """The promises, of the fake."""


class TestRedisReservations(OverRedis, ReservationContract):
    """The promises, of each Redis."""
