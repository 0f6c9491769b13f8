"""Bugs, planted one at a time: the oracle is worth something only if it finds them.

Owns what is broken, and how. Guarantees: each leaves all else as it is. Refuses to know who finds
it.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tallygate.domain.account import Accounts
from tallygate.domain.event import StreamEntry
from tallygate.domain.ids import EventId, TenantId
from tallygate.flow.relay import Relay
from tallygate.ports import Delivery, LedgerBatch, Persisted
from tallygate.testing.ledger import EventKey
from tests.sim.postgres import Database
from tests.sim.redis import SimUsageStream

Plant = Callable[[pytest.MonkeyPatch], None]


def acknowledged_when_read(patch: pytest.MonkeyPatch) -> None:
    """Acknowledge entries before they are stored."""
    read = SimUsageStream.read

    async def reading(self: SimUsageStream, count: int, block_ms: int) -> list[StreamEntry]:
        found = await read(self, count, block_ms)
        await self.acknowledge(found)
        return found

    patch.setattr(SimUsageStream, "read", reading)


def events_stored_twice(patch: pytest.MonkeyPatch) -> None:
    """Store an event that is there already once more."""
    persist = Database.persist

    def storing(self: Database, batch: LedgerBatch) -> Persisted:
        known = [
            event
            for event in batch.events
            if EventKey(TenantId(event.tenant_id), EventId(event.event_id)) in self.ledger.events
        ]
        stored = persist(self, batch)
        for number, event in enumerate(known):
            key = EventKey(TenantId(event.tenant_id), EventId(f"{event.event_id} {number}"))
            self.ledger.events[key] = event
        return stored

    patch.setattr(Database, "persist", storing)


def operations_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Remember no operation in Redis."""
    patch.setattr(Accounts, "_remembered", lambda self, operation, now_us: None)


def marked_before_sent(patch: pytest.MonkeyPatch) -> None:
    """Mark a message as delivered, then send it."""
    send = Relay._send

    async def sending(self: Relay, delivery: Delivery) -> Any:
        await self._outbox.delivered([delivery])
        return await send(self, delivery)

    patch.setattr(Relay, "_send", sending)


MUTATIONS: Final[dict[str, Plant]] = {
    "acknowledged when read": acknowledged_when_read,
    "events stored twice": events_stored_twice,
    "operations forgotten": operations_forgotten,
    "marked before sent": marked_before_sent,
}
