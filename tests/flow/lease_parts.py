"""A sidecar with leases over a store that counts its calls, its loop run by hand.

Guarantees: time is the test's, for the store and for the sidecar.
Refuses to know: transports.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.domain.account import Accounts
from tallygate.domain.catalog import Catalog, Limit, Tenant, default_tenant
from tallygate.domain.decision import Operation, Outcome, Reservation
from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.ids import OperationId, TenantId
from tallygate.domain.request import ConsumeRequest, ConsumeResult, Durability, Item
from tallygate.flow.admit import Admit
from tallygate.flow.backlog import Backlog, BacklogOptions, BacklogParts
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.durable import Durable
from tallygate.flow.lease import LeaseOptions, LeaseParts, Leases
from tallygate.flow.outage import OutageGate
from tallygate.gen.v1 import event_pb2
from tallygate.ports import OperationKey, Recorded, ReservationKey
from tallygate.ports.journal import Journal
from tallygate.testing.quota import FakeQuotaStore
from tests.builders import ACME, REQUESTS, SHARDS, CatalogInMemory, catalog, now_us
from tests.flow.outage_parts import Told, Ungathered

STEP_US = 1_000


@dataclass(slots=True)
class Time:
    """The one time of a test: the store's, and the sidecar's clocks."""

    us: int = field(default_factory=now_us)

    def now_us(self) -> int:
        """Return it as wall-clock time."""
        return self.us

    def monotonic(self) -> float:
        """Return it as loop time."""
        return self.us / 1e6


class LeaseTold(Told):
    """Keeps what leases tell, too."""

    def leased(self, outcome: str) -> None:
        """Count it."""
        self.told[outcome] += 1

    def granted(self, calls: int) -> None:
        """Count them, as allowed, too."""
        self.told["granted"] += calls
        self.told["allowed"] += calls

    def settled(self, outcome: str, grants: int) -> None:
        """Add them up."""
        self.told[outcome] += grants

    def decided(self, outcome: str) -> None:
        """Count it."""
        self.told[outcome] += 1


class CountingStore:
    """A store that counts what it is asked, and answers nothing while it is cut off.

    While `deaf` it does what it is asked and its answers are lost.
    """

    def __init__(self, inner: FakeQuotaStore) -> None:
        self.inner = inner
        self.calls = 0
        self.asked: Counter[str] = Counter()
        self.deaf = False

    async def decide(self, operations: Sequence[Operation]) -> list[Outcome | TallygateError]:
        """Count and pass on."""
        self.calls += 1
        self.asked.update(operation.mode.name for operation in operations)
        answers = await self.inner.decide(operations)
        return [BackendUnavailable() for _ in operations] if self.deaf else answers

    async def reservation(self, key: ReservationKey) -> Reservation | None:
        """Pass on."""
        return await self.inner.reservation(key)

    async def recorded(self, key: OperationKey) -> Recorded | None:
        """Pass on."""
        return await self.inner.recorded(key)


class CatalogHeld(CatalogInMemory):
    """A catalog that has every tenant at hand."""

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return the tenant, which has nobody above it."""
        return (self.tenants.get(tenant_id) or default_of(self.current(), tenant_id),)


def default_of(catalog: Catalog, tenant_id: TenantId) -> Tenant:
    """Return a tenant that is not declared."""
    found = default_tenant(catalog, tenant_id)
    assert found is not None
    return found


class Leasing:
    """One sidecar; several may share a store and a time."""

    def __init__(
        self,
        *limits: Limit,
        inner: FakeQuotaStore | None = None,
        time: Time | None = None,
        options: LeaseOptions | None = None,
        journal: Journal | None = None,
        view: type[CatalogInMemory] = CatalogInMemory,
    ) -> None:
        self.time = time or Time()
        self.inner = inner or FakeQuotaStore(self.time.now_us)
        self.store = CountingStore(self.inner)
        self.view = view(catalog(*limits))
        told = LeaseTold()
        self.told = told.told
        backlog = Backlog(
            BacklogParts(self.store, ProtobufEventDater(), self.time, told),
            BacklogOptions(0, 0),
        )
        gate = OutageGate(Ungathered(self.store), backlog, told)
        encoder = ProtobufEventEncoder()
        durable = Durable(journal)
        decide = Decide(DecideParts(self.view, gate, self.time, encoder, told, SHARDS, durable))
        self.leases = Leases(
            LeaseParts(decide, self.store, self.time, ProtobufEventDater(), told, told, journal),
            options or LeaseOptions(),
        )
        self.admit = Admit(decide, self.leases)
        self._numbers = 0
        self.prefix = f"call-{id(self)}"

    async def call(
        self,
        name: str | None = None,
        amount: int = 1,
        tenant: TenantId = ACME,
        least: Durability = Durability.UNSPECIFIED,
    ) -> ConsumeResult:
        """Ask for some requests; the answer has to be a decision."""
        (result,) = await self.admit.consume([self.request(name, amount, tenant, least)])
        assert isinstance(result, ConsumeResult), result
        return result

    def request(
        self,
        name: str | None = None,
        amount: int = 1,
        tenant: TenantId = ACME,
        least: Durability = Durability.UNSPECIFIED,
    ) -> ConsumeRequest:
        """Return a request; without a name it is another one each time."""
        self._numbers += 1
        operation_id = OperationId(name or f"{self.prefix}-{self._numbers}")
        item = Item(REQUESTS, amount)
        return ConsumeRequest(tenant, (item,), operation_id, min_durability=least)

    async def calls(self, count: int, step_us: int = STEP_US) -> list[ConsumeResult]:
        """Ask so often, with time passing in between and the loop's step every 20 ms."""
        results: list[ConsumeResult] = []
        for number in range(count):
            results.append(await self.call())
            self.time.us += step_us
            if number % max(1, 20_000 // step_us) == 0:
                await self.leases.run_once()
        return results

    async def heat(self) -> None:
        """Call until a lease of some size is there, with something left."""
        for _ in range(200):
            await self.calls(20)
            if (await self.call()).decision.leased:
                return
        raise AssertionError(f"never leased: {self.told}")

    def spare(self) -> int:
        """Return how many units may be granted from one lease."""
        some = [lease for hot in self.leases.hot() for lease in hot.leases if lease.usable]
        return max((min(lease.left) for lease in some), default=0)

    async def close(self) -> None:
        """End as a process does that is stopped in good order."""

        async def probe() -> None:
            """Find the store, which is there."""

        await self.leases.close(1.0, probe)

    async def settle(self) -> None:
        """Run the loop's step."""
        await self.leases.run_once()

    @property
    def accounts(self) -> Accounts:
        """Return the shard that is in use."""
        (found,) = [each for each in self.inner.accounts.values() if each.accounts]
        return found

    def counted(self, field_name: str = "monthly/month") -> int:
        """Return what a counter of acme's holds, with what is held of it."""
        state = self.accounts.accounts[next(iter(self.accounts.accounts))].counters[field_name]
        return int(getattr(state, "amount", 0) or getattr(state, "total", 0))


def recorded_events(inner: FakeQuotaStore) -> list[event_pb2.UsageEvent]:
    """Return the events of all streams, each once as the ledger has them."""
    events = [
        event
        for accounts in inner.accounts.values()
        for entry in accounts.stream
        for record in entry.records
        for event in event_pb2.UsageEventBatch.FromString(record.payload).events
    ]
    return list({event.event_id: event for event in events}.values())


def used_by(results: Sequence[ConsumeResult]) -> int:
    """Return how many calls were granted."""
    return sum(1 for result in results if result.decision.allowed)
