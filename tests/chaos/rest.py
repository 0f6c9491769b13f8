"""What is found when the faults are over: ledger, counters, rollups, numbers, messages.

Owns waiting until nothing lags, and reading each store past the product where that can be done.
Refuses to judge what is found.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, cast

import asyncpg
import grpc
from redis.exceptions import RedisError

from tallygate.domain.ids import SourceId, epoch_of
from tallygate.gen.v1 import quota_pb2
from tests.chaos.callers import METER, TIMEOUT_S, Line
from tests.chaos.installation import DESTINATION, Installation
from tests.e2e.calls import LOST
from tests.oracle.facts import Counter, Lane, Message, Rest, Rollup, Row
from tests.servers import connection

SHARDS: Final = 16
POLL_S: Final = 0.2

EVENTS: Final = """
select tenant_id, event_id, meter, amount, tallygate.microseconds(event_time) as event_us,
       tallygate.microseconds(received_at) as received_us, operation_id, source_id, source_lane,
       source_seq, counter_epoch, refund_of
from tallygate.usage_event
"""
DAYS: Final = """
select tenant_id, meter, tallygate.microseconds(bucket) as starts_us,
       tallygate.microseconds(bucket + interval '1 day') as ends_us, count, sum::bigint
from tallygate.usage_day
"""
WRONG_BUCKETS: Final = """
with told as (
    select tenant_id, meter, date_trunc('{unit}', event_time, 'UTC') as bucket,
           count(*) filter (where refund_of = '') as count, sum(amount) as sum
    from tallygate.usage_event group by 1, 2, 3
)
select count(*) from told full join tallygate.usage_{unit} as kept
    using (tenant_id, meter, bucket)
where told.count is distinct from kept.count or told.sum is distinct from kept.sum
"""
PROGRESS: Final = "select source_id, source_lane, seen::text from tallygate.source_progress"
WAITING: Final = "select count(*) from tallygate.delivery where state = 'pending'"
UNCORRECTED: Final = "select count(*) from tallygate.counter_correction where finished_at is null"
OUTBOX: Final = """
select m.id::text as id, d.destination, d.state, m.payload
from tallygate.outbox m join tallygate.delivery d on d.message_id = m.id
"""
_RANGE: Final = re.compile(r"\[(\d+),(\d+)\)")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant's monthly limit is to be read: what may refuse, and by how much it may pass."""

    tenant: str
    limit: int | None
    allowance: int = 0


async def drained(place: Installation, timeout_s: float) -> float | None:
    """Wait until nothing waits anywhere; return how many seconds it took, None if it never did."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        try:
            if await _nothing_waits(place):
                return time.monotonic() - began
        except (RedisError, OSError, asyncpg.PostgresError):
            pass
        await asyncio.sleep(POLL_S)
    return None


async def rest(
    place: Installation,
    lines: Sequence[Line],
    standings: Iterable[Standing],
    drained_s: float | None,
) -> Rest:
    """Read everything, once nothing moves any more."""
    async with connection(place.ground.near_dsn) as opened:
        rows = [
            Row(
                tenant=each["tenant_id"], event=each["event_id"], meter=each["meter"],
                amount=each["amount"], event_time_us=each["event_us"],
                received_us=each["received_us"], operation=each["operation_id"],
                source=each["source_id"], lane=each["source_lane"], seq=each["source_seq"],
                epoch=each["counter_epoch"], refund_of=each["refund_of"],
            )
            for each in await opened.fetch(EVENTS)
        ]  # fmt: skip
        days = [Rollup(*each) for each in await opened.fetch(DAYS)]
        letters = await opened.fetch("select tenant_id, event_id from tallygate.dead_letter")
        outbox = await opened.fetch(OUTBOX)
        progress = await opened.fetch(PROGRESS)
    return Rest(
        ledger=tuple(rows),
        counters=tuple([await _counter(lines, each) for each in standings]),
        rollups=tuple(days),
        lanes=tuple(await _lanes(place, progress)),
        wanted=tuple(_message(each["id"], each["payload"]) for each in outbox),
        taken=tuple(
            _message(each.message_id, each.payload) for each in place.receiver.accepted
        ),
        parked=frozenset(each["id"] for each in outbox if each["state"] == "parked"),
        dead_letters=tuple((each["tenant_id"], each["event_id"]) for each in letters),
        journal_left=await journal_left(place),
        drained_s=drained_s,
    )  # fmt: skip


async def wrong_buckets(place: Installation) -> dict[str, int]:
    """Return how many buckets of each rollup differ from the ledger."""
    async with connection(place.ground.near_dsn) as opened:
        return {
            unit: await opened.fetchval(WRONG_BUCKETS.format(unit=unit))
            for unit in ("minute", "hour", "day")
        }


async def journal_left(place: Installation) -> int:
    """Return what the sidecars' journals hold that the ledger has not confirmed."""
    left = 0.0
    for worker in place.fleet.named("serve"):
        for metric in ("unconfirmed_events", "pending_operations"):
            left += await metric_of(place, worker.name, f"tallygate_journal_{metric}")
    return int(left)


