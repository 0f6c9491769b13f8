"""The seams between the flow and the world: small Protocols, each with one conformance suite.

Guarantees: what stands here is all that `flow/` knows of stores, streams, clocks and destinations.
Every port has a fake in `testing/` that passes the same tests as the real adapters.
Refuses to know: Redis, Postgres, HTTP, gRPC.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tallygate.domain.catalog import Catalog, Destination, Tenant
from tallygate.domain.event import StreamEntry, UsageEvent
from tallygate.domain.ids import EventId, MeterName, OperationId, PlanName, SourceId, TenantId
from tallygate.ports.ledger import Ledger as Ledger
from tallygate.ports.ledger import LedgerBatch as LedgerBatch
from tallygate.ports.ledger import Persisted as Persisted
from tallygate.ports.ledger import SourceProgress as SourceProgress
from tallygate.ports.ledger import UnstorableBatch as UnstorableBatch
from tallygate.ports.quota import OperationKey as OperationKey
from tallygate.ports.quota import QuotaStore as QuotaStore
from tallygate.ports.quota import Recorded as Recorded
from tallygate.ports.quota import ReservationKey as ReservationKey


class Clock(Protocol):
    """The process's own clock. It decides no window: stores do that by theirs."""

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run back, from an arbitrary start."""
        ...


class EventEncoder(Protocol):
    """Makes the bytes that the stream carries for one operation."""

    def encode(self, events: Sequence[UsageEvent]) -> bytes:
        """Return the events as one unit of the stream; the same events give the same bytes."""
        ...

    def one_event(
        self, tenant_id: TenantId, meter: MeterName, amount: int
    ) -> Callable[[EventId, OperationId], bytes]:
        """Return what makes the unit of one event of them and its ids, with nothing else."""
        ...

    def decode(self, payload: bytes, at_us: int) -> list[UsageEvent]:
        """Return the events of such a unit, or of several in a row, accepted at `at_us`.

        Raises ValueError for bytes that are none.
        """
        ...


class CatalogView(Protocol):
    """The catalog as a sidecar holds it: the newest good one, tenants as they are asked for."""

    def current(self) -> Catalog:
        """Return the newest good catalog. Raises `CatalogNotLoaded`."""
        ...

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Return what `lineage` would, when it is held in memory, else None."""
        ...

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant, its parent, and so on to the topmost. Raises `UnknownTenant`."""
        ...


@dataclass(frozen=True, slots=True)
class ShardDepth:
    """How much of a shard's stream awaits the ledger.

    `oldest_us` is when the oldest entry that is not acknowledged was written, 0 for none.
    """

    shard: int
    entries: int
    pending: int
    oldest_us: int


class UsageStream(Protocol):
    """The shards' streams as a consumer group reads them. Delivery is at least once."""

    async def read(self, count: int, block_ms: int) -> list[StreamEntry]:
        """Return up to `count` new entries over all shards, waiting at most `block_ms` for one.

        With 0 it does not wait.
        """
        ...

    async def claim(self, count: int, idle_ms: int) -> list[StreamEntry]:
        """Take over up to `count` entries that others left unacknowledged for `idle_ms`."""
        ...

    async def acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Mark entries as stored, and trim what every consumer has stored."""
        ...

    async def depths(self) -> list[ShardDepth]:
        """Return the depth of every shard."""
        ...

    async def accepted(self) -> Mapping[tuple[SourceId, int], int]:
        """Return the highest sequence number given out, per source and lane."""
        ...

    async def now_us(self) -> int:
        """Return the stream's own time, in which entries' ages are measured."""
        ...


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which usage to read. Times are whole minutes; `bucket` is total, day, hour or minute."""

    tenant_id: TenantId | None = None
    meter: MeterName | None = None
    from_us: int | None = None
    to_us: int | None = None
    bucket: str = "total"
    limit: int = 100
    after: tuple[str, str, int] | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Usage of a meter by a tenant in a bucket; `bucket_us` is 0 for a total."""

    tenant_id: TenantId
    meter: MeterName
    bucket_us: int
    count: int
    sum: int
    max: int
    min: int


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Usage of a meter by all tenants that a query covers."""

    meter: MeterName
    tenants: int
    count: int
    sum: int


class UsageReader(Protocol):
    """Reads usage from rollups."""

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return rows by tenant, meter and bucket, after `query.after`, at most `query.limit`."""
        ...

    async def totals(self, query: UsageQuery) -> list[UsageTotal]:
        """Return totals by meter over all rows the query covers, whatever its limit."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one destination, claimed by `lease_token`. `payload` never changes."""

    message_id: str
    destination: str
    type: str
    payload: bytes
    attempt: int
    lease_token: str
    created_at_us: int
    # Places in traces of the calls that it tells of, as `trace.packed` has them.
    trace: bytes = b""


