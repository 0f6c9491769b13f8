"""What every `QuotaStore` promises of calls whose ids the service made on one stem."""

from dataclasses import replace

from tallygate.domain.decision import Decided, Known, Mode, Operation, Reused
from tallygate.domain.detail import Given, Late
from tallygate.domain.ids import OperationId
from tallygate.domain.made import STEM_DIGITS, made_ids, stem_of_digits
from tests.builders import ACME, consume, decided, payload, window
from tests.quota_subjects import SHARD, OverFake, OverRedis, Subject
from tests.reservations import event_key

LIMITS = [window(limit=10)]
STEM = stem_of_digits("b" * STEM_DIGITS)
FIRST, SECOND, THIRD, FOURTH = made_ids(STEM, 0, 4)


def events(of: OperationId) -> bytes:
    """Return the events of a call."""
    return payload(f"{of}:0", 1)


def settled(stem: str = STEM) -> Operation:
    """Return what records three calls, granted before, of one content."""
    ids = (FIRST, SECOND, THIRD)
    given = Given(ids, ("print",) * 3, 1, len(events(FIRST)), stem)
    return Operation(
        Mode.LATE,
        ACME,
        SHARD,
        operation_id=OperationId(f"settle-{stem}"),
        event_count=3,
        payload=b"".join(map(events, ids)),
        detail=Late((given,)),
    )


def repeat(of: OperationId, fingerprint: str = "print") -> Operation:
    """Return such a call as it comes to be decided."""
    return replace(consume(LIMITS, 1, of, payload=events(of)), fingerprint=fingerprint)


class StemContract:
    """Calls recorded as one; each subclass has a `subject` to ask."""

    async def test_each_call_of_a_stem_is_known(self, subject: Subject) -> None:
        """A repeat, anywhere, gets its own first answer; other content, or place, is another."""
        [one] = await subject.store().decide([settled()])
        store = subject.store("b")
        first, third, other, beyond = await store.decide(
            [repeat(FIRST), repeat(THIRD), repeat(SECOND, "else"), repeat(FOURTH)]
        )
        seq = decided(one).first_seq
        assert [decided(each).first_seq for each in (first, third)] == [seq, seq + 2]
        assert decided(first).replayed
        assert decided(third).replayed
        assert decided(first).source_id == decided(one).source_id
        assert other == Reused()
        assert not decided(beyond).replayed

    async def test_events_of_each_call_are_found(self, subject: Subject) -> None:
        """A refund finds what a call of a stem has recorded, and nothing for any other."""
        store = subject.store()
        await store.decide([settled()])
        for of in (FIRST, THIRD):
            known = await store.recorded(event_key(f"{of}:0", of))
            assert known is not None
            assert known.payload == events(of)
        assert await store.recorded(event_key(f"{FOURTH}:0", FOURTH)) is None

    async def test_met_calls_are_told_apart(self, subject: Subject) -> None:
        """Where one was decided elsewhere before, nothing is done until each is looked for."""
        store = subject.store()
        await store.decide([repeat(SECOND)])
        accepted = await subject.accepted()
        assert await store.decide([settled()]) == [Known(((0, "t"),))]
        assert await store.decide([settled(stem="")]) == [Known(((1, "p"),))]
        assert await subject.accepted() == accepted

    async def test_met_in_the_same_call(self, subject: Subject) -> None:
        """What comes together is seen as if it had come one after the other."""
        store = subject.store()
        one, other = await store.decide([repeat(SECOND), settled()])
        assert isinstance(one, Decided)
        assert other == Known(((0, "t"),))
        whole = stem_of_digits("c" * STEM_DIGITS)
        ids = tuple(made_ids(whole, 0, 3))
        given = Given(ids, ("print",) * 3, 1, len(events(ids[0])), whole)
        settling = replace(settled(), operation_id=OperationId("other"), detail=Late((given,)))
        _, again = await store.decide([settling, repeat(ids[1])])
        assert decided(again).replayed

    async def test_a_stem_alone_names_nothing(self, subject: Subject) -> None:
        """A caller's id that reads as a stem, or as its key, is an id like any other."""
        store = subject.store()
        await store.decide([settled()])
        [own] = await store.decide([repeat(OperationId(STEM))])
        assert not decided(own).replayed


class TestFakeStems(OverFake, StemContract):
    """The fake keeps them."""


class TestRedisStems(OverRedis, StemContract):
    """Redis keeps them."""
