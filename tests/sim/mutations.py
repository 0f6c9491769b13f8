"""Bugs, planted one at a time: the oracle is worth something only if it finds them.

Owns what is broken, and how. Guarantees: each leaves all else as it is. Refuses to know who finds
it.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tallygate.domain import account, fence
from tallygate.domain.account import Accounts
from tallygate.domain.event import StreamEntry
from tallygate.domain.hold import Account
from tallygate.domain.ids import EventId, TenantId
from tallygate.flow.backlog import Backlog
from tallygate.flow.correct import APPLIED, Correct
from tallygate.flow.hand_in import HandIn
from tallygate.flow.relay import Relay
from tallygate.ports import Delivery, LedgerBatch, Persisted
from tallygate.testing.ledger import EventKey
from tests.sim.disk import File
from tests.sim.plan import Fault, Scope
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


def journal_not_synced(patch: pytest.MonkeyPatch) -> None:
    """Say that the journal is synced, without a sync."""
    patch.setattr(File, "sync", lambda self: None)


def journal_not_read(patch: pytest.MonkeyPatch) -> None:
    """Begin each life without what the last one has left in the journal."""
    patch.setattr(Backlog, "resume", _nothing)


async def _nothing(backlog: Backlog) -> list[Any]:
    return []


def fence_open(patch: pytest.MonkeyPatch) -> None:
    """Decide hard limits by counters that are not rebuilt yet."""
    patch.setattr(account, "is_fenced", lambda operation, **told: False)


def added_twice(patch: pytest.MonkeyPatch) -> None:
    """Add what older epochs had used a second time."""

    def rebuilding(of: Account, *told: Any) -> bool:
        if fence.rebuild(of, *told):
            of.rebuilt = False
        return fence.rebuild(of, *told)

    patch.setattr(account, "rebuild", rebuilding)


def not_handed_in(patch: pytest.MonkeyPatch) -> None:
    """Leave in the journal what a new epoch lacks."""

    async def handing_in(self: HandIn, *told: Any) -> int:
        return 0

    patch.setattr(HandIn, "_hand_in", handing_in)


def not_taken_back(patch: pytest.MonkeyPatch) -> None:
    """Finish corrections without giving them to the counters."""

    async def applying(self: Correct, going: Any, catalog: Any, outcomes: dict[int, str]) -> None:
        outcomes.update({each.number: APPLIED for each in going})

    patch.setattr(Correct, "_apply", applying)


def _of(*faults: Fault) -> Scope:
    """Return runs in which these faults come often: those that the bug is about."""
    return Scope(faults=faults, faults_max=8)


LOSING: Final = _of(Fault.REDIS_FLUSHED, Fault.REDIS_RESTORED, Fault.POSTGRES_DOWN)

MUTATIONS: Final[dict[str, tuple[Plant, Scope]]] = {
    "acknowledged when read": (
        acknowledged_when_read,
        _of(Fault.POSTGRES_LOSSY, Fault.POSTGRES_DOWN, Fault.INGESTER_KILLED),
    ),
    "events stored twice": (events_stored_twice, _of(Fault.POSTGRES_LOSSY)),
    "operations forgotten": (operations_forgotten, _of(Fault.REDIS_LOSSY)),
    "marked before sent": (
        marked_before_sent,
        _of(Fault.DESTINATION_FAILING, Fault.RELAY_KILLED),
    ),
    "journal not synced": (journal_not_synced, _of(Fault.REDIS_DOWN, Fault.POWER_LOST)),
    "journal not read": (journal_not_read, _of(Fault.REDIS_DOWN, Fault.SIDECAR_KILLED)),
    "fence open": (fence_open, LOSING),
    "added twice": (added_twice, LOSING),
    "not handed in": (not_handed_in, LOSING),
    "not taken back": (not_taken_back, LOSING),
}
