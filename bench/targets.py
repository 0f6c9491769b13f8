"""What is measured: servers that run at once on loopback, and the calls that are made to each.

Guarantees: all are up before the first is timed, so that runs can take turns; ours and ratelimit
have a Redis each, of the same binary and settings: append-only file, synced every second, never
rewritten meanwhile. Refuses to know: how load is made.
"""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers import installed, running
from bench.processes import Child, child
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.embedded.redis import binary_version, bundled_binary
from tallygate.gen.v1 import event_pb2, quota_pb2, usage_pb2

CHECK = "tallygate.v1.QuotaService/CheckAndConsume"
BATCH_CHECK = "tallygate.v1.QuotaService/BatchCheckAndConsume"
BATCH_RECORD = "tallygate.v1.UsageService/BatchRecordUsage"
BATCH_SIZE = 100
# Meters that meet so many limits, as far as a plan may hold them.
LIMITS_OF = {1: "wide1", 2: "requests", 4: "wide4", 8: "wide8", 16: "wide16"}
WIDE = tuple(n for n, meter in LIMITS_OF.items() if meter != "requests")
PLENTY = 1_000_000_000
# Meter `requests` meets two windows, as ratelimit's call with two descriptors does; meter `wideN`
# meets N, all of them daily.
CATALOG = f"""
version: 1
default_plan: bench
meters:
  requests: {{aggregation: count}}
{"".join(f"  wide{n}: {{aggregation: count}}{chr(10)}" for n in WIDE)}
plans:
  bench:
    limits:
      - {{id: minute, meter: requests, kind: window, period: minute, limit: {PLENTY}}}
      - {{id: day, meter: requests, kind: window, period: day, limit: {PLENTY}}}
""" + "".join(
    f"      - {{id: wide{n}-{place}, meter: wide{n}, kind: window, period: day, limit: {PLENTY}}}\n"
    for n in WIDE
    for place in range(n)
)
REDIS_OPTIONS = ("--auto-aof-rewrite-percentage", "0")
TRANSPORTS = ("native", "grpcio")
# A busy machine is slow, and that is no outage: nothing gives up sooner.
PATIENCE_MS = "10000"


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the call that is made to it; `redis_pid` of the Redis it counts in, or 0."""

    server: Child
    method: str
    message: bytes
    redis_pid: int = 0
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that runs: targets by name; our sidecars by transport and mode among them."""

    targets: Mapping[str, Target]
    redis_version: str

    def having(self, *names: str) -> dict[str, Target]:
        """Return those of these targets that run."""
        return {name: self.targets[name] for name in names if name in self.targets}


EMPTY = "empty grpc.aio handler"
RATELIMIT = "ratelimit"
RATELIMIT_WINDOW = "ratelimit, pipeline window 150 us"
RATELIMIT_TWO = "ratelimit, two limits"
GUBERNATOR = "gubernator"


def sidecar(mode: str, transport: str, processes: int = 1) -> str:
    """Return the name of one of our sidecars: mode `exact` or `leased`."""
    name = f"{mode}, {transport}"
    return name if processes == 1 else f"{name}, {processes} processes"


def check(tenant: str, meter: str = "requests") -> quota_pb2.CheckAndConsumeRequest:
    """Return a call of a tenant, for one unit."""
    request = quota_pb2.CheckAndConsumeRequest(tenant_id=tenant)
    request.items.add(meter=meter, amount=1)
    return request


def check_batch(prefix: str = "tenant-") -> bytes:
    """Return a batch of checks, each of another tenant: the prefix and two digits."""
    requests = [check(f"{prefix}{number:02d}") for number in range(BATCH_SIZE)]
    return quota_pb2.BatchCheckAndConsumeRequest(requests=requests).SerializeToString()


def record_batch(size: int = BATCH_SIZE) -> bytes:
    """Return a batch of events, each of another tenant, which ask for durability JOURNAL."""
    batch = usage_pb2.BatchRecordUsageRequest()
    for number in range(size):
        batch.requests.add(
            tenant_id=f"tenant-{number}",
            meter="requests",
            amount=1,
            min_durability=event_pb2.DURABILITY_JOURNAL,
        )
    return batch.SerializeToString()


def redis_binary() -> Path | None:
    """Return the redis-server on PATH, as installations run it; None for the bundled one."""
    found = shutil.which("redis-server")
    return Path(found) if found is not None else None


def clean_environment() -> dict[str, str]:
    """Return the environment without what would set up a sidecar."""
    return {name: value for name, value in os.environ.items() if "TALLYGATE" not in name}


