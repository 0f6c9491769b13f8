"""The drainer hands usage on once, keeps what is refused, and waits for who is away."""

from tallygate.domain.captured import CaptureBacklog, CapturedUse
from tallygate.domain.recording import Later, Refused
from tallygate.flow.capture import LEASE_MS, CaptureCounts, DrainCapture, backoff_ms
from tallygate.testing.capture import FakeCaptureOutbox, FakeRecorder


class World:
    """A drainer between fakes, hearing of itself."""

    def __init__(self) -> None:
        self.now_us = 1_700_000_000_000_000
        self.outbox = FakeCaptureOutbox(lambda: self.now_us)
        self.recorder = FakeRecorder()
        self.drain = DrainCapture(self.outbox, self.recorder, self)
        self.told = CaptureCounts()
        self.backlog = CaptureBacklog()

    def drained(self, counts: CaptureCounts) -> None:
        """Hear of a run."""
        self.told = counts

    def measured(self, backlog: CaptureBacklog) -> None:
        """Hear of the outbox."""
        self.backlog = backlog

    async def run(self) -> CaptureCounts:
        """Run once."""
        return await self.drain.run_once()


async def test_usage_is_handed_on_with_its_own_id_and_time() -> None:
    """What is recorded is what the row says; the row is gone afterwards."""
    world = World()
    event_id = world.outbox.put("acme", "rows", 3)
    counts = await world.run()
    use = world.recorder.known[event_id]
    assert (use.tenant_id, use.meter, use.amount) == ("acme", "rows", 3)
    assert use.time_us == world.now_us
    assert counts == world.told == CaptureCounts(accepted=1)
    await world.drain.measure()
    assert world.backlog.waiting == 0


async def test_usage_that_was_sent_and_not_marked_is_known() -> None:
    """A drainer that died after the send leaves a row whose repeat adds nothing."""
    world = World()
    world.outbox.put("acme", "rows", 3)
    claimed = await world.outbox.claim(10, LEASE_MS)
    await world.recorder.record([each.use() for each in claimed.uses])
    assert await world.run() == CaptureCounts()
    world.now_us += LEASE_MS * 1_000
    assert await world.run() == CaptureCounts(accepted=1, replayed=1)
    assert len(world.recorder.known) == 1


async def test_one_refused_row_holds_no_other_up() -> None:
    """What is refused for good is kept with its reason, and its neighbours go on."""
    world = World()
    world.recorder.answers["nobody"] = Refused("UNKNOWN_METER", "the catalog has none")
    world.outbox.put("acme", "nobody", 1)
    world.outbox.put("acme", "rows", 1)
    assert await world.run() == CaptureCounts(accepted=1, refused=1)
    ((use, refused),) = world.outbox.rejected.values()
    assert (use.meter, refused.reason) == ("nobody", "UNKNOWN_METER")


async def test_who_is_away_is_waited_for_longer_and_longer() -> None:
    """Rows that cannot be taken now come due later, up to a minute apart, and are then taken."""
    world = World()
    world.recorder.answers["rows"] = Later("UNAVAILABLE", "nobody answers", 1)
    world.outbox.put("acme", "rows", 1)
    counts = await world.run()
    assert counts.later == 1
    assert not counts.more
    assert await world.run() == CaptureCounts()
    world.now_us += backoff_ms(1) * 1_000
    assert (await world.run()).later == 1
    assert [backoff_ms(each) for each in (1, 2, 40)] == [500, 1_000, 60_000]
    world.recorder.answers.clear()
    world.now_us += 60_000_000
    assert (await world.run()).accepted == 1


async def test_one_row_asks_for_all_while_nobody_answers() -> None:
    """A long outbox is not written anew at each look; once a row is taken, all follow at once."""
    world = World()
    world.recorder.answers["rows"] = Later("UNAVAILABLE", "nobody answers", 1)
    for _ in range(600):
        world.outbox.put("acme", "rows", 1)
    assert (await world.run()).later == 500
    assert (await world.run()).later == 1
    world.recorder.answers.clear()
    counts = await world.run()
    assert (counts.accepted, counts.more) == (1, True)
    assert (await world.run()).accepted == 98
    world.now_us += 60_000_000
    assert (await world.run()).accepted == 500


async def test_a_level_of_nothing_is_a_unit_taken_back() -> None:
    """It is recorded and refunded; where the refund is too early, both come again."""
    world = World()
    event_id = world.outbox.put("acme", "storage", 0)
    world.recorder.answers[f"{event_id}.back"] = Refused("EVENT_NOT_FOUND", "not known yet")
    assert (await world.run()).later == 1
    assert world.recorder.known[event_id].amount == 1
    del world.recorder.answers[f"{event_id}.back"]
    world.now_us += 60_000_000
    assert await world.run() == CaptureCounts(accepted=1, replayed=1, asked=True)
    assert world.recorder.taken_back == [event_id]


async def test_a_full_list_is_followed_by_another_at_once() -> None:
    """As long as there is as much as one call takes, nobody waits."""
    world = World()
    for _ in range(501):
        world.outbox.put("acme", "rows", 1)
    assert (await world.run()).more
    assert not (await world.run()).more
    assert [len(call) for call in world.recorder.calls] == [500, 1]


def test_a_use_says_what_its_row_does() -> None:
    """A level of nothing asks for one unit, all others for their own."""
    row = CapturedUse(1, "e", "acme", "rows", 7, 5, {"kind": "note"})
    assert row.use().amount == 7
    assert CapturedUse(1, "e", "acme", "rows", 0, 5).use().amount == 1