@dataclass(frozen=True, slots=True)
class OutboxDepth:
    """What awaits one destination; `oldest_us` is when its oldest message was written, or 0."""

    destination: str
    pending: int
    parked: int
    oldest_us: int


class Outbox(Protocol):
    """Messages and their deliveries. A finish with a lease that was lost changes nothing."""

    async def claim(self, destination: str, count: int, lease_ms: int) -> list[Delivery]:
        """Lease up to `count` deliveries that are due, attempt counted."""
        ...

    async def delivered(self, deliveries: Sequence[Delivery]) -> int:
        """Mark as delivered those still ours; return how many were."""
        ...

    async def retry(self, delivery: Delivery, delay_ms: int, reason: str) -> bool:
        """Give back for another try after `delay_ms`; say whether it was still ours."""
        ...

    async def park(self, delivery: Delivery, reason: str) -> bool:
        """Set aside for a person, with the reason; say whether it was still ours."""
        ...

    async def depths(self) -> list[OutboxDepth]:
        """Return the depth of every destination."""
        ...


class DestinationRefused(Exception):
    """A destination did not take a message.

    `transient` says whether another try can help; `retry_after_ms` is the destination's own wish.
    """

    def __init__(self, reason: str, *, transient: bool, retry_after_ms: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transient = transient
        self.retry_after_ms = retry_after_ms


class DestinationSender(Protocol):
    """Sends messages to one destination."""

    @property
    def name(self) -> str:
        """The destination's name in the catalog."""
        ...

    async def send(self, delivery: Delivery) -> None:
        """Deliver, or raise `DestinationRefused`."""
        ...


@dataclass(frozen=True, slots=True)
class ParsedCatalog:
    """What a document declares: a catalog of version 0, and tenants. `lines` is by path."""

    catalog: Catalog
    tenants: tuple[Tenant, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)

    def line_of(self, path: str) -> int:
        """Return the line of a path, or of the nearest one above it; 0 for none."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


class CatalogDocuments(Protocol):
    """Reads catalog documents."""

    def parse(self, text: str) -> ParsedCatalog:
        """Return what the document declares. Raises `CatalogInvalid` with every fault."""
        ...


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What one version of the catalog changes. `tenants` are upserted; all else is the whole."""

    catalog: Catalog
    tenants: tuple[Tenant, ...] = ()
    document: str = ""
    effective_at_us: int = 0


class CatalogStore(Protocol):
    """The catalog's versions, effective-dated, and the tenants: the authority."""

    async def newest(self) -> Catalog:
        """Return the newest version, effective or not; version 0 when there is none."""
        ...

    async def effective(self, at_us: int) -> Catalog:
        """Return the version in effect at an instant; version 0 when there is none."""
        ...

    async def write(self, change: CatalogChange, expected_version: int) -> Catalog:
        """Write the next version. Raises `CatalogConflict` unless `expected_version` is newest."""
        ...

    async def tenant(self, tenant_id: TenantId) -> Tenant | None:
        """Return one tenant, None when it is not declared."""
        ...

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        ...

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return up to `count` tenants by id, those after `after`."""
        ...

    async def plans_in_use(self) -> set[PlanName]:
        """Return the plans that some tenant is on."""
        ...

    async def tenants_below(self, ids: Sequence[TenantId]) -> list[TenantId]:
        """Return the tenants whose parent is one of these, as last written."""
        ...

    def tenants_changed(
        self, after_version: int, up_to_version: int
    ) -> AsyncIterator[Sequence[Tenant]]:
        """Iterate, in bounded lists, over the tenants last written in those versions."""
        ...


class CatalogPublisher(Protocol):
    """Hands the catalog to the sidecars."""

    async def published_version(self) -> int:
        """Return the version the sidecars are given; 0 when none, or when it was lost."""
        ...

    async def publish_tenants(self, tenants: Sequence[Tenant]) -> None:
        """Write tenants where sidecars look them up."""
        ...

    async def publish(self, catalog: Catalog, changed: Sequence[TenantId] | None) -> None:
        """Make `catalog` the one sidecars use; they forget `changed`, or every tenant for None."""
        ...


@dataclass(frozen=True, slots=True)
class DestinationConfig:
    """A destination with its secret, as the relay uses it."""

    destination: Destination
    secret: str = field(repr=False)