def serving(folder: Path, redis_url: str, *, mode: str, transport: str) -> dict[str, str]:
    """Return the environment of a sidecar; but for patience it has the product's defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    return clean_environment() | {
        "TALLYGATE_REDIS_URL": redis_url,
        "TALLYGATE_CATALOG": str(catalog),
        "TALLYGATE_DATA_DIR": str(folder / "data"),
        "TALLYGATE_GRPC_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_OPS_ADDRESS": "127.0.0.1:0",
        "TALLYGATE_LOG_LEVEL": "error",
        # No ledger stands behind this Redis, from which counters could be made.
        "TALLYGATE_COUNTER_REBUILD": "none",
        "TALLYGATE_LEASES": "on" if mode == "leased" else "off",
        "TALLYGATE_TRANSPORT": transport,
        "TALLYGATE_REDIS_TIMEOUT_MS": PATIENCE_MS,
        "TALLYGATE_BREAKER_HANG_MS": PATIENCE_MS,
        "TALLYGATE_DEFAULT_DEADLINE_MS": PATIENCE_MS,
    }


@contextmanager
def sidecar_running(environment: Mapping[str, str]) -> Iterator[Child]:
    """Run a sidecar while the block runs; it has answered a call before."""
    with child(["-m", "tallygate", "serve"], environment) as server:
        reply = running.answer(server.port, CHECK, check("tenant-0").SerializeToString())
        assert quota_pb2.CheckAndConsumeResponse.FromString(reply).allowed, reply
        yield server


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[EmbeddedRedis]:
    """Run a Redis while the block runs."""
    async with EmbeddedRedis(folder, binary=redis_binary(), options=REDIS_OPTIONS) as server:
        yield server


def sidecars(transports: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Yield mode, transport and processes of each: as many as the peers have processors, too."""
    processors = len(os.sched_getaffinity(0))
    for transport in transports:
        for processes in (1, processors) if transport == "native" and processors > 1 else (1,):
            for mode in ("exact", "leased"):
                yield mode, transport, processes


@asynccontextmanager
async def everything(folder: Path, transports: tuple[str, ...]) -> AsyncIterator[Field]:
    """Run all that is here: the empty handler, our sidecars, and the peers that are installed."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(redis(folder / "ours"))
        theirs = await stack.enter_async_context(redis(folder / "theirs"))
        children = stack.enter_context(ExitStack())
        one = check("tenant-1").SerializeToString()
        empty = children.enter_context(child(["-m", "bench.empty_server"], clean_environment()))
        targets = {EMPTY: Target(empty, CHECK, one)}
        targets |= _peers(children, folder, theirs)
        for mode, transport, processes in sidecars(transports):
            name = sidecar(mode, transport, processes)
            set_up = serving(folder / name, ours.url, mode=mode, transport=transport)
            set_up["TALLYGATE_PROCESSES"] = str(processes)
            server = children.enter_context(sidecar_running(set_up))
            targets[name] = Target(server, CHECK, one, ours.pid, ours=True)
        yield Field(targets, _version())


def _peers(children: ExitStack, folder: Path, theirs: EmbeddedRedis) -> dict[str, Target]:
    found: dict[str, Target] = {}
    if installed.binary(installed.RATELIMIT) is None:
        sys.stderr.write("bench: ratelimit is not here; `make bench-peers` installs it\n")
    else:
        one, two = running.ratelimit_message(1), running.ratelimit_message(2)
        for name, window in ((RATELIMIT, "0"), (RATELIMIT_WINDOW, "150us")):
            home = folder / f"ratelimit-{window}"
            home.mkdir()
            server = children.enter_context(
                running.ratelimit(home, theirs.url, pipeline_window=window)
            )
            found[name] = Target(server, running.RATELIMIT_METHOD, one, theirs.pid)
        plain = found[RATELIMIT].server
        found[RATELIMIT_TWO] = Target(plain, running.RATELIMIT_METHOD, two, theirs.pid)
    if installed.binary(installed.GUBERNATOR) is None:
        sys.stderr.write("bench: gubernator is not here; `make bench-peers` installs it\n")
    else:
        home = folder / "gubernator"
        home.mkdir()
        server = children.enter_context(running.gubernator(home))
        message = running.gubernator_message()
        found[GUBERNATOR] = Target(server, running.GUBERNATOR_METHOD, message)
    return found


def _version() -> str:
    return ".".join(map(str, binary_version(redis_binary() or bundled_binary())))
