"""A sidecar for tests of middleware: in a thread of its own, as those of WSGI block theirs.

Owns the catalog that they all use, whose default plan any tenant is on. Refuses to know frameworks.
"""

import asyncio
import re
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tallygate_client import Client

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.ids import MeterName
from tests.builders import CatalogInMemory, catalog, window
from tests.servers import POLL_S
from tests.sidecar import sidecar

REQUESTS_MAX = 3
BYTES_MAX = 1_000_000
METERS = ("requests", "egress_bytes", "tokens", "messages")
ABSENT = "127.0.0.1:1"
"""Where nobody listens."""

WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class World:
    """A sidecar's address, and where its tenants stand."""

    address: str
    client: Client

    def used(self, tenant: str, meter: str = "requests") -> int:
        """Return what counts as used, what is held included."""
        (limit,) = self.client.quota(tenant, meters=[meter], timeout=WAIT_S).limits
        return limit.used

    def settles_apart(self, tenant: str) -> Callable[..., Awaitable[None]]:
        """Return `settles` for a loop which is not to be held up meanwhile."""

        async def settles(used: int, meter: str = "requests") -> None:
            await asyncio.to_thread(self.settles, tenant, used, meter)

        return settles

    def eventually(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        eventually(holds, "what is waited for")

    def settles(self, tenant: str, used: int, meter: str = "requests") -> None:
        """Wait until so much is used, and nothing is held besides."""
        eventually(lambda: self.used(tenant, meter) == used, f"{meter} used: {used}")


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, what
        threading.Event().wait(POLL_S)


def a_tenant() -> str:
    """Return a tenant that no other test knows."""
    return f"tenant-{uuid.uuid4().hex[:12]}"


@contextmanager
def world(redis_url: str) -> Iterator[World]:
    """Run a sidecar over an empty Redis."""
    limits = [
        window(f"{meter}-monthly", REQUESTS_MAX if meter == "requests" else BYTES_MAX,
               meter=MeterName(meter))
        for meter in METERS
    ]  # fmt: skip
    meters = {MeterName(each): Meter(MeterName(each), Aggregation.SUM) for each in METERS}
    view = CatalogInMemory(catalog(*limits, meters=meters))
    with _in_a_thread(redis_url, view) as address, Client(address, timeout=WAIT_S) as client:
        yield World(address, client)


@contextmanager
def _in_a_thread(redis_url: str, view: CatalogInMemory) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()
    addresses: list[str] = []

    async def serve() -> None:
        async with sidecar(redis_url, view) as address:
            addresses.append(address)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(WAIT_S)
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


_ITEM = re.compile(r'"(?P<name>[^"]*)"(?P<parameters>(;[a-z-]+=[^;,]+)*)')


def read_field(value: str) -> Mapping[str, Mapping[str, str]]:
    """Read a list of strings with parameters, as these header fields are."""
    found = {
        match["name"]: dict(part.split("=", 1) for part in match["parameters"].split(";") if part)
        for match in _ITEM.finditer(value)
    }
    assert found, value
    return found


def told_at_limit(headers: Mapping[str, str], limit_id: str = "requests-monthly") -> None:
    """Check what a 429 says: nothing is left, and when there is."""
    standing = read_field(headers["ratelimit"])[limit_id]
    assert standing["r"] == "0"
    assert standing["t"] == headers["retry-after"]
    assert int(standing["t"]) > 0
    assert read_field(headers["ratelimit-policy"])[limit_id]["q"] == str(REQUESTS_MAX)
