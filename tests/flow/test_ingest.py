"""Ingest stores before it acknowledges, divides what cannot be stored, and loses nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.event import UNSTORABLE, StreamEntry
from tallygate.domain.ids import SourceId
from tallygate.flow.ingest import (
    Ingest,
    IngestOptions,
    IngestParts,
    IngestSnapshot,
)
from tallygate.flow.lag import IngestWatch, completeness
from tallygate.ports import Persisted, SourceProgress
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.usage_events import SOURCE, burn, crossing, entry, event, rejected, span


class CrashedAsPlanned(BaseException):
    """The process dies here; nothing may catch it."""


@dataclass(slots=True)
class World:
    """A stream, a ledger, a clock, and what was observed."""

    now_s: float = 1_000.0
    crash_after_commit: bool = False
    after_commit: Callable[[], None] | None = None
    seen: list[Persisted] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)
    snapshots: list[IngestSnapshot] = field(default_factory=list)
    streams: FakeStreams = field(init=False)
    ledger: FakeLedger = field(init=False)

    def __post_init__(self) -> None:
        self.streams = FakeStreams(self.now_us)
        self.ledger = FakeLedger(self._committed)

    def now_us(self) -> int:
        """Return the time of stream and clock alike."""
        return int(self.now_s * 1_000_000)

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.now_s

    def persisted(self, persisted: Persisted) -> None:
        """Keep it."""
        self.seen.append(persisted)

    def poisoned(self, detail: str) -> None:
        """Keep it."""
        self.poison.append(detail)

    def measured(self, snapshot: IngestSnapshot) -> None:
        """Keep it."""
        self.snapshots.append(snapshot)

    def parts(self, consumer: str = "a") -> IngestParts:
        """Return what an ingester of that name works with."""
        stream = FakeUsageStream(self.streams, consumer)
        return IngestParts(stream, self.ledger, ProtobufEventEncoder(), self, self)

    def ingest(self, consumer: str = "a", **options: int) -> Ingest:
        """Return an ingester."""
        return Ingest(self.parts(consumer), IngestOptions(**options))

    def waiting(self) -> int:
        """Return how many entries the ledger does not have."""
        return sum(len(shard.entries) for shard in self.streams.shards)

    def _committed(self) -> None:
        if self.crash_after_commit:
            raise CrashedAsPlanned
        if self.after_commit is not None:
            self.after_commit()

    def ledger_goes(self) -> None:
        """Have the ledger answer no more."""
        self.ledger.down = True


async def test_stores_and_acknowledges() -> None:
    """A run takes what is there; afterwards it is in the ledger and not in the stream."""
    world = World()
    for number in range(1, 8):
        world.streams.add(entry([event(number)], number % 2))
    counts = await world.ingest().run_once()
    assert (counts.entries, counts.persisted) == (7, Persisted(events=7))
    assert world.waiting() == 0
    assert [progress.gaps for progress in await world.ledger.progress()] == [()]


async def test_transactions_are_bounded() -> None:
    """Entries are stored a few at a time, and one that is larger than that by itself."""
    world = World()
    for numbers in ([1, 2], [3, 4], [5, 6, 7, 8, 9], [10]):
        world.streams.add(entry([event(number) for number in numbers]))
    await world.ingest(events_max=4).run_once()
    assert [each.events for each in world.seen] == [4, 5, 1]


async def test_burn_that_can_never_be_posted_is_kept_aside() -> None:
    """It becomes a dead letter that shows it; the events and burns beside it are stored."""
    world = World()
    burns = (burn(0), burn(1, limit_id="nul\x00"), burn(2))
    world.streams.add(replace(entry([event(1), event(2)]), burns=burns))
    counts = await world.ingest().run_once()
    assert (counts.persisted.events, counts.persisted.burns, counts.poisoned) == (2, 2, 1)
    (letter,) = world.ledger.dead_letters.values()
    assert (letter.reason, letter.tenant_id) == (UNSTORABLE, "acme")
    assert "burn of a balance" in letter.detail
    assert b"credits" not in letter.payload
    assert b"BalanceBurn" in letter.payload
    assert world.waiting() == 0


async def test_ledger_away_keeps_entries_for_the_next_run() -> None:
    """What was read and not stored comes first when the ledger is back, and exactly once."""
    world = World()
    ingest = world.ingest(claim_idle_ms=0)
    world.streams.add(entry([event(1)]))
    world.ledger.down = True
    for _ in range(3):
        with pytest.raises(BackendUnavailable):
            await ingest.run_once()
    world.ledger.down = False
    assert (await ingest.run_once()).persisted == Persisted(events=1)
    assert world.waiting() == 0


async def test_crash_between_commit_and_acknowledgement_changes_nothing() -> None:
    """The next ingester takes the entries over, finds them stored, and acknowledges them."""
    world = World()
    for number in range(1, 4):
        world.streams.add(entry([event(number, amount=number)]))
    world.crash_after_commit = True
    with pytest.raises(CrashedAsPlanned):
        await world.ingest("dies").run_once()
    world.crash_after_commit = False
    heir = world.ingest("heir", claim_idle_ms=60_000)
    assert (await heir.run_once()).entries == 0
    world.now_s += 61
    counts = await heir.run_once()
    assert (counts.claimed, counts.persisted) == (3, Persisted(duplicates=3))
    assert world.waiting() == 0
    assert sum(stored.amount for stored in world.ledger.events.values()) == 6


async def test_duplicate_delivery_is_counted_and_changes_nothing() -> None:
    """The same events in other entries are duplicates."""
    world = World()
    for _ in range(3):
        world.streams.add(entry([event(1), event(2)]))
    counts = await world.ingest().run_once()
    assert counts.persisted == Persisted(events=2, duplicates=4)


@pytest.mark.parametrize("place", range(7))
async def test_poison_is_isolated(place: int) -> None:
    """One event that can never be stored becomes a dead letter; its neighbours are stored."""
    world = World()
    events = [event(number) for number in range(1, 8)]
    events[place] = event(place + 1, event_id="bad\x00id")
    world.streams.add(entry(events[:3]))
    world.streams.add(entry(events[3:]))
    counts = await world.ingest().run_once()
    assert (counts.poisoned, counts.persisted) == (1, Persisted(events=6, rejected=1))
    assert world.waiting() == 0
    assert world.poison == ["text"]
    (letter,) = world.ledger.dead_letters.values()
    assert (letter.reason, letter.source_seq) == (UNSTORABLE, place + 1)
    assert letter.event_id == "bad\\x00id"
    assert b"bad\x00id" in letter.payload
    (progress,) = await world.ledger.progress()
    assert (progress.seen, progress.gaps) == (7, ())


async def test_everything_may_be_poison() -> None:
    """Events, crossings and rejected events that cannot be stored are all kept as dead letters."""
    world = World()
    world.streams.add(
        StreamEntry(
            shard=0,
            entry_id="",
            received_at_us=1,
            events=(event(1, metadata_json="{", received_at_us=2**70), event(2, amount=2**70)),
            crossings=(crossing(meter="\x00"), crossing(1_000_000)),
            rejected=(rejected(3, tenant_id="\ud800"), rejected(4)),
            ranges=(span(1, 4),),
        )
    )
    counts = await world.ingest().run_once()
    assert counts.poisoned == 4
    assert counts.persisted == Persisted(rejected=5, crossings=1)
    assert world.waiting() == 0
    assert {letter.received_at_us for letter in world.ledger.dead_letters.values()} >= {0}


async def test_numbers_are_marked_with_the_last_part() -> None:
    """A crash while a batch is divided leaves its numbers unmarked, so no gap is hidden."""
    world = World()
    world.streams.add(entry([event(1), event(2), event(3, event_id="\x00")]))
    world.crash_after_commit = True
    with pytest.raises(CrashedAsPlanned):
        await world.ingest().run_once()
    assert len(world.ledger.events) > 0
    assert await world.ledger.progress() == []


async def test_what_is_read_ahead_outlasts_a_failure() -> None:
    """While the ledger is asked more is read; when it fails, all of it comes first next time."""
    world = World()
    for number in range(1, 201):
        world.streams.add(entry([event(number)]))
    ingest = world.ingest(entries_max=64, events_max=10)
    world.ledger.down = True
    with pytest.raises(BackendUnavailable):
        await ingest.run_once()
    assert len(world.streams.shards[0].pending) > 64
    world.ledger.down = False
    counts = await ingest.run_once()
    assert (counts.entries, world.waiting()) == (200, 0)
    assert [stored.source_seq for stored in world.ledger.events.values()] == [*range(1, 201)]


async def test_what_is_stored_is_acknowledged_though_the_next_fails() -> None:
    """The second transaction's failure does not have the first one's entries stored again."""
    world = World()
    for number in range(1, 21):
        world.streams.add(entry([event(number)]))
    ingest = world.ingest(events_max=10)
    world.after_commit = world.ledger_goes
    with pytest.raises(BackendUnavailable):
        await ingest.run_once()
    assert (len(world.ledger.events), world.waiting()) == (10, 10)
    world.after_commit, world.ledger.down = None, False
    assert (await ingest.run_once()).persisted == Persisted(events=10)


async def test_a_run_comes_to_an_end() -> None:
    """It reads so many times at most, whatever there is, so that a stop is heard."""
    world = World()
    for number in range(1, 31):
        world.streams.add(entry([event(number)]))
    counts = await world.ingest(entries_max=5, events_max=5, reads_max=3).run_once()
    assert (counts.entries, world.waiting()) == (15, 15)


async def test_two_ingesters_share_the_work() -> None:
    """Each entry is stored by one of them, and nothing is stored twice."""
    world = World()
    for number in range(1, 11):
        world.streams.add(entry([event(number)], number % 2))
    first = await world.ingest("a", entries_max=4, reads_max=1).run_once()
    second = await world.ingest("b", entries_max=100).run_once()
    assert (first.persisted.events, second.persisted.events) == (4, 6)
    assert world.waiting() == 0


async def test_taking_over_is_asked_now_and_then() -> None:
    """Between two looks for what others left, only new entries are asked for."""
    world = World()
    ingest = world.ingest("heir", claim_idle_ms=0, claim_every_ms=5_000)
    await ingest.run_once()
    world.streams.add(entry([event(1)]))
    await FakeUsageStream(world.streams, "dies").read(1, 0)
    assert (await ingest.run_once()).claimed == 0
    world.now_s += 6
    assert (await ingest.run_once()).claimed == 1


async def test_watch_measures_lag_and_completeness() -> None:
    """Lag is the age of the oldest entry not stored; completeness falls and comes back to 1."""
    world = World()
    watch = IngestWatch(world.parts("watch"))
    await watch.run_once()
    world.streams.add(entry([event(1)]))
    await world.ingest().run_once()
    world.streams.add(entry([event(2), event(3)]))
    world.now_s += 12.5
    assert not (await watch.run_once()).more
    await world.ingest("b").run_once()
    await watch.run_once()
    shown = [(each.lag_s, round(each.completeness, 3), each.gaps) for each in world.snapshots]
    assert shown == [(0.0, 1.0, 0), (12.5, 0.333, 0), (0.0, 1.0, 0)]


async def test_watch_shows_lag_while_the_ledger_is_away() -> None:
    """The error is raised after the lag was told, with the progress known last."""
    world = World()
    watch = IngestWatch(world.parts("watch"))
    world.streams.add(entry([event(1)]))
    await world.ingest().run_once()
    await watch.run_once()
    world.streams.add(entry([event(2)]))
    world.ledger.down = True
    world.now_s += 60
    with pytest.raises(BackendUnavailable):
        await watch.run_once()
    assert (world.snapshots[-1].lag_s, world.snapshots[-1].completeness) == (60.0, 0.5)


def test_completeness_never_passes_one() -> None:
    """A source that the stream has forgotten counts on neither side."""
    progress = [
        SourceProgress(SOURCE, 0, 9, 9, 9),
        SourceProgress(SourceId("forgotten"), 0, 99, 99, 99),
    ]
    assert completeness({}, progress) == 1.0
    assert completeness({(SOURCE, 0): 3}, progress) == 1.0
    assert completeness({(SOURCE, 0): 9, (SOURCE, 1): 9}, progress) == 0.5
