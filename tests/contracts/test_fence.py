"""What every `QuotaStore` does when counters were lost, asked of the fake and of each Redis."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tallygate.domain.catalog import LimitKind, OnExceed
from tallygate.domain.decision import Decided, Fenced, Mode, Operation
from tallygate.domain.detail import (
    Credit,
    Extension,
    Grant,
    Hold,
    Portion,
    Rebuilt,
    Refund,
    Settlement,
)
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import (
    AMOUNT_MAX,
    EventId,
    OperationId,
    ReservationId,
    SourceId,
    epoch_of,
    numbered_in,
)
from tallygate.ports import OperationKey, QuotaStore, ReservationKey
from tallygate.ports.epochs import Stage
from tests.builders import ACME, charges, check, consume, decided, used, window
from tests.quota_subjects import SHARD, FakeSubject, RedisSubject, Subject, gapless

STRICT = [window(limit=10)]
OPEN = [window(limit=10, on_exceed=OnExceed.ALLOW)]
PREPAID = [
    window("credits", 0, kind=LimitKind.BALANCE, period=None, on_exceed=OnExceed.ALLOW),
]
HELD = ReservationId("03-held")
MINUTE_US = 60_000_000


def reserve(amount: int, limits: list[object]) -> Operation:
    """Return what holds so much."""
    bound = charges(limits, amount)  # type: ignore[arg-type]
    hold = Hold(HELD, MINUTE_US)
    return Operation(Mode.RESERVE, ACME, SHARD, OperationId("hold"), charges=bound, detail=hold)


def rebuild(subject: Subject, units: int) -> Operation:
    """Return what adds units to the window of now."""
    bound = charges(STRICT, 0, at_us=subject.time.now_us)
    rule = bound[0].rule
    slots = (((rule.starts_us, units),),)  # type: ignore[union-attr]
    return Operation(Mode.REBUILD, ACME, SHARD, charges=bound, detail=Rebuilt(slots))


async def one(store: QuotaStore, operation: Operation) -> object:
    """Return the outcome of one operation."""
    (outcome,) = await store.decide([operation])
    return outcome


async def stage(subject: Subject, to: Stage) -> None:
    """Bring the shard to a stage."""
    epoch = (await subject.stages().epochs())[SHARD]
    assert await subject.stages().advance(SHARD, epoch, to)


class FenceContract:
    """The promises; each subclass has a `subject` whose new epochs are shut."""

    @pytest.mark.parametrize("to", [None, Stage.SEEN, Stage.FILLED])
    async def test_a_hard_limit_decides_nothing_until_it_is_rebuilt(
        self, subject: Subject, to: Stage | None
    ) -> None:
        """What it could refuse, or would tell of, is fenced; that did nothing at all."""
        store = subject.store()
        await one(store, consume(OPEN, 1))
        if to is not None:
            await stage(subject, to)
        before = await subject.state()
        asked = [
            consume(STRICT, 1, "op"),
            check(STRICT),
            check(OPEN, 1),
            reserve(1, STRICT),  # type: ignore[arg-type]
            Operation(Mode.COMMIT, ACME, SHARD, detail=Settlement(HELD, ())),
            Operation(Mode.EXTEND, ACME, SHARD, detail=Extension(HELD, MINUTE_US, ())),
            consume(OPEN, 1, mode=Mode.REFUND, detail=Refund(EventId("e"), 1, 7)),
            consume(OPEN, 0, mode=Mode.RESET, event_count=0),
        ]
        assert await store.decide(asked) == [Fenced()] * len(asked)
        assert await subject.state() == before

    async def test_what_has_happened_counts_all_the_same(self, subject: Subject) -> None:
        """Usage, what no limit refuses, and what is held anew pass, and are counted when open."""
        store = subject.store()
        share_of = reserve(2, OPEN)  # type: ignore[arg-type]
        asked = [consume(STRICT, 3, "use", mode=Mode.RECORD), consume(OPEN, 4, "again"), share_of]
        outcomes = await store.decide(asked)
        assert all(decided(each).allowed for each in outcomes)
        await stage(subject, Stage.OPEN)
        assert used(await one(store, check(STRICT))) == [9]
        found = await store.reservation(ReservationKey(SHARD, ACME, HELD))
        assert found is not None
        portions = tuple(Portion(share, (1,), (1,)) for share in found.shares)
        commit = Operation(Mode.COMMIT, ACME, SHARD, detail=Settlement(HELD, portions))
        assert decided(await one(store, commit)).allowed
        assert used(await one(store, check(STRICT))) == [8]

    @pytest.mark.parametrize("to", [Stage.SEEN, Stage.FILLED])
    async def test_nothing_prepaid_is_used_before_its_grants_are_there(
        self, subject: Subject, to: Stage
    ) -> None:
        """What has happened waits too: it would be taken from nothing. Once SEEN it counts."""
        store = subject.store()
        used_up = [
            consume(PREPAID, 3, "use", mode=Mode.RECORD),
            consume(PREPAID, 3, "ungated"),
            reserve(3, PREPAID),  # type: ignore[arg-type]
        ]
        before = await subject.state()
        assert await store.decide(used_up) == [Fenced()] * len(used_up)
        assert await subject.state() == before
        given = Credit((Grant(1, 0, 0, AMOUNT_MAX, 10, 10),))
        granting = Operation(Mode.GRANT, ACME, SHARD, charges=charges(PREPAID, 0), detail=given)
        assert decided(await one(store, granting)).allowed
        await stage(subject, to)
        assert all(decided(each).allowed for each in await store.decide(used_up))
        await stage(subject, Stage.OPEN)
        assert used(await one(store, check(PREPAID))) == [9]

    async def test_what_is_known_of_the_new_epoch_is_settled_in_it(self, subject: Subject) -> None:
        """A reservation that was made again is resolved though the shard is shut."""
        store = subject.store()
        await one(store, reserve(2, OPEN))  # type: ignore[arg-type]
        found = await store.reservation(ReservationKey(SHARD, ACME, HELD))
        assert found is not None
        portions = tuple(Portion(share, (2,), (0,)) for share in found.shares)
        # The excess asks: that much of it has to wait.
        asks = Settlement(HELD, portions, excess_payload=b"x", excess_count=1)
        over = Operation(Mode.COMMIT, ACME, SHARD, charges=charges(STRICT, 1), detail=asks)
        assert await one(store, over) == Fenced()
        told = replace(over, detail=replace(asks, record_excess=True))
        assert decided(await one(store, told)).allowed

    async def test_a_missing_record_is_not_said_to_be_missing(self, subject: Subject) -> None:
        """What may have been lost is unavailable; once all is rebuilt, it is not there."""
        store = subject.store()
        asked = ReservationKey(SHARD, ACME, HELD)
        event = OperationKey(SHARD, ACME, OperationId("op"), EventId("op"))
        for read in (store.reservation(asked), store.recorded(event)):
            with pytest.raises(BackendUnavailable):
                await read
        await stage(subject, Stage.OPEN)
        assert await store.reservation(asked) is None
        assert await store.recorded(event) is None

    async def test_an_account_is_rebuilt_once(self, subject: Subject) -> None:
        """Units are added to what is there; a second time changes nothing and says so."""
        store = subject.store()
        await one(store, consume(OPEN, 2))
        first = decided(await one(store, rebuild(subject, 5)))
        second = decided(await one(store, rebuild(subject, 5)))
        assert (first.replayed, used(first)) == (False, [7])
        assert (second.replayed, used(second)) == (True, [7])
        await stage(subject, Stage.OPEN)
        assert decided(await one(store, consume(STRICT, 3))).allowed
        assert not decided(await one(store, consume(STRICT, 1))).allowed

    async def test_warnings_are_not_told_again(self, subject: Subject) -> None:
        """A threshold that is behind what was rebuilt was crossed in an older epoch."""
        store = subject.store()
        warned = [window(limit=10, warn_at_ppm=(500_000, 900_000))]
        bound = charges(warned, 0, at_us=subject.time.now_us)
        slots = (((bound[0].rule.starts_us, 6),),)  # type: ignore[union-attr]
        again = Operation(Mode.REBUILD, ACME, SHARD, charges=bound, detail=Rebuilt(slots))
        await one(store, again)
        assert await subject.crossings() == []
        await stage(subject, Stage.OPEN)
        await one(store, consume(warned, 1))
        assert await subject.crossings() == []
        await one(store, consume(warned, 2))
        assert [units for _, _, units in await subject.crossings()] == [9]

    async def test_numbers_that_are_lost_end_the_epoch(self, subject: Subject) -> None:
        """A shard that has forgotten a number decides nothing by what it has; none is reused."""
        store = subject.store()
        await stage(subject, Stage.OPEN)
        before = decided(await one(store, consume(STRICT, 1, "one")))
        await one(store, consume(STRICT, 1, "two"))
        await subject.forget("a", 1)
        assert await one(store, consume(STRICT, 1, "three")) == Fenced()
        after = decided(await one(store, consume(OPEN, 1, "four")))
        assert epoch_of(after.source_id) not in ("", epoch_of(before.source_id))
        assert (before.first_seq, after.first_seq) == (1, 1)
        await stage(subject, Stage.OPEN)
        assert used(await one(store, check(STRICT))) == [1]

    async def test_numbers_of_others_do_not_matter(self, subject: Subject) -> None:
        """Who has no number that is missing goes on; who has ends the epoch for all."""
        mine, other = subject.store("a"), subject.store("b")
        await stage(subject, Stage.OPEN)
        await one(mine, consume(STRICT, 1))
        await one(other, consume(STRICT, 1))
        await subject.forget("a", 0)
        assert used(await one(other, consume(STRICT, 1))) == [3]
        assert await one(mine, consume(STRICT, 1)) == Fenced()
        assert await one(other, consume(STRICT, 1)) == Fenced()

    async def test_a_number_that_is_known_from_before_counts(self, subject: Subject) -> None:
        """What a journal tells of an earlier process is as good as an own answer."""
        store = subject.store("a")
        await stage(subject, Stage.OPEN)
        given = decided(await one(store, consume(STRICT, 1)))
        restarted = subject.store("b")
        name = numbered_in(SourceId("b"), epoch_of(given.source_id))
        restarted.know(SHARD, name, 7)  # type: ignore[attr-defined]
        assert await one(restarted, consume(STRICT, 1)) == Fenced()

    async def test_an_epoch_that_was_left_is_not_taken_up_again(self, subject: Subject) -> None:
        """A copy from before the loss is a loss again."""
        store = subject.store()
        await stage(subject, Stage.OPEN)
        first = epoch_of(decided(await one(store, consume(STRICT, 1))).source_id)
        await subject.stages().renew(SHARD, first)
        assert await one(store, consume(STRICT, 1)) == Fenced()
        await subject.take_back(first)
        assert await one(store, consume(STRICT, 1)) == Fenced()
        assert (await subject.stages().epochs())[SHARD] != first

    async def test_decisions_say_who_made_them(self, subject: Subject) -> None:
        """A repeat's answer has the name, with its epoch, under which the first was accepted."""
        await stage(subject, Stage.OPEN)
        first = decided(await one(subject.store("a"), consume(STRICT, 1, "op")))
        again = decided(await one(subject.store("b"), consume(STRICT, 1, "op")))
        refused = decided(await one(subject.store("b"), consume(STRICT, 11)))
        assert first.source_id == again.source_id
        assert first.source_id.startswith("a.")
        assert refused.source_id.startswith("b.")
        assert gapless(await subject.accepted()) == {"a": 1}

    async def test_another_epoch_begins_with_empty_counters(self, subject: Subject) -> None:
        """Neither counters, records nor reservations of the one before are found."""
        store = subject.store()
        await stage(subject, Stage.OPEN)
        await store.decide([consume(STRICT, 9, "op"), reserve(1, STRICT)])  # type: ignore[arg-type]
        epoch = (await subject.stages().epochs())[SHARD]
        await subject.stages().renew(SHARD, epoch)
        await stage(subject, Stage.OPEN)
        again = await one(store, consume(STRICT, 9, "op"))
        assert isinstance(again, Decided)
        assert (again.replayed, used(again)) == (False, [9])
        assert await store.reservation(ReservationKey(SHARD, ACME, HELD)) is None


class TestFakeQuotaStore(FenceContract):
    """The fake."""

    @pytest.fixture
    def subject(self) -> Subject:
        """The fake, whose new epochs are shut."""
        made = FakeSubject(opens_new=False)
        made.store()
        return made


class TestRedisQuotaStore(FenceContract):
    """Each Redis."""

    @pytest.fixture
    async def subject(self, redis_url: str) -> AsyncIterator[Subject]:
        """Stores over an empty Redis, whose new epochs are shut."""
        made = RedisSubject(redis_url, opens_new=False)
        yield made
        for client in made.clients.values():
            await client.aclose()
