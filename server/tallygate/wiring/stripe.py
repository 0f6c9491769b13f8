"""What a relay runs for each Stripe account of the catalog: a planner, senders, and reports.

Guarantees: an account that changes gets new ones, and its key is read anew whenever its file
changes; one whose key cannot be read keeps nothing else waiting.
Refuses to know: how usage is planned and sent. Imported where a catalog names an account, so that
nobody else needs Stripe's client.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.invoice_books import PostgresInvoiceBooks
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_invoices import PostgresStripeInvoices
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.adapters.stripe.pace import EvenPace
from tallygate.adapters.stripe.reports import StripeErrorReports
from tallygate.adapters.stripe.secrets import Secret
from tallygate.api.stripe_reports import ReportsListener
from tallygate.domain.catalog import Catalog, Destination
from tallygate.domain.ids import MeterName
from tallygate.domain.stripe_retry import LATE_US
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import Mode, StripeAccount, Way
from tallygate.flow.loop import Counts, Loop, LoopOptions, Step
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_invoice import ItemParts, StripeItems
from tallygate.flow.stripe_plan import PlanParts, StripePlanner
from tallygate.flow.stripe_report import TakeReports
from tallygate.flow.stripe_send import SendOptions, SendParts, StripeSender
from tallygate.flow.traced_stripe import TracedStripe
from tallygate.ports.stripe import StripeApi
from tallygate.settings import Settings
from tallygate.wiring.host import Host

# What Stripe allows for meter events; other calls of an account come on top of a sandbox's.
LIVE_CALLS_PER_S: Final = 1_000
CONNECT_CALLS_PER_S: Final = 100
SANDBOX_CALLS_PER_S: Final = 25
# While one round's last calls are answered, the other's are under way.
SENDERS: Final = 2
# Calls under way at once: at 1,000 a second, what takes 64 ms fills them. Stripe answers in
# 100 to 300 ms, and two senders share the pace.
CONCURRENCY_MAX: Final = 128
PER_LANE: Final = 5
MEASURE_MS: Final = 15_000


@dataclass(frozen=True, slots=True)
class _Account:
    """An account as the catalog has it: any difference makes it another one."""

    destination: Destination
    streamed: frozenset[MeterName]


@dataclass(slots=True)
class _Running:
    """What runs for an account."""

    gate: Gate
    client: Client
    stop: asyncio.Event
    tasks: list[asyncio.Task[None]]


class StripeAccounts:
    """What runs for each account of the catalog, as it is now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._metrics = host.metrics.stripe
        postgres = host.postgres()
        self._catalogs = PostgresCatalogStore(postgres)
        self._intents = PostgresStripeIntents(postgres)
        self._sends = PostgresStripeSends(postgres)
        self._items = ItemParts(
            PostgresStripeInvoices(postgres),
            PostgresInvoiceBooks(postgres),
            *(self._intents, self._catalogs, host.clock, self._metrics),
        )
        self._reports = TakeReports(self._sends, host.clock, self._metrics)
        self._running: dict[_Account, _Running] = {}
        self._listener: ReportsListener | None = None
        self._measured_s = 0.0
        host.connections.push_async_callback(self.close)

    async def fit(self, catalog: Catalog) -> None:
        """Start what is new or has changed, end what is gone, and measure what waits."""
        wanted = {_account(catalog, each) for each in catalog.destinations if each.stripe}
        for gone in self._running.keys() - wanted:
            await self._end(gone)
        for account in wanted - self._running.keys():
            self._start(account)
        await self._listen()
        now_s = self._host.clock.monotonic()
        if not self._measured_s or now_s - self._measured_s >= MEASURE_MS / 1000:
            self._measured_s = now_s
            now_us = self._host.clock.now_us()
            depths = await self._sends.depths(now_us - LATE_US)
            names = [each.destination.name for each in self._running]
            self._metrics.measured(depths, names, now_us)

    async def close(self) -> None:
        """End all of it; calls that are under way are finished first."""
        if self._listener is not None:
            await self._listener.stop()
        for account in [*self._running]:
            self._running[account].gate.closed = True
        for account in [*self._running]:
            await self._end(account)

    async def _listen(self) -> None:
        address = self._host.settings.stripe_reports_address
        if address is None or self._listener is not None or not self._reports.sources:
            return
        listener = ReportsListener(address, self._reports.take)
        await listener.start()
        self._listener = listener

    def _start(self, account: _Account) -> None:
        host, settings = self._host, self._host.settings
        destination, options = account.destination, account.destination.stripe
        assert options is not None
        client = client_of(destination, settings)
        rate = calls_per_s(options)
        gate = Gate(host.clock, EvenPace(rate))
        planner = StripePlanner(
            destination.name,
            PlanParts(self._intents, self._catalogs, host.clock, self._metrics),
        )
        stop = asyncio.Event()
        items = StripeItems(destination.name, self._items)
        loops = [
            self._loop(f"stripe_plan:{destination.name}", planner, settings.stripe_plan_ms),
            self._loop(f"stripe_items:{destination.name}", items, settings.stripe_plan_ms),
        ]
        if not options.shadow:
            parts = SendParts(self._sends, self._usage(client), gate, host.clock, self._metrics)
            sending = SendOptions(
                lanes_max=rate,
                per_lane=PER_LANE,
                concurrency_max=CONCURRENCY_MAX,
                lease_ms=settings.relay_lease_ms,
                send_timeout_ms=settings.relay_send_timeout_ms,
                streamed=account.streamed,
            )
            loops += [
                self._loop(
                    f"stripe_send:{destination.name}",
                    StripeSender(destination.name, parts, sending),
                    settings.relay_poll_ms,
                )
                for _ in range(SENDERS)
            ]
        if options.reports_env or options.reports_file:
            path = f"destinations.{destination.name}.reports_secret"
            secret = Secret(path, options.reports_env, options.reports_file)
            self._reports.sources[destination.name] = StripeErrorReports(client, secret.read)
        tasks = [asyncio.create_task(each.run(stop), name=each.name) for each in loops]
        self._running[account] = _Running(gate, client, stop, tasks)

    def _usage(self, client: Client) -> StripeApi:
        """Return what tells an account of usage, recorded where spans are."""
        usage, tracing = StripeUsage(client, self._host.clock), self._host.tracing
        return usage if tracing is None else TracedStripe(usage, tracing.tracer)

    def _loop(self, name: str, step: Step[Counts], idle_ms: int) -> Loop:
        pace = LoopOptions(idle_ms=idle_ms)
        return Loop(name, step, self._host.clock, self._host.observer, pace)

    async def _end(self, account: _Account) -> None:
        running = self._running.pop(account)
        self._reports.sources.pop(account.destination.name, None)
        running.gate.closed = True
        running.stop.set()
        await asyncio.gather(*running.tasks)
        await running.client.close()


def calls_per_s(account: StripeAccount) -> int:
    """Return how many calls a second an account allows."""
    if account.calls_per_s:
        return account.calls_per_s
    if account.mode is Mode.SANDBOX:
        return SANDBOX_CALLS_PER_S
    return CONNECT_CALLS_PER_S if account.account else LIVE_CALLS_PER_S


def client_of(destination: Destination, settings: Settings) -> Client:
    """Return a client for a destination; its key is read with each call."""
    account = destination.stripe
    assert account is not None
    return Client(
        secret_of(destination).read,
        ClientOptions(
            url=destination.url,
            account=account.account,
            timeout_ms=settings.relay_send_timeout_ms,
            connections_max=SENDERS * CONCURRENCY_MAX,
        ),
    )


def secret_of(destination: Destination) -> Secret:
    """Return where a destination's key is read from."""
    path = f"destinations.{destination.name}.secret"
    return Secret(path, destination.secret_env, destination.secret_file)


def _account(catalog: Catalog, destination: Destination) -> _Account:
    streamed = frozenset(
        meter.name
        for meter, sync in synced(catalog, destination.name, Way.METER_EVENTS)
        if sync.v2_stream
    )
    return _Account(destination, streamed)
