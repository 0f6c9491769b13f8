"""An admin service over a real channel, a store and books in memory.

Guarantees: everything between the channel and the ports is what is shipped.
Refuses to know Postgres.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.adapters.log import redact_value
from tallygate.api.admin import AdminParts, AdminServicer
from tallygate.api.audited import AuditedRegistry
from tallygate.api.door import Door
from tallygate.api.edge import EdgeOptions
from tallygate.api.server import Server, ServerOptions
from tallygate.api.transport import TransportName
from tallygate.domain.certificate import CurrentCredentials
from tallygate.domain.ids import MeterName
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.grant import Granting
from tallygate.flow.invoice import InvoiceParts, Invoicing
from tallygate.flow.period_orders import OrderParts, PeriodOrders
from tallygate.flow.reset import ResetParts, Resetting
from tallygate.flow.trail import Trail
from tallygate.flow.usage_windows import UsageWindows
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc
from tallygate.ports import UsageQuery, UsageRow, UsageTotal
from tallygate.testing.billing import (
    FakeBilledUsage,
    FakeExchangeRates,
    FakeInvoiceBooks,
    FakePlanHistory,
)
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.credit import FakeCreditLedger, FakeResetAudit
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.period import FakePeriods
from tallygate.testing.period_usage import FakePeriodUsage
from tallygate.testing.quota import FakeQuotaStore
from tallygate.testing.trail import FakeTrailLog
from tests.catalog.documents import GOOD
from tests.sidecar import MESSAGE_BYTES_MAX, SilentEdge, channel
from tests.transports import TRANSPORT

NOW = 1_700_000_040_000_000
MINUTE = 60_000_000
SHARDS = 4
ADMIN = "tallygate.v1.AdminService"


@dataclass
class Books:
    """Usage that tests make up: a row per tenant, and what was asked."""

    rows: list[UsageRow] = field(default_factory=list)
    asked: list[UsageQuery] = field(default_factory=list)

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Return the rows after a position."""
        self.asked.append(query)
        after = query.after or ("", "", -1)
        found = [row for row in self.rows if (row.tenant_id, row.meter, row.bucket_us) > after]
        return found[: query.limit]

    async def totals(self, query: UsageQuery) -> list[UsageTotal]:
        """Return one total over all rows."""
        used = sum(row.sum for row in self.rows)
        return [UsageTotal(MeterName("requests"), len(self.rows), len(self.rows), used)]


@dataclass
class Control:
    """An admin service, its store and books, and a stub of it."""

    stub: "admin_pb2_grpc.AdminServiceAsyncStub"
    store: FakeCatalogStore
    books: Books
    ledger: FakeLedger = field(default_factory=FakeLedger)
    audit: FakeResetAudit = field(default_factory=FakeResetAudit)
    trail: FakeTrailLog = field(default_factory=FakeTrailLog)
    billed: FakeBilledUsage = field(default_factory=FakeBilledUsage)
    invoices: FakeInvoiceBooks = field(default_factory=FakeInvoiceBooks)
    history: FakePlanHistory = field(default_factory=FakePlanHistory)
    counters: FakeQuotaStore = field(init=False)
    periods: FakePeriods = field(init=False)
    address: str = ""

    def __post_init__(self) -> None:
        self.counters = FakeQuotaStore(self.now_us)

    def now_us(self) -> int:
        """Return the time."""
        return NOW

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return NOW / 1e6

    async def apply(self, document: str, **fields: object) -> admin_pb2.ApplyCatalogResponse:
        """Apply a document."""
        # The fields are given by name, as the message takes them.
        request = admin_pb2.ApplyCatalogRequest(**fields)  # type: ignore[arg-type]
        request.document = document
        return await self.stub.ApplyCatalog(request)

    async def call(self, request: Message) -> Message:
        """Call the method that takes this request."""
        name = type(request).__name__.removesuffix("Request")
        answer: Message = await getattr(self.stub, name)(request)
        return answer


@asynccontextmanager
async def controlled(
    door: Door | None = None, tls: CurrentCredentials | None = None
) -> AsyncIterator[Control]:
    """Serve a control with the good document applied; with a door, who comes in is its affair.

    With TLS its stub reaches nobody: callers have to open channels of their own.
    """
    store, books = FakeCatalogStore(), Books()
    found = Control(None, store, books)  # type: ignore[arg-type]  # set below
    apply = Apply(store, YamlCatalogDocuments(), found)
    resets = ResetParts(found.counters, found.audit, store, found, SHARDS)
    granting = Granting(FakeCreditLedger(found.ledger), store, found)
    usage = FakePeriodUsage(found.ledger)
    windows = UsageWindows(usage, usage, store, found)
    trail = Trail(found.trail)
    periods = FakePeriods(found.ledger)
    orders = PeriodOrders(OrderParts(periods, periods, store, found))
    found.periods = periods
    billed, bills = found.billed, found.invoices
    invoicing = Invoicing(
        InvoiceParts(
            *(billed, billed, found.history, FakeExchangeRates(), bills, billed.late),
            clock=found,
        )
    )
    parts = AdminParts(
        *(apply, store, books, windows, granting, Resetting(resets), orders), invoicing=invoicing
    )
    servicer = AdminServicer(parts)
    server = Server(
        ServerOptions(
            ["127.0.0.1:0"],
            MESSAGE_BYTES_MAX,
            EdgeOptions(10.0, SilentEdge()),
            transport=TRANSPORT if tls is None else TransportName.GRPCIO,
            tls=tls,
        ),
        {
            ADMIN: lambda registry: admin_pb2_grpc.add_AdminServiceServicer_to_server(
                servicer,
                AuditedRegistry(registry, trail, redact_value, door),  # type: ignore[arg-type]
            )
        },
    )
    await server.start()
    found.address = server.addresses[0]
    async with channel(found.address) as opened:
        found.stub = admin_pb2_grpc.AdminServiceStub(opened)
        if door is None and tls is None:
            await found.apply(GOOD)
        else:
            await apply.document(GOOD, ApplyOptions())
        yield found
    await server.stop(1.0)
    await trail.close()
