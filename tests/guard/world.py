"""A sidecar and an ingester without processes and listeners: what is shipped, called directly.

Guarantees: everything between a request's bytes and Redis is put together as `serve` puts it
together. Loops run when they are asked to, so that nothing is counted that no call has caused.
Refuses to know what is counted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from tallygate.adapters.journal.journal import JournalOptions
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.ops_pages import Readiness
from tallygate.flow.lease import Leases
from tallygate.flow.loop import Loop
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl
from tallygate.wiring import journaling, serving
from tallygate.wiring.host import Host, Running
from tests.guard.front import Front

CATALOG = """
version: 1
default_plan: guard
meters:
  requests: {aggregation: count}
plans:
  guard:
    limits:
      - {id: month, meter: requests, kind: window, period: month, limit: 1_000_000_000}
      - {id: rate, meter: requests, kind: rate, period: second, limit: 1_000_000}
  hot:
    limits:
      - {id: month, meter: requests, kind: window, period: month, limit: 1_000_000_000}
      - {id: day, meter: requests, kind: window, period: day, limit: 1_000_000_000}
tenants:
  hot: {plan: hot}
"""


class StillHost(Host):
    """Lends what a host lends. Its loops stand still, and its listeners are a `Front` if wanted."""

    def __init__(self, settings: Settings, *, listens: bool = False) -> None:
        super().__init__(settings, Metrics(CollectorRegistry(), version="0"))
        self.front = Front()
        self.loops: dict[str, Loop] = {}
        self._listens = listens

    async def listen(self, *arguments: Any, **named: Any) -> list[str]:  # as Host has it
        """Take the methods, and listen where it is wanted."""
        if self._listens:
            return await super().listen(*arguments, **named)
        for each in (*arguments, *named.values()):
            if isinstance(each, Mapping):
                self._take(each)
        return []

    def spawn(self, loop: Loop) -> None:
        """Keep a loop, to be run once when asked."""
        self.loops[loop.name] = loop

    def _take(self, methods: Mapping[str, Any]) -> None:
        for name, each in methods.items():
            if "/" in name:
                self.front.take({name: each})
            else:
                each(self.front)


@dataclass(frozen=True, slots=True)
class Served:
    """A sidecar that is ready. `leases` are None where they are off."""

    front: Front
    loops: Mapping[str, Loop]
    leases: Leases | None
    redis: Redis

    async def tidy(self) -> None:
        """Have the journal write what nobody waits for, and forget it."""
        await self.loops["journal"].step.run_once()


def settings_for(folder: Path, redis_url: str, **more: Any) -> Settings:
    """Return settings that nothing runs out under, however slow counting makes it."""
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    return Settings(
        redis_url=SecretUrl(redis_url),
        catalog=catalog,
        data_dir=folder / "data",
        redis_timeout_ms=60_000,
        breaker_hang_ms=60_000,
        default_deadline_ms=60_000,
        lease_hot_per_s=1,
        lease_ttl_ms=60_000,
        lease_unsettled_max=10_000,
        **more,
    )


@asynccontextmanager
async def served(settings: Settings, *, listens: bool = False) -> AsyncIterator[Served]:
    """Lend a sidecar whose loops have run once; it `listens` where its settings say."""
    host = StillHost(settings, listens=listens)
    running = Running(host.metrics, lambda: Readiness(True, {}))
    found: list[Leases] = []

    def still(leases: Leases, *_: object) -> Callable[[], Awaitable[None]]:
        found.append(leases)
        return lambda: asyncio.sleep(0)

    async with host.connections, host.stack:
        # The journal's thread would be quicker or slower than the loop by chance.
        inline = partial(JournalOptions, threaded=False)
        with (
            patch.object(serving, "settling", still),
            patch.object(journaling, "JournalOptions", inline),
        ):
            start = await serving.prepare_serve(host, running)
        await start()
        for loop in host.loops.values():
            await loop.step.run_once()
        url = settings.redis_url
        assert url is not None
        client = Redis.from_url(url.get_secret_value(), socket_timeout=10)
        host.connections.push_async_callback(client.aclose)
        yield Served(host.front, host.loops, found[0] if found else None, client)
        host.stop()
