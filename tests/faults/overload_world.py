"""A sidecar whose Redis is real and whose capacity is known, and those who call it.

Guarantees: it decides so many operations a round trip, whatever the machine; its callers are
processes of their own. Refuses to know what is too slow.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tallygate.settings import Settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs
from tests.faults.overload_callers import Callers, calling
from tests.faults.proxy import proxied
from tests.servers import eventually
from tests.transports import TRANSPORT

BATCH = 4
ROOM = 24
LATE_S = 0.04


@dataclass(frozen=True, slots=True)
class Busy:
    """A sidecar of known capacity: so many operations in a pipeline, each pipeline so late."""

    process: Running
    callers: Sequence[Callers]


@asynccontextmanager
async def busy(url: str, folder: Path, processes: int = 1) -> AsyncIterator[Busy]:
    """Serve so many processes of callers, at about a hundred decisions a second."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxied(url))
        settings = Settings(
            transport=TRANSPORT.value,
            grpc_address=("127.0.0.1:0",),
            ops_address="127.0.0.1:0",
            redis_url=proxy.url,  # type: ignore[arg-type]  # parsed by the library
            catalog=catalogs.write(folder, catalogs.OPEN),
            data_dir=folder,
            counter_rebuild="none",
            admit_queue_max=ROOM,
            admit_batch_max=BATCH,
            redis_timeout_ms=20_000,
            breaker_hang_ms=20_000,
        )
        process = await stack.enter_async_context(running(settings, frozenset({Role.SERVE})))
        await eventually(process.ready, 30.0, what="a catalog")
        address = process.grpc_addresses[0]
        callers = [await stack.enter_async_context(calling(address)) for _ in range(processes)]
        proxy.late_s = LATE_S
        yield Busy(process, callers)