async def metric_of(place: Installation, name: str, metric: str) -> float:
    """Return a metric without labels of one process, 0 where there is none yet."""
    _, text = await place.fleet.workers[name].page("/metrics")
    found = re.search(rf"^{metric} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def _nothing_waits(place: Installation) -> bool:
    client = place.ground.redis.client()
    try:
        # What was acknowledged is trimmed, so that a stream at rest is empty.
        for shard in range(SHARDS):
            if await client.xlen(f"{{tg:{shard:02x}}}:s"):
                return False
    finally:
        await client.aclose()
    if await journal_left(place):
        return False
    async with connection(place.ground.near_dsn) as opened:
        return not (await opened.fetchval(WAITING) or await opened.fetchval(UNCORRECTED))


async def quota_of(line: Line, tenant: str) -> quota_pb2.GetQuotaResponse:
    """Read where a tenant stands, as soon as its shard's counters are whole."""
    request = quota_pb2.GetQuotaRequest(tenant_id=tenant)
    until = time.monotonic() + 10 * TIMEOUT_S
    while True:
        try:
            return await line.quota.GetQuota(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in LOST or time.monotonic() > until:
                raise
            await asyncio.sleep(POLL_S)


async def _counter(lines: Sequence[Line], standing: Standing) -> Counter:
    reply = await quota_of(lines[0], standing.tenant)
    [used] = [each.used for each in reply.limits if each.limit_id == "monthly"]
    starts = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = starts.replace(year=starts.year + starts.month // 12, month=starts.month % 12 + 1)
    return Counter(
        standing.tenant,
        "monthly",
        METER,
        frozenset({standing.tenant}),
        round(starts.timestamp()) * 1_000_000,
        round(ends.timestamp()) * 1_000_000,
        used,
        limit=standing.limit,
        allowance=standing.allowance,
    )


async def _lanes(place: Installation, progress: Iterable[asyncpg.Record]) -> list[Lane]:
    client = place.ground.redis.client()
    given: dict[tuple[str, int], int] = {}
    epochs: dict[int, str] = {}
    try:
        for shard in range(SHARDS):
            fields = await client.hgetall(f"{{tg:{shard:02x}}}:m")
            epochs[shard] = cast(dict[bytes, bytes], fields).get(b"epoch", b"").decode()
            for name, value in cast(dict[bytes, bytes], fields).items():
                # Beside the sources' numbers, there is what the shard says of itself.
                if b"." in name and value.isdigit():
                    given[name.decode(), shard] = int(value)
    finally:
        await client.aclose()
    lanes: list[Lane] = []
    for each in progress:
        ranges = [(int(a), int(b) - 1) for a, b in _RANGE.findall(each["seen"])]
        gaps = [(b + 1, c - 1) for (_, b), (c, _) in pairwise(ranges)]
        if ranges and ranges[0][0] > 1:
            gaps.insert(0, (1, ranges[0][0] - 1))
        key = (each["source_id"], each["source_lane"])
        persisted = sum(b - a + 1 for a, b in ranges)
        highest = ranges[-1][1] if ranges else 0
        accepted = given.pop(key, highest)
        if epoch_of(SourceId(key[0])) != epochs[key[1]]:
            # Of an epoch that was given up, Redis may know less than the ledger.
            accepted = max(accepted, highest)
        lanes.append(Lane(*key, accepted, persisted, gaps=tuple(gaps)))
    lanes += [Lane(*key, accepted, 0) for key, accepted in given.items() if accepted]
    return lanes


def _message(message_id: str, payload: bytes) -> Message:
    told = json.loads(payload)
    events = told["data"]["events"] if told["type"] == "usage.batch" else []
    pairs = tuple((each["tenant_id"], each["event_id"]) for each in events)
    return Message(message_id, DESTINATION, pairs, payload)
