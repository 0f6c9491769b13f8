"""Puts leases together.

Guarantees: one `Leases` per process; none where settings leave them off. They are settled until the
servers have stopped, and what is left is given back then.
Refuses to know: how a process ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tallygate.adapters.prometheus.leases import LeaseMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.redis.dating import ProtobufEventDater
from tallygate.flow.decide import Decide, DecideParts
from tallygate.flow.lease import LeaseOptions, LeaseParts, Leases
from tallygate.flow.loop import Loop, LoopObserver, LoopOptions
from tallygate.ports import Clock, QuotaStore
from tallygate.ports.journal import Journal
from tallygate.settings import Settings
from tallygate.wiring.outage import Outages

# Between two settlements: what a crash loses was granted within about this time.
SETTLE_MS: Final = 20
MS_US: Final = 1_000
# Leases are settled even where calls took all of the grace.
CLOSE_MIN_S: Final = 0.5


def leases_of(
    decide: Decide,
    parts: DecideParts,
    store: QuotaStore,
    settings: Settings,
    metrics: Metrics,
    *,
    journal: Journal | None = None,
) -> Leases | None:
    """Return the leases of a process, None where they are off."""
    if settings.leases == "off":
        return None
    leases = Leases(
        LeaseParts(
            decide=decide,
            store=store,
            clock=parts.clock,
            dater=ProtobufEventDater(),
            observer=LeaseMetrics(metrics),
            decisions=parts.observer,
            journal=journal,
        ),
        LeaseOptions(
            ttl_us=settings.lease_ttl_ms * MS_US,
            hot_per_s=settings.lease_hot_per_s,
            unsettled_max=settings.lease_unsettled_max,
            grants_known_max=max(settings.lease_grants_known_max, 2 * settings.lease_unsettled_max),
        ),
    )
    metrics.leases_held.set_function(lambda: leases.held)
    metrics.lease_unsettled.set_function(lambda: leases.unsettled)
    return leases


def settling(
    leases: Leases,
    outages: Outages,
    clock: Clock,
    observer: LoopObserver,
    ends_s: Callable[[], float],
) -> Callable[[], Awaitable[None]]:
    """Start to settle; return what ends it, which gives back what is left until then."""
    ended = asyncio.Event()
    pace = LoopOptions(idle_ms=SETTLE_MS)
    loop = Loop("leases", leases, clock, observer, pace)
    task = asyncio.create_task(loop.run(ended), name=loop.name)

    async def end() -> None:
        ended.set()
        await task
        grace_s = max(CLOSE_MIN_S, ends_s() - clock.monotonic())
        await leases.close(grace_s, outages.breaker.probe)

    return end
