"""Ten thousand connections that ask nothing: what they cost is bounded, and others are served."""

import asyncio
import resource
from pathlib import Path

import psutil
import pytest

from tests.faults.edge_world import door
from tests.faults.idle_connections import idle_connections
from tests.servers import eventually
from tests.sidecar import channel, charge

# As many as the system lets a process have, beside what it has open otherwise.
ROOM = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1_000
# Measured are 18 KiB.
BYTES_MAX = 40 * 1024


def files() -> int:
    """Return how many files this process has open."""
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.parametrize(
    "count", [min(ROOM, 1_000), pytest.param(min(ROOM, 10_000), marks=pytest.mark.slow)]
)
@pytest.mark.timeout(200)
async def test_idle_connections_cost_a_bounded_memory(count: int) -> None:
    """Calls beside them are answered, on one connection; when they end, nothing is left open."""
    async with door() as it, channel(it.address) as opened:
        it.held.let.set()
        stub = it.stub(opened)
        assert (await stub.CheckAndConsume(charge())).allowed
        before, rss = files(), psutil.Process().memory_info().rss
        async with idle_connections(int(it.address.rpartition(":")[2]), count):
            assert files() - before >= count
            assert psutil.Process().memory_info().rss - rss < count * BYTES_MAX
            replies = await asyncio.gather(*(stub.CheckAndConsume(charge()) for _ in range(100)))
            assert all(reply.allowed for reply in replies)
            assert len(it.held.peers) == 1
        await eventually(lambda: files() <= before + 10, 60.0, what="their ends")
        assert (await stub.CheckAndConsume(charge())).allowed
        assert set(it.told.codes) == {"OK"}
