"""A group of processes put together: its port, its ops listener, and what it tells.

Guarantees: the port is ours before anything starts, and as long as any of the processes is there;
probes are answered while processes start and while they drain.
Refuses to know: how processes are watched.
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from tallygate.adapters.prometheus.processes import GroupMetrics, GroupPages
from tallygate.api.ops import Heartbeat, OpsListener, OpsOptions, short_folder
from tallygate.api.shared_port import SharedPort
from tallygate.api.socket_lock import path_of
from tallygate.settings import Settings
from tallygate.wiring.envoy import SERVICES as ENVOY
from tallygate.wiring.group import Group, GroupParts
from tallygate.wiring.process import HEARTBEAT_MS
from tallygate.wiring.roles import ADMIN, Role, RoleUnmet, check_roles
from tallygate.wiring.securing import ops_credentials, socket_owner
from tallygate.wiring.serving import QUOTA, USAGE

REFRESH_S: Final = 5.0
"""What a process that is killed had counted since is missing in the sums. It costs it 5 ms."""


@dataclass(slots=True)
class RunningGroup:
    """A group that is up: where it listens."""

    grpc_addresses: list[str] = field(default_factory=list)
    control_addresses: list[str] = field(default_factory=list)
    envoy_addresses: list[str] = field(default_factory=list)
    ops_port: int = 0


@asynccontextmanager
async def grouped(settings: Settings, roles: frozenset[Role]) -> AsyncIterator[RunningGroup]:
    """Start a group of processes; stop it, drained, on leaving.

    Raises `RoleUnmet`, `AddressInUse` and `WorkerFailed`.
    """
    check_roles(settings, roles)
    if not sys.platform.startswith("linux") or not hasattr(socket, "SO_REUSEPORT"):
        raise RoleUnmet("several processes need Linux, which divides connections among them")
    async with AsyncExitStack() as stack:
        ports, addresses = _claimed(settings, settings.grpc_address, stack)
        more, envoy = _claimed(settings, settings.envoy_address, stack)
        private = tempfile.TemporaryDirectory(prefix="tallygate-", dir=short_folder())
        folder = Path(stack.enter_context(private))
        own = GroupMetrics(CollectorRegistry())
        pages = GroupPages(own)
        kept = [fd for port in (*ports, *more) for fd in port.fds]
        group = Group(settings, roles, GroupParts(addresses, envoy, kept, folder, own, pages))
        ops = await _tell(settings, roles, group, pages, stack)
        found = RunningGroup(ops_port=ops.port)
        stack.push_async_callback(group.stop)
        started = await group.start()
        found.grpc_addresses, found.control_addresses = started.grpc, started.control
        found.envoy_addresses = started.envoy
        for service in ("", *_services(settings, roles)):
            ops.set_serving(service, True)
        yield found


def _claimed(
    settings: Settings, wanted: Sequence[str], stack: AsyncExitStack
) -> tuple[list[SharedPort], list[str]]:
    """Take the addresses that processes share; return them with their ports."""
    if settings.processes == 1:
        return [], [*wanted]
    ports, addresses = [], []
    for address in wanted:
        assert path_of(address) is None, "settings refuse a Unix socket for several processes"
        port = SharedPort(address)
        addresses.append(port.take())
        stack.callback(port.give_back)
        ports.append(port)
    return ports, addresses


async def _tell(
    settings: Settings,
    roles: frozenset[Role],
    group: Group,
    pages: GroupPages,
    stack: AsyncExitStack,
) -> OpsListener:
    """Start the ops listener and what keeps its figures fresh."""
    registry = CollectorRegistry()
    registry.register(pages)
    heartbeat = Heartbeat()
    credentials, renew = ops_credentials(settings)
    ops = OpsListener(
        OpsOptions(
            address=settings.ops_address,
            registry=registry,
            readiness=group.readiness,
            heartbeat=heartbeat,
            stall_s=settings.loop_stall_ms / 1000,
            services=_services(settings, roles),
            refused=pages.own.ops_refused.inc,
            owner=socket_owner(settings),
            tls=credentials,
        )
    )
    ops.start()
    stack.push_async_callback(asyncio.to_thread, ops.stop)

    async def beat() -> None:
        heartbeat.beat()

    async def refresh() -> None:
        await asyncio.to_thread(pages.refresh)

    for name, step, every_s in (
        ("heartbeat", beat, HEARTBEAT_MS / 1000),
        ("refresh", refresh, REFRESH_S),
        ("certificates", renew, settings.tls_poll_ms / 1000),
    ):
        task = asyncio.create_task(_again(step, every_s), name=name)
        stack.push_async_callback(_cancelled, task)
    return ops


async def _again(step: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await step()
        await asyncio.sleep(every_s)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _services(settings: Settings, roles: frozenset[Role]) -> list[str]:
    envoy = ENVOY if settings.envoy_address else ()
    return [QUOTA, USAGE, *envoy] + ([ADMIN] if Role.CONTROL in roles else [])
