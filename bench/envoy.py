"""`python -m bench.envoy`: how long Envoy waits for an answer, beside a service that does nothing.

Guarantees: one sidecar process as it is shipped, over a Redis of its own, asked as Envoy asks: one
call after the other, each with Envoy's deadline of 20 ms. The same client asks an empty service of
the same transport in the same rounds, and the same sidecar by `CheckAndConsume`.
Refuses to know: Envoy, whose own time comes to it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.commands.output import Sheet, show
from tallygate.gen.envoy import rate_limit_pb2
from tallygate.gen.v1 import quota_pb2
from tallygate.settings import Settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role

BUDGET_S: Final = 0.02
ROUNDS: Final = 10
# Nothing was decided in time: the caller gave up, or was told that it would have to.
LATE: Final = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
DECIDE: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHARGE: Final = "/tallygate.v1.QuotaService/CheckAndConsume"
CATALOG: Final = {
    "version": 1,
    "default_plan": "free",
    "meters": {"requests": {}},
    "plans": {
        "free": {
            "limits": [
                {
                    "id": "daily",
                    "meter": "requests",
                    "kind": "window",
                    "period": "day",
                    "limit": 10**12,
                }
            ]
        }
    },
    "envoy": {
        "domains": {
            "edge": {
                "rules": [
                    {
                        "match": [{"key": "tenant"}],
                        "tenant": {"entry": "tenant"},
                        "meter": "requests",
                    }
                ]
            }
        }
    },
}


@dataclass(slots=True)
class Asked:
    """One service: how it is asked, and how long it took."""

    name: str
    call: Callable[[], Any]
    seconds: list[float] = field(default_factory=list)
    late: int = 0

    async def round(self, calls: int) -> None:
        """Ask so many times, one after the other."""
        for _ in range(calls):
            began = time.perf_counter()
            try:
                await self.call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in LATE:
                    raise
                self.late += 1
            self.seconds.append(time.perf_counter() - began)

    def row(self) -> tuple[str, int, str, str, int]:
        """Return what it came to."""
        ordered = sorted(self.seconds)
        median, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        return (self.name, len(ordered), f"{median * 1e3:.2f}", f"{p99 * 1e3:.2f}", self.late)


async def measure(calls: int) -> list[Asked]:
    """Ask each in turn, round by round."""
    async with (
        _sidecar() as (data, envoy),
        _empty() as nothing,
        _channels(data, envoy, nothing) as (
            to_data,
            to_envoy,
            to_nothing,
        ),
    ):
        request = rate_limit_pb2.RateLimitRequest(domain="edge")
        request.descriptors.add().entries.add(key="tenant", value="acme")
        item = quota_pb2.Item(meter="requests", amount=1)
        charge = quota_pb2.CheckAndConsumeRequest(tenant_id="acme", items=[item])
        asked = [
            Asked("a service that does nothing", _calling(to_nothing, DECIDE, request)),
            Asked("ShouldRateLimit", _calling(to_envoy, DECIDE, request)),
            Asked("CheckAndConsume", _calling(to_data, CHARGE, charge)),
        ]
        for each in asked:
            await each.round(calls // ROUNDS)
            each.seconds.clear()
            each.late = 0
        for _ in range(ROUNDS):
            for each in asked:
                await each.round(calls // ROUNDS)
        return asked


def _calling(channel: grpc.aio.Channel, path: str, request: Message) -> Callable[[], Any]:
    method: Any = channel.unary_unary(path)
    return lambda: method(request.SerializeToString(), timeout=BUDGET_S)


@asynccontextmanager
async def _channels(*addresses: str) -> AsyncIterator[list[grpc.aio.Channel]]:
    channels = [grpc.aio.insecure_channel(each) for each in addresses]
    try:
        yield channels
    finally:
        for each in channels:
            await each.close()


@asynccontextmanager
async def _served(*arguments: str) -> AsyncIterator[list[str]]:
    command = (sys.executable, "-m", "bench.envoy", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        while not (line := await process.stdout.readline()).startswith(b"["):
            assert line, "it has not started"
        yield json.loads(line)
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def _sidecar() -> AsyncIterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        redis = EmbeddedRedis(Path(folder) / "redis")
        await redis.start()
        try:
            async with _served("--serve", folder, redis.url) as addresses:
                yield addresses
        finally:
            await redis.stop()


@asynccontextmanager
async def _empty() -> AsyncIterator[str]:
    async with _served("--empty") as addresses:
        yield addresses[0]


async def serve(folder: Path, redis_url: str) -> None:
    """Be a sidecar until nobody listens any more; say where it is."""
    catalog = folder / "catalog.json"
    catalog.write_text(json.dumps(CATALOG))
    settings: dict[str, Any] = {
        "redis_url": redis_url,
        "catalog": catalog,
        "data_dir": folder / "data",
        "grpc_address": ("127.0.0.1:0",),
        "envoy_address": ("127.0.0.1:0",),
        "ops_address": "127.0.0.1:0",
        "counter_rebuild": "none",
        # What is measured is a call's way; a machine that is busy must not end it as an outage.
        "breaker_hang_ms": 5_000,
        "redis_timeout_ms": 5_000,
        "drain_grace_ms": 1_000,
    }
    async with running(Settings(**settings), frozenset({Role.SERVE})) as process:
        await _until_left([*process.grpc_addresses, *process.envoy_addresses])


async def serve_nothing() -> None:
    """Be a rate limit service that answers OK, unread, until nobody listens any more."""
    answer = rate_limit_pb2.RateLimitResponse(overall_code=rate_limit_pb2.RATE_LIMIT_CODE_OK)
    encoded = answer.SerializeToString()

    async def decide(_: bytes, __: object) -> bytes:
        return encoded

    service, _, method = DECIDE[1:].rpartition("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(decide)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await _until_left([f"127.0.0.1:{port}"])
    await server.stop(None)


async def _until_left(addresses: list[str]) -> None:
    print(json.dumps(addresses), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Measure, or be one of those that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="of each, over all rounds")
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "REDIS"), help=argparse.SUPPRESS)
    parser.add_argument("--empty", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(Path(options.serve[0]), options.serve[1]))
    elif options.empty:
        asyncio.run(serve_nothing())
    else:
        rows = [each.row() for each in asyncio.run(measure(options.calls))]
        heads = ("asked", "calls", "median ms", "p99 ms", "over 20 ms")
        show([Sheet("Envoy's wait", heads, rows)], as_json=False)


if __name__ == "__main__":
    main()
