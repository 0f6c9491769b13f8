"""A real Envoy before a small app, asking a real sidecar; and the sidecar alone, as Envoy calls it.

Owns the processes and ports of both. Guarantees that Envoy runs the configuration that stands in
docs/envoy.md, with other ports, and that all is ended. Refuses to know what is to be limited.
"""

import asyncio
import copy
import functools
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import yaml
from aiohttp import web

from tallygate.gen.envoy import access_log_pb2, rate_limit_pb2
from tallygate.settings import Settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.docs.pages import ROOT
from tests.servers import eventually
from tests.transports import TRANSPORT

ENVOY: Final = Path(sys.prefix) / "bin" / "envoy"
DECIDE: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
LOGS: Final = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
BODY: Final = b"x" * 1000
PAGE: Final = ROOT / "docs" / "envoy.md"
# Of the page's configuration.
PORTS: Final = {"edge": 10000, "app": 8080, "tallygate": 50061, "admin": 9901, "tcp": 10001}


def blocks() -> list[Any]:
    """Return the YAML documents of the page, in order, for whoever asks to change."""
    return copy.deepcopy(_blocks())


@functools.cache
def _blocks() -> list[Any]:
    parts = PAGE.read_text().split("```yaml\n")[1:]
    texts = [part.partition("\n```")[0] for part in parts]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def catalog(**changes: Any) -> dict[str, Any]:
    """Return the page's catalog with other parts at its top."""
    found: dict[str, Any] = blocks()[0]
    return {**found, **changes}


def configuration() -> dict[str, Any]:
    """Return the page's configuration of Envoy."""
    return next(each for each in blocks() if "static_resources" in each)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar as Envoy has it."""

    process: Running
    address: str
    channel: grpc.aio.Channel

    def decide(self, request: rate_limit_pb2.RateLimitRequest, **options: Any) -> Any:
        """Begin a call of `ShouldRateLimit`."""
        call: Any = self.channel.unary_unary(
            DECIDE,
            request_serializer=rate_limit_pb2.RateLimitRequest.SerializeToString,
            response_deserializer=rate_limit_pb2.RateLimitResponse.FromString,
        )
        return call(request, **options)

    def stream(self) -> Any:
        """Begin a call of `StreamAccessLogs`."""
        call: Any = self.channel.stream_unary(
            LOGS,
            request_serializer=access_log_pb2.StreamAccessLogsMessage.SerializeToString,
            response_deserializer=access_log_pb2.StreamAccessLogsResponse.FromString,
        )
        return call()

    async def ask(
        self, *descriptors: Mapping[str, str], domain: str = "edge", hits: int = 0, **options: Any
    ) -> rate_limit_pb2.RateLimitResponse:
        """Ask as Envoy does, of one descriptor per mapping."""
        request = rate_limit_pb2.RateLimitRequest(domain=domain, hits_addend=hits)
        for each in descriptors:
            descriptor = request.descriptors.add()
            for key, value in each.items():
                descriptor.entries.add(key=key, value=value)
        answer: rate_limit_pb2.RateLimitResponse = await self.decide(request, **options)
        return answer

    def count(self, name: str, **labels: str) -> float:
        """Return a counter's value."""
        registry = self.process.metrics.registry
        return registry.get_sample_value(f"tallygate_{name}", labels) or 0.0


@asynccontextmanager
async def sidecar(
    folder: Path, redis_url: str, parts: Mapping[str, Any], **settings: Any
) -> AsyncIterator[Sidecar]:
    """Run a sidecar over a catalog's parts; give it once it answers."""
    path = folder / "catalog.yaml"
    # JSON is YAML, and knows no aliases.
    path.write_text(json.dumps(parts))
    chosen: dict[str, Any] = {
        "redis_url": redis_url,
        "catalog": path,
        "data_dir": folder / "data",
        "grpc_address": ("127.0.0.1:0",),
        "ops_address": "127.0.0.1:0",
        "envoy_address": ("127.0.0.1:0",),
        "drain_grace_ms": 1_000,
        "transport": TRANSPORT.value,
        # There is no ledger behind it, unless a test says so.
        "counter_rebuild": "none",
    }
    async with running(Settings(**{**chosen, **settings}), frozenset({Role.SERVE})) as process:
        address = process.envoy_addresses[0]
        async with grpc.aio.insecure_channel(address) as channel:
            yield Sidecar(process, address, channel)


@dataclass(frozen=True, slots=True)
class Edge:
    """An Envoy that is up: how to call through it, and what it counts."""

    url: str
    admin: str
    tcp: int
    session: aiohttp.ClientSession

    async def get(self, tenant: str, path: str = "/") -> tuple[int, Mapping[str, str]]:
        """Call through Envoy for a tenant; return the status and the headers."""
        async with self.session.get(self.url + path, headers={"x-tenant": tenant}) as response:
            await response.read()
            return response.status, response.headers

    async def counters(self, prefix: str) -> dict[str, int]:
        """Return Envoy's counters whose names hold this."""
        async with self.session.get(f"{self.admin}/stats?filter={prefix}") as response:
            lines = (await response.text()).splitlines()
        found = [line.partition(": ") for line in lines]
        return {name: int(value) for name, _, value in found if value.isdigit()}


async def _answer(request: web.Request) -> web.Response:
    return web.Response(body=BODY)


@asynccontextmanager
async def app() -> AsyncIterator[int]:
    """Serve a small app; give its port."""
    served = web.Application()
    served.router.add_get("/{path:.*}", _answer)
    runner = web.AppRunner(served)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def edge(asks: str, config: Mapping[str, Any] | None = None) -> AsyncIterator[Edge]:
    """Run Envoy before an app, asking at that address."""
    async with app() as behind:
        ports = {
            "edge": free_port(),
            "app": behind,
            "tallygate": int(asks.rpartition(":")[2]),
            "admin": free_port(),
            # Of a listener that only a test's own configuration has.
            "tcp": free_port(),
        }
        text = yaml.safe_dump(dict(config or configuration()))
        for name, port in PORTS.items():
            text = text.replace(f"port_value: {port}", f"port_value: {ports[name]}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "envoy.yaml"
            path.write_text(text)
            async with _envoy(path) as process, aiohttp.ClientSession() as session:
                admin = f"http://127.0.0.1:{ports['admin']}"
                found = Edge(f"http://127.0.0.1:{ports['edge']}", admin, ports["tcp"], session)

                async def ready() -> bool:
                    assert process.returncode is None, "Envoy has ended"
                    try:
                        async with session.get(f"{admin}/ready") as response:
                            return response.status == 200
                    except aiohttp.ClientConnectionError:
                        return False

                await eventually(ready)
                yield found


@asynccontextmanager
async def _envoy(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "critical")
    process = await asyncio.create_subprocess_exec(
        ENVOY, "-c", str(path), *arguments, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
