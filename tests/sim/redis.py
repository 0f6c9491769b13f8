"""Redis as the simulator has it: the specification of the script, streams, and loss of data.

Owns the state of the one Redis, and what its clients do when a call fails. Guarantees: a call of
the script is one step, stream entry included; what is read from the stream went through the real
codec. Refuses to know who asks.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.account import Accounts
from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.entry import Burned, Crossed, Entry, Part
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import SourceId, epoch_of
from tallygate.ports import OperationKey, Recorded, ReservationKey, ShardDepth
from tallygate.ports.epochs import Seen, ShardState, Stage
from tallygate.testing.epochs import FakeCounterStages, FakeSeenNumbers
from tallygate.testing.quota import FakeQuotaStore
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.sim.loop import SimClock
from tests.sim.wire import Reset, Server, at_once

T = TypeVar("T")

TIMEOUT_S: Final = 0.5
MEMORY_US: Final = 900_000_000


@dataclass(frozen=True, slots=True)
class Copy:
    """What a replica or a file has: the state as it was.

    The numbers in `given` and those of the accounts are the same objects.
    """

    accounts: dict[int, Accounts]
    streams: list[Any]
    accepted: dict[tuple[SourceId, int], int]
    epochs: dict[int, Any]
    given: dict[int, dict[SourceId, int]]
    seen: FakeSeenNumbers


class _Stages(FakeCounterStages):
    """Epochs that tell when one begins: what the one before knew is forgotten with it."""

    def __init__(self, shards: int, begun: Callable[[], None], *, opens_new: bool) -> None:
        super().__init__(shards, opens_new=opens_new)
        self._begun = begun

    def _begin(self, shard: int) -> None:
        super()._begin(shard)
        self._begun()


class RedisState:
    """All that the one Redis holds, and its clock."""

    def __init__(self, clock: SimClock, shards: int, *, opens_new: bool) -> None:
        self.clock = clock
        self.shards = shards
        self.accounts: dict[int, Accounts] = {}
        self.streams = FakeStreams(clock.now_us, shards)
        self.stages = _Stages(shards, self._forgotten, opens_new=opens_new)
        self.seen = FakeSeenNumbers()
        # What was ever given out, whatever Redis still knows of it.
        self.given_out: dict[tuple[SourceId, int], int] = {}
        # Numbers whose events come under others, by what sidecars ever said.
        self.handed_in: dict[tuple[SourceId, int], set[int]] = defaultdict(set)
        # When operations were forgotten.
        self.lost_us: list[int] = []

    def copy(self) -> Copy:
        """Return the state as a replica has it that hears nothing more."""
        streams, stages = self.streams, self.stages
        return copy.deepcopy(
            Copy(
                self.accounts,
                streams.shards,
                streams.accepted,
                stages._epochs,
                stages.given,
                self.seen,
            )
        )

    def become(self, other: Copy) -> None:
        """Have that state from now on, and no other."""
        found = copy.deepcopy(other)
        self.accounts.clear()
        self.accounts.update(found.accounts)
        self.streams.shards[:] = found.streams
        self.streams.accepted = found.accepted
        self.stages._epochs = found.epochs
        self.stages.given = found.given
        self.stages.restart()
        vars(self.seen).update(vars(found.seen))
        self._forgotten()

    def _forgotten(self) -> None:
        # By the world's clock, which no fault steps.
        self.lost_us.append(self.clock.now_us() - self.clock.ahead_us)

    def flush(self) -> None:
        """Lose everything."""
        empty = FakeStreams(self.streams.now_us, self.shards)
        self.become(Copy({}, empty.shards, {}, {}, defaultdict(dict), FakeSeenNumbers()))

    def publish(self) -> None:
        """Put into the streams what the script has appended."""
        for shard, accounts in self.accounts.items():
            for entry in accounts.stream:
                self.append(shard, fields_of(entry))
                lane = (entry.source_id, shard)
                last = accounts.sequences[entry.source_id]
                self.given_out[lane] = max(last, self.given_out.get(lane, 0))
            accounts.stream.clear()

    def append(self, shard: int, fields: dict[bytes, bytes]) -> None:
        """Append an entry to a shard's stream."""
        self.streams.add(decode_entry(shard, self._entry_id(), fields))

    def _entry_id(self) -> str:
        return f"{self.clock.now_us() // 1000}-0"


