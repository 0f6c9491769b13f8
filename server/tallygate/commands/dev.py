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

from tallygate.commands.channel import channel
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
    """A running installation. `embedded` says whether its servers are its own."""

    settings: Settings
    process: Running
    embedded: bool


def demo_file(name: str) -> str:
    """Return a file of the shipped demo data as text."""
    return resources.files("tallygate.demo").joinpath(name).read_text()


@asynccontextmanager
async def development(settings: Settings) -> AsyncIterator[Dev]:
    """Start servers where needed, migrate, run every role, and apply the catalog.

    The catalog is the one of the settings; without one, the shipped one where none was applied yet.
    """
    document = read_catalog(settings.catalog) if settings.catalog is not None else ""
    embedded = settings.redis_url is None or settings.postgres_dsn is None
    async with embedded_servers(settings) as complete:
        assert complete.postgres_dsn is not None
        await migrate(complete.postgres_dsn.get_secret_value())
        async with running(complete, EVERYTHING) as process:
            await _apply_catalog(document, process.control_addresses[0])
            await _wait_until_ready(process)
            yield Dev(complete, process, embedded)


async def _wait_until_ready(process: Running) -> None:
    """Wait until the sidecar has taken over the catalog that control publishes."""
    deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
    while not process.ready():
        if asyncio.get_running_loop().time() > deadline:
            raise CatalogNotLoaded(f"the sidecar got no catalog within {READY_TIMEOUT_S:.0f} s")
        await asyncio.sleep(READY_POLL_S)


async def _apply_catalog(document: str, address: str) -> None:
    async with channel(address) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        if not document:
            plans = await admin.ListPlans(admin_pb2.ListPlansRequest())
            if plans.plans:
                return
            document = demo_file("catalog.yaml")
        reply = await admin.ApplyCatalog(admin_pb2.ApplyCatalogRequest(document=document))
    if reply.faults:
        raise CatalogInvalid(
            tuple(
                Fault(fault.line, fault.path, fault.message, fault.suggestion)
                for fault in reply.faults
            )
        )
