"""Puts a process together, role by role.

Guarantees: what starts is stopped in the opposite order, whatever fails in between; a process
starts while Redis or Postgres is away, and takes up its work when they come.
Refuses to know: the command line.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final, Self

from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions
from tallygate.api.ops_pages import Readiness
from tallygate.flow.loop import Loop, LoopOptions
from tallygate.settings import Settings
from tallygate.wiring.envoy import SERVICES as ENVOY
from tallygate.wiring.host import Host, Running
from tallygate.wiring.place import ALONE, Place
from tallygate.wiring.roles import ADMIN, Role, check_roles
from tallygate.wiring.serving import QUOTA, USAGE, prepare_serve
from tallygate.wiring.steps import Step, ending

HEARTBEAT_MS: Final = 500


@asynccontextmanager
async def running(
    settings: Settings, roles: frozenset[Role], place: Place = ALONE
) -> AsyncIterator[Running]:
    """Start a process with these roles; stop it, drained, on leaving.

    Raises `RoleUnmet`, `AddressInUse`, `LayoutDiffers` and what `Host.secure` raises.
    """
    check_roles(settings, roles)
    async with _Process(settings, place) as process:
        await process.start(roles)
        yield process.running


class _Process:
    """Owns everything that has to be stopped."""

    def __init__(self, settings: Settings, place: Place) -> None:
        metrics = Metrics(CollectorRegistry(), version=metadata.version("tallygate"))
        self._host = Host(settings, metrics, place)
        self.running = Running(metrics, self._readiness, self._unfinished)
        self._heartbeat = Heartbeat()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Servers first, so that nothing new comes; then loops; then connections."""
        self._host.components["process"] = lambda: "draining"
        self._host.stop()
        async with self._host.connections, self._host.stack:
            pass

    async def start(self, roles: frozenset[Role]) -> None:
        """Start each role. What listens is started last, when there is something to answer with."""
        host = self._host
        host.trace()
        for role in roles:
            host.metrics.figures.roles.labels(role).set(1)
        host.stack.push_async_callback(host.end_loops)
        host.secure()
        starts: list[Callable[[], Awaitable[None]]] = []
        # What a role needs is imported with it: a sidecar holds no clients of Postgres and HTTP.
        if Role.SERVE in roles:
            listen = await prepare_serve(host, self.running)
            starts += [listen] if host.place.listens else []
        if Role.INGEST in roles:
            from tallygate.wiring.ingesting import start_ingest  # noqa: PLC0415

            start_ingest(host)
        if Role.RELAY in roles:
            from tallygate.wiring.relays import start_relay  # noqa: PLC0415

            start_relay(host)
        if Role.CONTROL in roles:
            from tallygate.wiring.control import prepare_control  # noqa: PLC0415

            starts.append(await prepare_control(host, self.running))
        host.watch_secrets()
        self._start_heartbeat()
        services = [QUOTA, USAGE] if Role.SERVE in roles else []
        if Role.SERVE in roles and host.settings.envoy_address:
            services += ENVOY
        services += [ADMIN] if Role.CONTROL in roles else []
        ops = OpsListener(
            OpsOptions(
                address=host.settings.ops_address,
                registry=host.metrics.registry,
                readiness=self._readiness,
                heartbeat=self._heartbeat,
                stall_s=host.settings.loop_stall_ms / 1000,
                services=services,
                refused=host.metrics.ops_refused.inc,
                owner=host.secured.owner,
                tls=host.secured.credentials if host.settings.tls_ops == "on" else None,
            )
        )
        ops.start()
        host.stack.push_async_callback(asyncio.to_thread, ops.stop)
        self.running.ops_port = ops.port
        for start in starts:
            await start()
        for service in ("", *services):
            ops.set_serving(service, True)

    def _start_heartbeat(self) -> None:
        """Beat until all else has ended: a process that drains for long is not a stalled one."""
        host = self._host

        async def beat() -> None:
            self._heartbeat.beat()

        ended = asyncio.Event()
        pace = LoopOptions(idle_ms=HEARTBEAT_MS)
        loop = Loop("heartbeat", Step(beat), host.clock, host.observer, pace)
        task = asyncio.create_task(loop.run(ended), name=loop.name)

        host.connections.push_async_callback(ending(ended.set, task))

    def _unfinished(self) -> int:
        return self._host.unfinished()

    def _readiness(self) -> Readiness:
        states = {name: state() for name, state in self._host.components.items()}
        return Readiness(all(state == "ok" for state in states.values()), states)