class SimQuotaStore:
    """The `QuotaStore` port over the network, as the adapter is: what broke is sent once more."""

    def __init__(self, server: Server, state: RedisState, source: SourceId) -> None:
        self._server = server
        self._state = state
        self._who = str(source)
        self.fake = FakeQuotaStore(
            state.clock.now_us, source_id=source, memory_us=MEMORY_US, stages=state.stages
        )
        self.fake.accounts = state.accounts

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Decide the operations of each shard in order."""

        def run() -> list[Outcome | TallygateError]:
            answers: list[Outcome | TallygateError] = at_once(self.fake.decide(operations))
            self._state.publish()
            return answers

        try:
            return await self._again(run)
        except BackendUnavailable as error:
            return [error for _ in operations]

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Return a reservation as it stands."""
        return await self._again(lambda: at_once(self.fake.reservation(key)))

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Return an event while its operation is remembered."""
        return await self._again(lambda: at_once(self.fake.recorded(key)))

    async def _again(self, what: Callable[[], T]) -> T:
        try:
            return await self._server.call(self._who, what, TIMEOUT_S)
        except Reset:
            return await self._server.call(self._who, what, TIMEOUT_S)


class SimUsageStream:
    """The `UsageStream` port over the network, for one consumer."""

    def __init__(self, server: Server, state: RedisState, consumer: str) -> None:
        self._server = server
        self._who = consumer
        self._fake = FakeUsageStream(state.streams, consumer)

    async def read(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Return up to `count` new entries; nothing waits in the server."""
        return await self._call(lambda: at_once(self._fake.read(count, block_ms)))

    async def claim(self, count: int, idle_ms: int) -> list[StreamEntry]:
        """Take over entries that others left."""
        return await self._call(lambda: at_once(self._fake.claim(count, idle_ms)))

    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Mark entries as stored."""
        await self._call(lambda: at_once(self._fake.acknowledge(entries)))

    async def depths(self) -> list[ShardDepth]:
        """Return the depth of every shard."""
        return await self._call(lambda: at_once(self._fake.depths()))

    async def accepted(self) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest number given out, per source and lane."""
        return await self._call(lambda: at_once(self._fake.accepted()))

    async def now_us(self) -> int:
        """Return Redis' time."""
        return await self._call(lambda: at_once(self._fake.now_us()))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)


class SimStages:
    """The `CounterStages` port over the network."""

    def __init__(self, server: Server, state: RedisState, who: str) -> None:
        self._server = server
        self._fake = state.stages
        self._who = who

    async def life(self) -> str:
        """Return what changes when Redis comes back with other data."""
        return await self._call(lambda: at_once(self._fake.life()))

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch of each shard."""
        return await self._call(lambda: at_once(self._fake.epochs()))

    async def states(self) -> Sequence[ShardState]:
        """Return the state of each shard."""
        return await self._call(lambda: at_once(self._fake.states()))

    async def renew(self, shard: int, epoch: str) -> str:
        """Give the shard a new epoch if its epoch is still the one named."""
        return await self._call(lambda: at_once(self._fake.renew(shard, epoch)))

    async def advance(self, shard: int, epoch: str, stage: Stage) -> bool:
        """Bring an epoch to a later stage."""
        return await self._call(lambda: at_once(self._fake.advance(shard, epoch, stage)))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)


class SimSeenNumbers:
    """The `SeenNumbers` port over the network."""

    def __init__(self, server: Server, state: RedisState, who: str) -> None:
        self._server = server
        self._state = state
        self._fake = state.seen
        self._who = who

    async def tell(self, seen: Sequence[Seen]) -> None:
        """Write what the ledger has."""
        await self._call(lambda: at_once(self._fake.tell(seen)))

    async def seen(self, asked: Sequence[tuple[SourceId, int]]) -> Sequence[Seen]:
        """Return what the ledger has of each source and shard."""
        return await self._call(lambda: at_once(self._fake.seen(asked)))

    async def hand_in(self, numbers: Sequence[Seen]) -> None:
        """Append to the streams which numbers come again."""

        def append() -> None:
            for each in numbers:
                fields = {b"s": each.source_id.encode(), b"e": epoch_of(each.source_id).encode()}
                fields |= {
                    b"r%d+%d" % (first, last - first + 1): b"" for first, last in each.ranges
                }
                self._state.append(each.shard, fields)
                again = self._state.handed_in[each.source_id, each.shard]
                again.update(*(range(first, last + 1) for first, last in each.ranges))

        await self._call(append)

    async def announce(self, shard: int, epoch: str, source_id: SourceId, *, done: bool) -> None:
        """Say who has, or has no more, to hand in."""
        await self._call(lambda: at_once(self._fake.announce(shard, epoch, source_id, done=done)))

    async def announced(self, shard: int, epoch: str) -> Mapping[SourceId, bool]:
        """Return who has announced itself to an epoch."""
        return await self._call(lambda: at_once(self._fake.announced(shard, epoch)))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)


def fields_of(entry: Entry) -> dict[bytes, bytes]:
    """Return an entry's fields as the script writes them."""
    epoch = epoch_of(entry.source_id)
    fields = {b"t": b"%d" % entry.at_us, b"s": entry.source_id.encode(), b"e": epoch.encode()}
    for number, part in enumerate(entry.parts):
        name, value = _field(number, part)
        fields[name] = value
    return fields


def _field(number: int, part: Part) -> tuple[bytes, bytes]:
    match part:
        case Crossed():
            numbers = (part.ratio_ppm, part.threshold, part.used, part.limit)
            values = (part.limit_id, part.meter, *numbers, part.starts_us, part.ends_us)
            text = ",".join(str(each) for each in (*values, part.account))
            return b"x%d" % number, text.encode()
        case Burned():
            text = f"{part.limit_id},{part.place},{part.units},{part.account}"
            return b"b%d" % number, text.encode()
        case _:
            numbered = b"%d+%d" % (part.first_seq, part.event_count)
            if part.reject_reason:
                return b"j" + numbered, part.reject_reason.encode() + b"|" + part.payload
            return b"u" + numbered, part.payload
