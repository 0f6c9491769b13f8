"""`tallygate demo`: a sample of a real access log, decided by real calls, counted to the ledger.

Guarantees: every figure shown is read back from the running servers or measured at the caller.
Refuses to know: how any of it works.
"""

import asyncio
import re
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from tallygate.commands.channel import Target, channel
from tallygate.commands.dev import Dev, demo_file
from tallygate.commands.output import Cell, Sheet
from tallygate.domain import access_log
from tallygate.domain.access_log import BYTES_METER, REQUESTS_METER
from tallygate.domain.errors import TallygateError
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc, quota_pb2, quota_pb2_grpc

CALLERS = 32
CALL_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 60.0
POLL_S = 0.1


class DemoFailed(TallygateError):
    """The demo did not end as it must."""


@dataclass(slots=True)
class Outcome:
    """What the callers saw."""

    allowed: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)
    events: int = 0
    latencies_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def refused(self) -> int:
        """How many calls were refused, by whichever limit."""
        return self.refused_by.total()


async def send_log(address: str, note: Callable[[], None]) -> Outcome:
    """Send each line of the sample as one `CheckAndConsume`, from many callers at once."""
    outcome = Outcome()
    requests = _requests()
    started = time.perf_counter()
    async with channel(address) as lent:
        quota = quota_pb2_grpc.QuotaServiceStub(lent)
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(_call_all(quota, requests, outcome, note))
    outcome.elapsed_s = time.perf_counter() - started
    return outcome


def line_count() -> int:
    """Return how many lines the sample has."""
    return demo_file("access.log").count("\n")


async def settle(dev: Dev, events: int) -> dict[str, float]:
    """Wait until the ledger has all that was accepted; return the figures that say so.

    Raises `DemoFailed` when that takes longer than a minute.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline:
        figures = await asyncio.to_thread(_figures, dev)
        complete = figures["tallygate_completeness_ratio"] == 1.0
        idle = not figures["tallygate_ingest_lag_seconds"]
        if complete and idle and figures["tallygate_events_persisted_total"] >= events:
            return figures
        await asyncio.sleep(POLL_S)
    raise DemoFailed(f"the ledger did not get all events within {SETTLE_TIMEOUT_S:.0f} s")


async def report(dev: Dev, outcome: Outcome, figures: dict[str, float]) -> list[Sheet]:
    """Return the tables that the demo ends with."""
    async with channel(Target.control(dev.settings, dev.process.control_addresses[0])) as lent:
        admin = admin_pb2_grpc.AdminServiceStub(lent)
        usage = await admin.QueryUsage(admin_pb2.QueryUsageRequest())
    cuts = statistics.quantiles(outcome.latencies_s, n=100)
    in_ledger = sum(total.count for total in usage.totals)
    rows: list[tuple[str, Cell]] = [
        ("calls", outcome.allowed + outcome.refused),
        ("allowed", outcome.allowed),
        ("refused", outcome.refused),
        *((f"  by {limit}", count) for limit, count in sorted(outcome.refused_by.items())),
        ("events accepted", outcome.events),
        ("events in ledger", in_ledger),
        ("completeness", f"{figures['tallygate_completeness_ratio']:.0%}"),
        ("ingest lag", f"{figures['tallygate_ingest_lag_seconds']:.1f} s"),
        ("calls per second", int((outcome.allowed + outcome.refused) / outcome.elapsed_s)),
        (f"p50 with {CALLERS} callers", f"{cuts[49] * 1000:.1f} ms"),
        (f"p99 with {CALLERS} callers", f"{cuts[98] * 1000:.1f} ms"),
    ]
    totals = [(total.meter, total.tenants, total.count, int(total.sum)) for total in usage.totals]
    if in_ledger != outcome.events:
        raise DemoFailed(f"{outcome.events} events were accepted, the ledger has {in_ledger}")
    return [
        Sheet("decisions", ("what", "value"), rows),
        Sheet("usage", ("meter", "tenants", "events", "sum"), totals),
    ]


async def _call_all(
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub",
    requests: Iterator[quota_pb2.CheckAndConsumeRequest],
    outcome: Outcome,
    note: Callable[[], None],
) -> None:
    for request in requests:
        started = time.perf_counter()
        reply = await _call(quota, request)
        outcome.latencies_s.append(time.perf_counter() - started)
        if reply.allowed:
            outcome.allowed += 1
            outcome.events += len(reply.event_ids)
        else:
            outcome.refused_by[reply.refused_by] += 1
        note()


async def _call(
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub", request: quota_pb2.CheckAndConsumeRequest
) -> quota_pb2.CheckAndConsumeResponse:
    """Call until there is an answer, as a client should: the operation id makes a retry safe."""
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            return await quota.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            retries = error.code() is grpc.StatusCode.UNAVAILABLE
            if not retries or time.monotonic() >= deadline:
                raise DemoFailed(f"{error.code().name}: {error.details()}") from error
        await asyncio.sleep(POLL_S)


def _requests() -> Iterator[quota_pb2.CheckAndConsumeRequest]:
    for number, line in enumerate(demo_file("access.log").splitlines()):
        logged = access_log.parse(line)
        request = quota_pb2.CheckAndConsumeRequest(
            tenant_id=logged.client, operation_id=f"demo-{number}"
        )
        request.context.resource_id = logged.path
        request.items.add(
            meter=REQUESTS_METER,
            amount=1,
            dimensions={"method": logged.method, "status": logged.status},
        )
        if logged.size:
            request.items.add(meter=BYTES_METER, amount=logged.size)
        yield request


def _figures(dev: Dev) -> dict[str, float]:
    """Return the unlabelled metrics, as a scraper gets them."""
    host = dev.settings.ops_address.rpartition(":")[0]
    url = f"http://{host}:{dev.process.ops_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        text = reply.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.M)}
