"""A gate, a breaker and a backlog over a store in memory, as the tests of outages have them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.domain.catalog import Limit
from tallygate.domain.decision import Operation
from tallygate.domain.entry import Record
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.breaker import Answer, Breaker, BreakerOptions
from tallygate.flow.fair import Part
from tallygate.flow.outage import Asked, OutageGate
from tallygate.gen.v1 import event_pb2
from tallygate.ports import QuotaStore
from tallygate.testing.quota import FakeQuotaStore
from tallygate.wiring.place import ALONE, Place
from tests.builders import catalog, now_us, tenant


@dataclass(slots=True)
class Told:
    """Keeps what the parts tell."""

    told: Counter[str] = field(default_factory=Counter)

    def turned(self, state: StrEnum) -> None:
        """Count it."""
        self.told[state.value] += 1

    def hung(self, operations: int) -> None:
        """Add them up."""
        self.told["hung"] += operations

    def granted_late(self, operations: int) -> None:
        """Add them up."""
        self.told["late"] += operations

    def degraded(self, action: str) -> None:
        """Count it."""
        self.told[action] += 1

    def resubmitted(self, outcome: str, operations: int) -> None:
        """Add them up."""
        self.told[outcome] += operations

    def accepted(self, events: int) -> None:
        """Add them up."""
        self.told["accepted"] += events

    def lost(self, operations: int) -> None:
        """Add them up."""
        self.told["lost"] += operations


class Ungathered:
    """Puts each part to a store at once, as a queue does that is always empty."""

    size_max = 256

    def __init__(self, store: QuotaStore) -> None:
        self._store = store
        self._sent: set[asyncio.Task[None]] = set()

    async def decide(self, operations: Sequence[Operation]) -> list[Answer]:
        """Pass on."""
        return await self._store.decide(operations)

    def submit(self, part: Part) -> None:
        """Send it by itself."""
        sent = asyncio.create_task(self._send(part))
        self._sent.add(sent)
        sent.add_done_callback(self._sent.discard)

    async def _send(self, part: Part) -> None:
        part.answered(await self._store.decide(part.operations))


class Sidecar:
    """What stands between calls and a store, without queue and transport."""

    def __init__(
        self,
        store: QuotaStore,
        limits: Sequence[Limit],
        *,
        operations_max: int = 1_000,
        bytes_max: int = 10_000_000,
        records_accepted: bool = True,
        place: Place = ALONE,
    ) -> None:
        self.told = Told()
        clock = SystemClock()
        options = BreakerOptions(hang_ms=200, failures_max=1)
        self.breaker = Breaker(store, clock, options, self.told)
        self.backlog = Backlog(
            BacklogParts(self.breaker, ProtobufEventDater(), clock, self.told),
            BacklogOptions(operations_max, bytes_max, batch_max=4),
        )
        self.gate = OutageGate(
            Ungathered(self.breaker),
            self.backlog,
            self.told,
            records_accepted=records_accepted,
            share_of=place.share_of,
        )
        self.catalog = catalog(*limits)

    async def ask(self, *operations: Operation, undurable: bool = True) -> list[Answer]:
        """Ask as admit does."""
        return await self.gate.decide(
            [
                Asked(each, self.catalog, (tenant(each.tenant_id),), undurable)
                for each in operations
            ],
            now_us(),
        )

    async def recover(self) -> None:
        """Find the store back, and hand everything over."""
        await self.breaker.probe()
        while (await self.backlog.run_once()).more:
            pass


def recorded(store: FakeQuotaStore, shard: int = 3) -> list[event_pb2.UsageEvent]:
    """Return the events of a shard's stream."""
    parts = [part for entry in store.accounts[shard].stream for part in entry.parts]
    return [
        event
        for part in parts
        if isinstance(part, Record)
        for event in event_pb2.UsageEventBatch.FromString(part.payload).events
    ]
