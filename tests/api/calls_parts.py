"""Batch methods over a store in memory, called as a transport calls them.

Guarantees: everything between the bytes of a call and the store is what is shipped.
Refuses to know: transports.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.api.calls import QUOTA, USAGE, methods_of
from tallygate.domain.catalog import Catalog, Tenant, default_tenant
from tallygate.domain.errors import CatalogNotLoaded
from tallygate.domain.ids import TenantId
from tallygate.flow.admit import Admit
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.durable import Durable
from tallygate.flow.gather import Gather
from tallygate.flow.outage import OutageGate
from tallygate.ports import QuotaStore
from tests.builders import SHARDS, CatalogInMemory
from tests.flow.lease_parts import LeaseTold

CHECK = f"{QUOTA}/CheckAndConsume"
CHECKS = f"{QUOTA}/BatchCheckAndConsume"
RECORD = f"{USAGE}/RecordUsage"
RECORDS = f"{USAGE}/BatchRecordUsage"
PATIENCE_S = 10.0


class HeldCatalog(CatalogInMemory):
    """A catalog all of whose tenants are in memory, the same objects each time."""

    def __init__(self, catalog: Catalog | None) -> None:
        super().__init__(catalog)
        self._held: dict[TenantId, tuple[Tenant, ...]] = {}

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the tenant on the default plan."""
        if self.catalog is None:
            raise CatalogNotLoaded
        if tenant_id not in self._held:
            found = default_tenant(self.catalog, tenant_id)
            assert found is not None
            self._held[tenant_id] = (found,)
        return self._held[tenant_id]


@dataclass(slots=True)
class Heard:
    """Keeps what calls are answered with, each of which may be answered once."""

    answers: dict[int, bytes | Exception] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def respond(self, call: int, reply: bytes) -> None:
        """Keep a reply."""
        self._keep(call, reply)

    def fail(self, call: int, error: Exception) -> None:
        """Keep an error."""
        self._keep(call, error)

    def waits(self, call: int) -> bool:
        """Say whether its caller has not gone."""
        return call not in self.gone and call not in self.answers

    async def all(self, count: int) -> list[bytes | Exception]:
        """Return the answers to so many calls, by their numbers, once they are there."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.answers) < count:
                self._changed.clear()
                await self._changed.wait()
        return [self.answers[number] for number in sorted(self.answers)]

    def _keep(self, call: int, answer: bytes | Exception) -> None:
        assert call not in self.answers, f"call {call} was answered twice"
        self.answers[call] = answer
        self.order.append(call)
        self._changed.set()


class Methods:
    """One sidecar's batch methods, and its flows."""

    def __init__(
        self,
        store: QuotaStore,
        view: CatalogInMemory,
        *,
        queue_max: int = 1_000,
        batch_max: int = 64,
        durable: Durable | None = None,
    ) -> None:
        clock, told = SystemClock(), LeaseTold()
        self.told: Counter[str] = told.told
        backlog = Backlog(
            BacklogParts(store, ProtobufEventDater(), clock, told), BacklogOptions(0, 0)
        )
        self.gather = Gather(store, clock, queue_max=queue_max, batch_max=batch_max)
        gate = OutageGate(self.gather, backlog, told)
        encoder = ProtobufEventEncoder()
        parts = DecideParts(view, gate, clock, encoder, told, SHARDS, durable)
        self.admit = Admit(Decide(parts))
        self._methods = methods_of(self.admit)

    def take(
        self, method: str, requests: Sequence[bytes], heard: Heard, time_s: float = PATIENCE_S
    ) -> None:
        """Hand calls over, numbered from 0, whose callers give up after `time_s`."""
        ends_at = asyncio.get_running_loop().time() + time_s
        calls = [(number, data, ends_at) for number, data in enumerate(requests)]
        self._methods[method](calls, heard)

    async def answers(self, method: str, requests: Sequence[bytes]) -> list[bytes | Exception]:
        """Hand calls over and return their answers in order."""
        heard = Heard()
        self.take(method, requests, heard)
        return await heard.all(len(requests))


@asynccontextmanager
async def gathering(methods: Methods) -> AsyncIterator[Methods]:
    """Run the queue of the methods."""
    running = asyncio.create_task(methods.gather.run())
    try:
        yield methods
    finally:
        methods.gather.close()
        await running
