"""One relay for each destination that the catalog names.

Guarantees: a destination that changes gets a new relay, and so does one whose secret has changed;
one whose secret cannot be read keeps none of the others waiting, and keeps the one it had.
Refuses to know: how messages are sent.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.outbox import PostgresOutbox
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.prometheus.flows import LoopMetrics, RelayMetrics
from tallygate.adapters.webhook.sender import WebhookOptions, WebhookSender
from tallygate.domain.catalog import Destination
from tallygate.domain.errors import TallygateError
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.flow.relay import Relay, RelayOptions
from tallygate.flow.traced import TracedSender
from tallygate.ports import DestinationConfig
from tallygate.ports.tracing import Tracer
from tallygate.settings import Settings
from tallygate.wiring.host import Host
from tallygate.wiring.stripe_desk import ExtraMissing

if TYPE_CHECKING:
    from tallygate.wiring.stripe import StripeAccounts

DESTINATIONS_MS: Final = 2_000


class SecretMissing(TallygateError):
    """A destination's secret cannot be read."""

    reason = "INVALID_FIELD"


def start_relay(host: Host) -> None:
    """Start what sends to each destination, and what finds out which there are."""
    postgres = host.postgres()
    outbox, catalog = PostgresOutbox(postgres), PostgresCatalogStore(postgres)
    upkeep = PostgresOutboxUpkeep(postgres)
    observer = RelayMetrics(host.metrics, host.clock)
    tracer = host.tracing.tracer if host.tracing is not None else None
    relays = Relays(host.settings, outbox, observer, host.clock, host.observer, tracer=tracer)
    # After the loops, which could start relays anew.
    host.connections.push_async_callback(relays.close)

    async def refresh() -> None:
        newest = await catalog.effective(host.clock.now_us())
        await relays.fit([each for each in newest.destinations if each.stripe is None])
        observer.measured(await outbox.depths())
        observer.held_back(await upkeep.gate_lag_s())

    host.loop("destinations", refresh, DESTINATIONS_MS)
    accounts: list[StripeAccounts] = []

    async def refresh_stripe() -> None:
        newest = await catalog.effective(host.clock.now_us())
        if not accounts and any(each.stripe for each in newest.destinations):
            accounts.append(_stripe(host))
        for each in accounts:
            await each.fit(newest)

    host.loop("stripe", refresh_stripe, DESTINATIONS_MS)


def _stripe(host: Host) -> "StripeAccounts":
    """Return what runs Stripe's accounts: its client is an extra, which others do without."""
    try:
        from tallygate.wiring.stripe import StripeAccounts  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ExtraMissing from error
    return StripeAccounts(host)


class Relays:
    """One relay for each destination of the catalog, as it is now."""

    def __init__(
        self,
        settings: Settings,
        outbox: PostgresOutbox,
        observer: RelayMetrics,
        clock: SystemClock,
        loops: LoopMetrics,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._observer = observer
        self._clock = clock
        self._loops = loops
        self._tracer = tracer
        self._running: dict[DestinationConfig, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    async def fit(self, destinations: Sequence[Destination]) -> None:
        """Start what is new or has changed, and end what is gone.

        Raises `SecretMissing` when a secret cannot be read; the other destinations go on.
        """
        held = {each.destination: each for each in self._running}
        wanted: set[DestinationConfig] = set()
        fresh: dict[DestinationConfig, WebhookSender] = {}
        faults: list[TallygateError] = []
        for destination in destinations:
            try:
                config = DestinationConfig(destination, _secret(destination))
                if config not in self._running:
                    fresh[config] = self._sender(config)
                wanted.add(config)
            except TallygateError as error:
                faults.append(error)
                # A secret that cannot be read, or used, leaves the one before.
                if destination in held:
                    wanted.add(held[destination])
        for gone in self._running.keys() - wanted:
            await self._end(gone)
        for config, sender in fresh.items():
            self._start(config, sender)
        if faults:
            raise faults[0]

    async def close(self) -> None:
        """End every relay; what is being sent is finished first."""
        for config in [*self._running]:
            await self._end(config)

    def _sender(self, config: DestinationConfig) -> WebhookSender:
        options = WebhookOptions(timeout_ms=self._settings.relay_send_timeout_ms)
        return WebhookSender(config, self._clock, options)

    def _start(self, config: DestinationConfig, sender: WebhookSender) -> None:
        settings = self._settings
        relay = Relay(
            self._outbox,
            sender if self._tracer is None else TracedSender(sender, self._tracer),
            RelayOptions(
                claim_max=settings.relay_claim_max,
                lease_ms=settings.relay_lease_ms,
                send_timeout_ms=settings.relay_send_timeout_ms,
                attempts_max=settings.relay_attempts_max,
                backoff_ms=settings.relay_backoff_ms,
                backoff_max_ms=settings.relay_backoff_max_ms,
            ),
            self._observer,
        )
        stop = asyncio.Event()
        pace = LoopOptions(idle_ms=settings.relay_poll_ms)
        loop = Loop(f"relay:{config.destination.name}", relay, self._clock, self._loops, pace)

        async def run() -> None:
            await loop.run(stop)
            await sender.close()

        self._running[config] = (stop, asyncio.create_task(run(), name=loop.name))

    async def _end(self, config: DestinationConfig) -> None:
        stop, task = self._running.pop(config)
        stop.set()
        await task


def _secret(destination: Destination) -> str:
    """Return the destination's secret from where the catalog says it is."""
    path = f"destinations.{destination.name}.secret"
    if destination.secret_env:
        value = os.environ.get(destination.secret_env, "")
    else:
        try:
            value = Path(destination.secret_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretMissing("the secret's file cannot be read", field=path) from error
    if not value:
        raise SecretMissing("the secret is empty or not set", field=path)
    return value
