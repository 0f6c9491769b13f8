"""What every `QuotaStore` promises of refunds, resets and grants."""

from collections.abc import Sequence
from dataclasses import replace

from tallygate.domain.decision import (
    LimitReading,
    Operation,
    RefundExceeds,
    Reused,
)
from tallygate.domain.detail import (
    Refund,
)
from tallygate.domain.ids import EventId
from tests.builders import ACME, charges, check, consume, decided, payload, used, window
from tests.quota_subjects import OverFake, OverRedis, Subject
from tests.reservations import (
    balance,
    commit,
    credits_of,
    event_key,
    found,
    grant,
    refund,
    reserve,
    reset,
)

LIMITS = [window(limit=10)]


class RefundContract:
    """Giving back what was used; each subclass has a `subject` to ask."""

    async def test_a_refund_gives_back_part_by_part(self, subject: Subject) -> None:
        """Parts add up to the event and not beyond; each is an event of its own."""
        store = subject.store()
        await store.decide([consume(LIMITS, 10, "op", payload=payload("op:0", 10))])
        known = await store.recorded(event_key("op:0", "op"))
        assert known is not None
        assert (known.payload, known.refunded) == (payload("op:0", 10), 0)
        part, too_much, rest, nothing = await store.decide(
            [
                refund(LIMITS, 4, "op:0", "r1"),
                refund(LIMITS, 7, "op:0", "r2"),
                refund(LIMITS, 6, "op:0", "r3"),
                refund(LIMITS, 1, "op:0", "r4"),
            ]
        )
        assert (used(part), used(rest)) == ([6], [0])
        assert (too_much, nothing) == (RefundExceeds(6), RefundExceeds(0))
        known = await store.recorded(event_key("op:0", "op"))
        assert known is not None
        assert known.refunded == 10
        assert len(await subject.accepted()) == 3

    async def test_a_refund_is_repeated_as_any_call(self, subject: Subject) -> None:
        """The same refund twice is one; its id with other content is told so."""
        store = subject.store()
        await store.decide([consume(LIMITS, 10, "op")])
        first, again, other = await store.decide(
            [
                refund(LIMITS, 4, "op:0", "r1"),
                refund(LIMITS, 4, "op:0", "r1"),
                refund(LIMITS, 5, "op:0", "r1"),
            ]
        )
        assert decided(again).replayed
        assert replace(decided(again), replayed=False) == first
        assert other == Reused()
        assert used((await store.decide([check(LIMITS)]))[0]) == [6]

    async def test_a_refund_of_another_window_leaves_this_one_alone(self, subject: Subject) -> None:
        """Units come back to where they were used, if that still counts."""
        store = subject.store()
        await store.decide([consume(LIMITS, 5)])
        before = charges(LIMITS, 4, ACME)[0].rule.starts_us - 1  # type: ignore[union-attr]
        [done] = await store.decide([refund(LIMITS, 4, "op:0", "r1", event_time_us=before)])
        assert (decided(done).allowed, used(done)) == (True, [5])

    async def test_what_is_not_remembered_is_not_recorded(self, subject: Subject) -> None:
        """Nothing is known of strange operations, nor of those without events."""
        store = subject.store()
        await store.decide([reserve(LIMITS, 3)])
        assert await store.recorded(event_key("op:0", "op")) is None
        assert await store.recorded(event_key("hold:0", "hold")) is None

    async def test_a_reset_forgets_what_is_not_held(self, subject: Subject) -> None:
        """It tells before and after; what reservations hold stays counted, and is settled well."""
        store = subject.store()
        await store.decide([consume(LIMITS, 4), reserve(LIMITS, 5)])
        done, again = await store.decide([reset(LIMITS), reset(LIMITS)])
        assert used(done) == [9, 5]
        assert decided(again).replayed
        _, stands = await store.decide([commit(await found(store), 3), check(LIMITS)])
        assert used(stands) == [3]

    async def test_a_refund_after_a_reset_takes_no_more_than_is_there(
        self, subject: Subject
    ) -> None:
        """What was used before a reset is forgotten; to refund it takes from what came since."""
        store = subject.store()
        await store.decide([consume(LIMITS, 8, "op")])
        _, since, done = await store.decide(
            [reset(LIMITS), consume(LIMITS, 5), refund(LIMITS, 8, "op:0", "r1")]
        )
        assert (used(since), used(done)) == ([5], [0])

    async def test_a_counted_event_comes_back_with_its_last_unit(self, subject: Subject) -> None:
        """Parts of it give nothing back; the one that completes them does, whichever it is."""
        store = subject.store()
        await store.decide([consume(LIMITS, 1, "op")])

        def part(units: int, name: str) -> Operation:
            detail = Refund(EventId("op:0"), units, 7, counted=True)
            return refund(LIMITS, 1, "op:0", name, detail=detail)

        outcomes = await store.decide([part(3, "r1"), part(2, "r2"), part(3, "r3"), part(2, "r4")])
        assert [used(outcomes[n]) for n in (0, 1, 3)] == [[1], [1], [0]]
        assert outcomes[2] == RefundExceeds(2)

    async def test_grants_are_taken_once(self, subject: Subject) -> None:
        """Credits raise what may be used; a grant that the balance has had is passed over."""
        limit = balance()
        store = subject.store()
        poor, one, two, rich = await store.decide(
            [
                consume([limit]),
                grant(limit, credits_of(5)),
                grant(limit, credits_of(5), credits_of(3, 2)),
                consume([limit], 8),
            ]
        )
        assert (decided(poor).allowed, decided(rich).allowed) == (False, True)
        assert [_limits(each) for each in (one, two, rich)] == [[5], [8], [8]]

    async def test_held_credits_come_back_to_their_grant(self, subject: Subject) -> None:
        """A reservation holds credits; what it does not use can be used by others."""
        limit = balance()
        store = subject.store()
        await store.decide([grant(limit, credits_of(5), credits_of(5, 2)), reserve([limit], 8)])
        _, refused, passed = await store.decide(
            [commit(await found(store), 2), consume([limit], 9), consume([limit], 8)]
        )
        assert (decided(refused).allowed, decided(passed).allowed) == (False, True)
        assert [each.remaining for each in _readings(passed)] == [0]


def _readings(outcome: object) -> Sequence[LimitReading]:
    return decided(outcome).readings


def _limits(outcome: object) -> list[int]:
    return [each.limit for each in _readings(outcome)]


class TestFakeRefunds(OverFake, RefundContract):
    """The promises, of the fake."""


class TestRedisRefunds(OverRedis, RefundContract):
    """The promises, of each Redis."""
