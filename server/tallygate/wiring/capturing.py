"""Puts `tallygate capture` together: the drainer with its probes and metrics, and upkeep.

Guarantees: it starts while the sidecar is away, and not while the package is missing; on leaving,
what was claimed is finished first, and what is left is handed on as long as the grace lasts.
Refuses to know: the command line.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import metadata
from typing import Final

from prometheus_client import CollectorRegistry

from tallygate.adapters.capture.outbox import PostgresCapture, install_script
from tallygate.adapters.prometheus.capture import CaptureMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions
from tallygate.api.ops_pages import Readiness
from tallygate.domain.errors import TallygateError
from tallygate.flow.capture import DrainCapture
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.settings import Settings
from tallygate.settings_types import SecretUrl
from tallygate.wiring.host import Host
from tallygate.wiring.process import HEARTBEAT_MS
from tallygate.wiring.recording import recorder_of
from tallygate.wiring.roles import RoleUnmet

__all__ = ["capture_outbox", "capturing", "install_script"]

# A scraper comes as often; counting a long outbox takes a while.
MEASURE_MS: Final = 15_000


@asynccontextmanager
async def capture_outbox(settings: Settings) -> AsyncIterator[PostgresCapture]:
    """Lend the outbox of an app's database. Raises `RoleUnmet`."""
    if settings.capture_dsn is None:
        raise RoleUnmet("TALLYGATE_CAPTURE_DSN, or --dsn, is required", field="capture_dsn")
    outbox = PostgresCapture(partial(_newest, settings.capture_dsn))
    try:
        yield outbox
    finally:
        await outbox.close()


def _newest(dsn: SecretUrl) -> str:
    """Return the address as its file has it now, or had it when it was read first."""
    try:
        text = dsn.file.read_text().strip() if dsn.file is not None else ""
    except OSError:
        text = ""
    return text or dsn.get_secret_value()


@asynccontextmanager
async def capturing(settings: Settings) -> AsyncIterator[int]:
    """Drain an app's outbox until left; lend the port of the ops listener.

    Raises `RoleUnmet`, `StorageFault`, `BackendUnavailable` and `AddressInUse`.
    """
    host = Host(settings, Metrics(CollectorRegistry(), version=metadata.version("tallygate")))
    async with host.connections, capture_outbox(settings) as outbox:
        await outbox.check()
        recorder = recorder_of(settings, "tallygate-capture")
        host.connections.push_async_callback(recorder.close)
        drain = DrainCapture(outbox, recorder, CaptureMetrics(host.metrics.registry))
        async with host.stack:
            host.stack.push_async_callback(_last, drain, host)
            host.stack.push_async_callback(host.end_loops)
            pace = LoopOptions(idle_ms=settings.capture_poll_ms)
            host.spawn(Loop("capture", drain, host.clock, host.observer, pace))
            host.loop("capture_backlog", drain.measure, MEASURE_MS)
            yield await _ops(host)
            host.components["process"] = lambda: "draining"
            host.stop()


async def _last(drain: DrainCapture, host: Host) -> None:
    """Hand on what was captured until now, while there is time and somebody who takes it."""
    with suppress(TallygateError, TimeoutError):
        async with asyncio.timeout(max(0.0, host.ends_s - host.clock.monotonic())):
            while (await drain.run_once()).more:
                continue


async def _ops(host: Host) -> int:
    settings, heartbeat = host.settings, Heartbeat()

    def readiness() -> Readiness:
        states = {name: state() for name, state in host.components.items()}
        return Readiness(all(state == "ok" for state in states.values()), states)

    async def beat() -> None:
        heartbeat.beat()

    host.components["process"] = lambda: "ok"
    host.loop("heartbeat", beat, HEARTBEAT_MS)
    ops = OpsListener(
        OpsOptions(
            address=settings.ops_address,
            registry=host.metrics.registry,
            readiness=readiness,
            heartbeat=heartbeat,
            stall_s=settings.loop_stall_ms / 1000,
            refused=host.metrics.ops_refused.inc,
        )
    )
    ops.start()
    host.stack.push_async_callback(asyncio.to_thread, ops.stop)
    ops.set_serving("", True)
    return ops.port
