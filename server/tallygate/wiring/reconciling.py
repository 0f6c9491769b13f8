"""What reconciliation is put together with: its sources of figures, its loop, and its command.

Guarantees: nothing that is lent outlives its `async with`; without Redis, counters are left out.
Refuses to know: what figures come to.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.audit_usage import PostgresAuditSnapshots
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.period_chain import PostgresPeriodChains
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads, PostgresReconcileStore
from tallygate.adapters.postgres.reconcile_frozen import PostgresFrozenReads
from tallygate.adapters.postgres.reconcile_invoicing import PostgresInvoicingStore
from tallygate.adapters.postgres.reconcile_money import PostgresMoneyReads
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.counter_reads import RedisCounterReads
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.reconcile import (
    DailyParts,
    DailyReconcile,
    LedgerFigures,
    Reconcile,
    ReconcileParts,
    ToldFigures,
)
from tallygate.flow.reconcile_counters import CounterFigures
from tallygate.flow.reconcile_frozen import FrozenFigures, Unarchived
from tallygate.flow.reconcile_invoicing import (
    InvoicingObserver,
    InvoicingParts,
    InvoicingReconcile,
)
from tallygate.flow.reconcile_money import MoneyFigures
from tallygate.flow.reconcile_repair import Repairs
from tallygate.flow.stripe_ration import RationedSums
from tallygate.flow.verify_counters import CounterParts
from tallygate.ports.reconcile import FigureSource, ReconcileReads, ReconcileStore, StripeSums
from tallygate.ports.reconcile_invoicing import InvoicingStore
from tallygate.settings import Settings
from tallygate.wiring.declared import Declarations
from tallygate.wiring.host import Host
from tallygate.wiring.repairing import repairs_of
from tallygate.wiring.stripe_desk import stripe_sums

# A day's run begins within minutes of its midnight, in UTC.
RECONCILE_MS: Final = 60_000
# As much as verification waits: nobody but an operator does.
REDIS_TIMEOUT_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Reconciling:
    """What a command reconciles with."""

    reconcile: Reconcile
    reads: ReconcileReads
    store: ReconcileStore
    invoicing: InvoicingStore
    repairs: Repairs


def start_reconciling(host: Host) -> None:
    """Start the daily reconciliation, beside the other loops of control."""
    settings = host.settings
    if settings.reconcile == "off":
        return
    postgres = host.postgres()
    redis, sums = host.redis(REDIS_TIMEOUT_MS), None
    if settings.reconcile_stripe:
        asked = stripe_sums(settings, postgres)
        host.connections.push_async_callback(asked.close)
        sums = RationedSums(asked, host.clock, settings.reconcile_stripe)
    made = reconciling_of(settings, postgres, redis, told=False, sums=sums)
    parts = DailyParts(made.reconcile, made.reads, made.store, host.clock, host.metrics.insight)
    pace = LoopOptions(idle_ms=RECONCILE_MS)
    host.spawn(Loop("reconcile", DailyReconcile(parts), host.clock, host.observer, pace))
    invoicing = around_invoices(made, host.metrics.insight)
    host.spawn(Loop("reconcile_invoicing", invoicing, host.clock, host.observer, pace))


def reconciling_of(
    settings: Settings,
    postgres: Postgres,
    client: Redis | None,
    *,
    told: bool,
    sums: StripeSums | None = None,
) -> Reconciling:
    """Return what reconciles an installation.

    `told` adds what destinations were told, `sums` what Stripe has summed up.
    """
    clock, reads = SystemClock(), PostgresReconcileReads(postgres)
    store = PostgresCatalogStore(postgres)
    file = FileCatalogView(settings.catalog) if settings.catalog else None
    declared = Declarations(store, file)
    sources: list[FigureSource] = []
    if client is not None and file is None:
        counters = CounterParts(
            reads=RedisCounterReads(client, settings.shards),
            stages=RedisCounterStages(client, settings.shards),
            snapshots=PostgresAuditSnapshots(postgres),
            declared=declared,
            clock=clock,
            shards=settings.shards,
        )
        sources.append(CounterFigures(counters, store))
    money = MoneyFigures(PostgresMoneyReads(postgres), declared, clock, sums)
    sources.append(Unarchived(money, reads))
    if told:
        sources.append(Unarchived(ToldFigures(reads, declared, clock), reads))
    sources.append(FrozenFigures(PostgresFrozenReads(postgres), declared, clock))
    # Last, so that what is in flight to any step before is in it.
    sources.append(LedgerFigures(reads, declared, clock))
    return Reconciling(
        Reconcile(ReconcileParts(sources, declared, clock, chains=PostgresPeriodChains(postgres))),
        reads,
        PostgresReconcileStore(postgres),
        PostgresInvoicingStore(postgres),
        repairs_of(postgres, clock, settings.shards),
    )


def around_invoices(made: Reconciling, observer: InvoicingObserver) -> InvoicingReconcile:
    """Return what reconciles periods before they are invoiced, and invoices."""
    return InvoicingReconcile(
        InvoicingParts(made.reconcile, made.store, made.invoicing, SystemClock(), observer)
    )


@asynccontextmanager
async def reconciling(
    settings: Settings, *, told: bool, stripe: bool = False
) -> AsyncIterator[Reconciling]:
    """Lend what reconciles an installation; with `stripe` its accounts are asked for their sums.

    Raises `ExtraMissing` where Stripe's client is not installed.
    """
    async with AsyncExitStack() as stack:
        assert settings.postgres_dsn is not None
        postgres = Postgres(
            settings.postgres_dsn.get_secret_value(),
            PoolOptions(
                connections_max=4,
                connect_timeout_ms=settings.postgres_connect_timeout_ms,
                statement_timeout_ms=settings.postgres_statement_timeout_ms,
            ),
        )
        stack.push_async_callback(postgres.close)
        client = None
        if settings.redis_url is not None:
            client = connect(settings.redis_url.get_secret_value(), REDIS_TIMEOUT_MS)
            stack.push_async_callback(client.aclose)
        sums = None
        if stripe:
            sums = stripe_sums(settings, postgres)
            stack.push_async_callback(sums.close)
        yield reconciling_of(settings, postgres, client, told=told, sums=sums)
