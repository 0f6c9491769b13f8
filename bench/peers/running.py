"""The peers, running on loopback, and what to ask them.

Guarantees: a peer is set up as its makers recommend for speed, on a Redis with the same settings
as ours; its reply was looked at once before anything is timed.
Refuses to know: how much is asked.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from bench.peers import installed
from bench.processes import POLL_S, Child, free_port, program

RATELIMIT_METHOD = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
GUBERNATOR_METHOD = "pb.gubernator.V1/GetRateLimits"
LIMIT = 1_000_000_000
DAY_MS = 24 * 3600 * 1000
TIMEOUT_S = 10
OK_CODE = b"\x08\x01"
# Two windows, as the calls of ours meet.
RATELIMIT_CONFIG = f"""
domain: bench
descriptors:
  - key: tenant
    rate_limit: {{unit: minute, requests_per_unit: {LIMIT}}}
  - key: account
    rate_limit: {{unit: day, requests_per_unit: {LIMIT}}}
"""


def varint(value: int) -> bytes:
    """Return a protobuf varint."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def number(field: int, value: int) -> bytes:
    """Return a protobuf field that is a number."""
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    """Return a protobuf field that is text or a message."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def ratelimit_message(limits: int) -> bytes:
    """Return a call that one or two limits of ratelimit apply to."""
    message = text(1, b"bench")
    for key in (b"tenant", b"account")[:limits]:
        message += text(2, text(1, text(1, key) + text(2, b"tenant-1")))
    return message + number(3, 1)


def gubernator_message(checks: int = 1) -> bytes:
    """Return a call of gubernator with so many checks of as many tenants, a limit each."""
    message = b""
    for tenant in range(1, checks + 1):
        check = text(1, b"requests") + text(2, b"tenant-%d" % tenant)
        message += text(1, check + number(3, 1) + number(4, LIMIT) + number(5, DAY_MS))
    return message


@contextmanager
def ratelimit(folder: Path, redis_url: str, *, pipeline_window: str = "0") -> Iterator[Child]:
    """Run envoyproxy/ratelimit over a Redis on a Unix socket, while the block runs.

    `pipeline_window` is how long it gathers commands before it writes them, as `150us`.
    """
    path = installed.binary(installed.RATELIMIT)
    assert path is not None
    config = folder / "runtime" / "config"
    config.mkdir(parents=True)
    (config / "bench.yaml").write_text(RATELIMIT_CONFIG)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "RUNTIME_ROOT": str(folder),
        "RUNTIME_SUBDIRECTORY": "runtime",
        "RUNTIME_WATCH_ROOT": "false",
        "REDIS_SOCKET_TYPE": "unix",
        "REDIS_URL": redis_url.removeprefix("unix://"),
        "REDIS_PIPELINE_WINDOW": pipeline_window,
        "LOCAL_CACHE_SIZE_IN_BYTES": "0",
        "USE_STATSD": "false",
        "DISABLE_STATS": "true",
        "LOG_LEVEL": "ERROR",
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(port),
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(free_port()),
    }
    with program([str(path)], environment, port=port, log=folder / "ratelimit.log") as running:
        reply = answer(running.port, RATELIMIT_METHOD, ratelimit_message(2))
        assert reply.startswith(OK_CODE), f"ratelimit says {reply!r}"
        yield running


@contextmanager
def gubernator(folder: Path) -> Iterator[Child]:
    """Run one node of gubernator, which counts in its own memory, while the block runs."""
    path = installed.binary(installed.GUBERNATOR)
    assert path is not None
    port, gossip = free_port(), f"127.0.0.1:{free_port()}"
    environment = {
        "PATH": os.environ["PATH"],
        "GUBER_GRPC_ADDRESS": f"127.0.0.1:{port}",
        "GUBER_ADVERTISE_ADDRESS": f"127.0.0.1:{port}",
        "GUBER_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
        # A ring of one; it needs somebody to gossip with, and takes itself.
        "GUBER_PEER_DISCOVERY_TYPE": "member-list",
        "GUBER_MEMBERLIST_ADDRESS": gossip,
        "GUBER_MEMBERLIST_BIND_ADDRESS": gossip,
        "GUBER_MEMBERLIST_KNOWN_NODES": gossip,
        "GUBER_INSTANCE_ID": "bench",
        "OTEL_TRACES_EXPORTER": "none",
        "GUBER_LOG_LEVEL": "error",
    }
    with program([str(path)], environment, port=port, log=folder / "gubernator.log") as running:
        deadline = time.monotonic() + TIMEOUT_S
        counted = number(3, LIMIT - 1)
        while counted not in (reply := answer(port, GUBERNATOR_METHOD, gubernator_message())):
            assert time.monotonic() < deadline, f"gubernator says {reply!r}"
            time.sleep(POLL_S)
        yield running


def answer(port: int, method: str, message: bytes) -> bytes:
    """Make one call by grpcio, again while it is UNAVAILABLE; return the reply's bytes.

    Raises grpc.RpcError.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return _answer(port, method, message)
        except grpc.RpcError as error:
            started = error.code() is not grpc.StatusCode.UNAVAILABLE
            if started or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def _answer(port: int, method: str, message: bytes) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{method}")
        return call(message, timeout=TIMEOUT_S, wait_for_ready=True)
