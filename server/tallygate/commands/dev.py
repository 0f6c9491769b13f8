"""`tallygate dev`: everything in one process, on servers that it starts itself.

Guarantees: what is stored survives restarts, in the data folder; the servers end with the process;
where both addresses are set, those servers are used and none is started.
Refuses to know: what is sent to it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

from tallygate.commands.channel import Target, channel
from tallygate.commands.usage import apply
from tallygate.domain.errors import CatalogInvalid, CatalogNotLoaded, Fault
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc
from tallygate.settings import Settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tallygate.wiring.tools import embedded_servers, migrate, read_catalog

EVERYTHING: Final = frozenset(Role)
# Publishing and taking over each happen within a quarter of a second.
READY_TIMEOUT_S: Final = 10.0
READY_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Dev:
    """A running installation, and the addresses of its own servers by their settings' names."""

    settings: Settings
    process: Running
    own: tuple[tuple[str, str], ...]

    @property
    def embedded(self) -> bool:
        """Whether servers are its own."""
        return bool(self.own)


def demo_file(name: str) -> str:
    """Return a file of the shipped demo data as text."""
    return resources.files("tallygate.demo").joinpath(name).read_text()


@asynccontextmanager
async def development(settings: Settings, effective_at_us: int | None = None) -> AsyncIterator[Dev]:
    """Start servers where needed, migrate, run every role, and apply the catalog.

    The catalog is the one of the settings; without one, the shipped one where none was applied yet.
    It is in effect from `effective_at_us` on where it is the first.
    """
    document = read_catalog(settings.catalog) if settings.catalog is not None else ""
    async with embedded_servers(settings) as complete:
        assert complete.postgres_dsn is not None
        await migrate(complete.postgres_dsn.get_secret_value())
        async with running(complete, EVERYTHING) as process:
            control = Target.control(complete, process.control_addresses[0])
            await _apply_catalog(document, control, effective_at_us)
            await _wait_until_ready(process)
            yield Dev(complete, process, _own(settings, complete))


def _own(given: Settings, complete: Settings) -> tuple[tuple[str, str], ...]:
    """Return what was not given, so that nobody's password is among it."""
    found = []
    for name in ("redis_url", "postgres_dsn"):
        secret = getattr(complete, name)
        if getattr(given, name) is None:
            found.append((f"TALLYGATE_{name.upper()}", secret.get_secret_value()))
    return tuple(found)


async def _wait_until_ready(process: Running) -> None:
    """Wait until the sidecar has taken over the catalog that control publishes."""
    deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
    while not process.ready():
        if asyncio.get_running_loop().time() > deadline:
            raise CatalogNotLoaded(f"the sidecar got no catalog within {READY_TIMEOUT_S:.0f} s")
        await asyncio.sleep(READY_POLL_S)


async def _apply_catalog(document: str, control: Target, effective_at_us: int | None) -> None:
    async with channel(control) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        plans = await admin.ListPlans(admin_pb2.ListPlansRequest())
    if not document:
        if plans.plans:
            return
        document = demo_file("catalog.yaml")
    # On a later start, the first version has its time already.
    first_us = None if plans.plans else effective_at_us
    reply = await apply(control, document, effective_at_us=first_us)
    if reply.faults:
        raise CatalogInvalid(
            tuple(
                Fault(fault.line, fault.path, fault.message, fault.suggestion)
                for fault in reply.faults
            )
        )
