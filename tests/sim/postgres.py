"""Postgres as the simulator has it: the ledger, its outbox, and transactions of unknown result.

Owns the one database. Guarantees: a transaction is committed whole or not at all; messages are
written in the transaction that stores their events. Refuses to know who asks.
"""

import json
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from tallygate.ports import Delivery, LedgerBatch, OutboxDepth, Persisted, SourceProgress
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.outbox import FakeOutbox, Row
from tallygate.testing.rebuild import FakeCorrections, FakeRebuildLedger
from tallygate.testing.recount import FakeUsageSnapshots
from tests.sim.loop import SimClock
from tests.sim.wire import Server, at_once

T = TypeVar("T")

TIMEOUT_S: Final = 2.0
USAGE: Final = "usage.batch"


class Database:
    """The ledger and the outbox, and the destinations that want every event."""

    def __init__(self, clock: SimClock, destinations: Sequence[str]) -> None:
        self.ledger = FakeLedger()
        self.outbox = FakeOutbox(clock.now_us)
        self.rebuilding = FakeRebuildLedger(FakeUsageSnapshots(self.ledger), clock.now_us)
        self.corrections = FakeCorrections(self.ledger, clock.now_us)
        self._clock = clock
        self._destinations = destinations
        self._messages = 0

    def persist(self, batch: LedgerBatch) -> Persisted:
        """Commit a batch with its messages."""
        before = len(self.ledger.events)
        stored: Persisted = at_once(self.ledger.persist(batch))
        fresh = list(self.ledger.events)[before:]
        if fresh:
            self._messages += 1
            payload = json.dumps([[key.tenant_id, key.event_id] for key in fresh]).encode()
            for destination in self._destinations:
                self._put(destination, f"message-{self._messages}", payload)
        return stored

    def _put(self, destination: str, message_id: str, payload: bytes) -> None:
        now_us = self._clock.now_us()
        self.outbox.rows.append(Row(message_id, destination, USAGE, payload, now_us, now_us))


class SimLedger:
    """The `Ledger` port over the network."""

    def __init__(self, server: Server, database: Database, who: str) -> None:
        self._server = server
        self._database = database
        self._who = who

    async def persist(self, batch: LedgerBatch) -> Persisted:
        """Store the batch whole, or raise: then it may be stored or not."""
        return await self._call(lambda: self._database.persist(batch))

    async def progress(self) -> list[SourceProgress]:
        """Return the progress of every source's lane."""
        return await self._call(lambda: at_once(self._database.ledger.progress()))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)


class SimOutbox:
    """The `Outbox` port over the network."""

    def __init__(self, server: Server, database: Database, who: str) -> None:
        self._server = server
        self._outbox = database.outbox
        self._who = who

    async def claim(self, destination: str, count: int, lease_ms: int) -> list[Delivery]:
        """Lease deliveries that are due."""
        return await self._call(lambda: at_once(self._outbox.claim(destination, count, lease_ms)))

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Mark as delivered those still ours."""
        return await self._call(lambda: at_once(self._outbox.delivered(deliveries)))

    async def retry(self, delivery: Delivery, delay_ms: int, reason: str) -> bool:
        """Give back for another try."""
        return await self._call(lambda: at_once(self._outbox.retry(delivery, delay_ms, reason)))

    async def park(self, delivery: Delivery, reason: str) -> bool:
        """Set aside for a person."""
        return await self._call(lambda: at_once(self._outbox.park(delivery, reason)))

    async def depths(self) -> list[OutboxDepth]:
        """Return the depth of every destination."""
        return await self._call(lambda: at_once(self._outbox.depths()))

    async def _call(self, what: Callable[[], T]) -> T:
        return await self._server.call(self._who, what, TIMEOUT_S)
