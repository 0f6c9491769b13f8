"""Sidecars that race for the last units of a limit by leases: processes, one killed, Redis hung."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import cast

import grpc
import pytest
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import decode_entry
from tallygate.domain.ids import AccountId, TenantId, shard_of
from tallygate.gen.v1 import quota_pb2
from tests.builders import SHARDS
from tests.e2e import catalogs
from tests.e2e.calls import LOST, quota
from tests.e2e.processes import Server, Site, site
from tests.servers import COMMAND_TIMEOUT_S, eventually

SIDECARS = 5
LIMIT = 4_000
BATCH = 25
CALL_TIMEOUT_S = 20.0
UNSETTLED_MAX = 64
TTL_MS = 2_000
SETTLED_S = 30.0
TENANT = TenantId("acme")
SHARD = shard_of(TENANT, SHARDS)
LEASING = {
    "leases": "on",
    # No ingester runs here that could open what is new.
    "counter_rebuild": "none",
    "lease_unsettled_max": UNSETTLED_MAX,
    "lease_ttl_ms": TTL_MS,
    "default_deadline_ms": int(CALL_TIMEOUT_S * 1_000),
    # So that slow machines have no outages that no test is about.
    "breaker_hang_ms": 10_000,
    "redis_timeout_ms": 10_000,
}


@dataclass(slots=True)
class Caller:
    """Asks one sidecar and keeps which operations were granted; looks at Redis after each list."""

    address: str
    name: str
    look: Callable[[], Awaitable[object]]
    granted: list[str] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    lost: bool = False
    numbers: "count[int]" = field(default_factory=count)

    async def run(self, until: Callable[[], bool]) -> None:
        """Ask in batches, each of calls with new ids."""
        async with quota(self.address) as stub:
            while not until():
                request = quota_pb2.BatchCheckAndConsumeRequest()
                for _ in range(BATCH):
                    each = request.requests.add(
                        tenant_id=TENANT, operation_id=f"{self.name}-{next(self.numbers)}"
                    )
                    each.items.add(meter="requests", amount=1)
                try:
                    reply = await stub.BatchCheckAndConsume(request, timeout=CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in LOST:
                        raise
                    self.lost = True
                    return
                self._take(request, reply)
                await self.look()

    def is_refused(self) -> bool:
        """Say whether the limit has refused for some time."""
        return self.refused > 4 * BATCH

    def _take(
        self,
        request: quota_pb2.BatchCheckAndConsumeRequest,
        reply: quota_pb2.BatchCheckAndConsumeResponse,
    ) -> None:
        for asked, result in zip(request.requests, reply.results, strict=True):
            if result.HasField("error"):
                self.failed += 1
            elif result.response.allowed:
                self.granted.append(asked.operation_id)
            else:
                self.refused += 1


@dataclass(slots=True)
class Counters:
    """What Redis holds of the tenant, looked at from beside."""

    client: Redis
    highest: int = 0
    looks: int = 0

    async def used(self) -> int:
        """Return the counter: what was used, and what is held."""
        key = keys.account(SHARD, await self._epoch(), AccountId(TENANT))
        stored = await self.client.hget(key, "monthly/month")
        self.looks += 1
        used = int(cast(bytes, stored).split(b":")[1]) if stored else 0
        self.highest = max(self.highest, used)
        return used

    async def held(self) -> int:
        """Return how many reservations hold of it."""
        key = keys.holds(SHARD, await self._epoch(), AccountId(TENANT))
        return int(await self.client.zcard(key))

    async def _epoch(self) -> str:
        found = cast(bytes | None, await self.client.hget(keys.meta(SHARD), "epoch"))
        return (found or b"").decode()

    async def operations(self) -> list[str]:
        """Return the operation of each event of the stream, in order."""
        found = await self.client.xrange(keys.stream(SHARD))
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], found)
        return [
            event.operation_id
            for entry_id, fields in entries
            for event in decode_entry(SHARD, entry_id.decode(), fields).events
        ]


@asynccontextmanager
async def counters(url: str) -> AsyncIterator[Counters]:
    """Lend a look at Redis."""
    client = Redis.from_url(url, socket_timeout=COMMAND_TIMEOUT_S)
    try:
        yield Counters(client)
    finally:
        await client.aclose()


@pytest.fixture
async def place(tmp_path: Path, own_redis: EmbeddedRedis) -> AsyncIterator[Site]:
    """An installation with leases over one limit."""
    file = catalogs.write(tmp_path, catalogs.limited(LIMIT))
    async with site(tmp_path, redis_url=own_redis.url, catalog=file, **LEASING) as place:
        yield place


async def sidecars(place: Site, number: int) -> list[Server]:
    """Start so many, and wait until each has its catalog."""
    servers = await asyncio.gather(*(place.start("serve") for _ in range(number)))
    for server in servers:

        async def ready(server: Server = server) -> bool:
            return (await server.page("/readyz"))[0] == 200

        await eventually(ready, SETTLED_S, what="a ready sidecar")
    return servers


async def leased(servers: list[Server]) -> int:
    """Return how many calls the sidecars have granted from leases."""
    return int(sum([await each.metric("tallygate_lease_grants_total") for each in servers]))


async def test_race_for_the_last_units(place: Site, own_redis: EmbeddedRedis) -> None:
    """Five sidecars grant a limit's units to the last one, and not one more, leases and all."""
    servers = await sidecars(place, SIDECARS)
    async with counters(own_redis.url) as found:
        callers = [Caller(each.address, f"s{n}", found.used) for n, each in enumerate(servers)]
        # Beyond the first refusals, as leases that are given back may be granted then.
        await asyncio.gather(*(each.run(each.is_refused) for each in callers))
        by_lease = await leased(servers)
        for server in servers:
            assert await server.terminate() == 0
        granted = [name for each in callers for name in each.granted]
        assert by_lease > LIMIT // 10, "the race was run without leases"
        assert len(granted) <= LIMIT
        assert found.highest <= LIMIT
        assert found.looks > 100
        assert await found.held() == 0
        assert await found.used() == len(granted)
        assert sorted(await found.operations()) == sorted(granted)


async def test_killed_holder_returns_what_it_held(place: Site, own_redis: EmbeddedRedis) -> None:
    """After a kill -9, Redis counts what was settled; what was granted beyond is bounded."""
    servers = await sidecars(place, SIDECARS)
    victim, *others = servers

    async def strike() -> None:
        async def busy() -> bool:
            held = await victim.metric("tallygate_leases_held")
            return held > 0 and await victim.metric("tallygate_lease_grants_total") > 0

        await eventually(busy, SETTLED_S, what="a victim with a lease")
        await victim.process.kill()

    async with counters(own_redis.url) as found:
        callers = [Caller(each.address, f"s{n}", found.used) for n, each in enumerate(servers)]
        doomed, *rest = callers
        await asyncio.gather(
            strike(),
            doomed.run(lambda: False),
            *(each.run(lambda: len(doomed.granted) > 0 and doomed.lost) for each in rest),
        )
        # The victim's units come back by Redis' clock: then, and not before, all are used up.

        async def used_up() -> bool:
            await asyncio.gather(*(each.run(once()) for each in rest))
            return len(await found.operations()) == LIMIT

        await eventually(used_up, SETTLED_S, what="a limit that is used up to the last unit")
        for server in others:
            assert await server.terminate() == 0
        operations = await found.operations()
        settled_victim = sum(1 for name in operations if name in set(doomed.granted))
        granted = sum(len(each.granted) for each in callers)
        assert found.highest <= LIMIT
        assert await found.used() == len(operations) == LIMIT
        assert len(set(operations)) == LIMIT
        assert {name for each in rest for name in each.granted} <= set(operations)
        unsettled = len(doomed.granted) - settled_victim
        assert unsettled <= UNSETTLED_MAX
        assert granted <= LIMIT + UNSETTLED_MAX


def once() -> Callable[[], bool]:
    """Return a condition that holds the second time it is asked."""
    asked = count()
    return lambda: next(asked) > 0


async def test_hung_redis_loses_no_grant(place: Site, own_redis: EmbeddedRedis) -> None:
    """Redis hangs for longer than leases last: what was granted before is counted afterwards."""
    place.settings |= {"breaker_hang_ms": 200}
    (server,) = await sidecars(place, 1)
    async with counters(own_redis.url) as found:
        caller = Caller(server.address, "s0", found.used)
        running = asyncio.create_task(caller.run(lambda: len(caller.granted) >= LIMIT // 4))

        async def busy() -> bool:
            return await server.metric("tallygate_lease_grants_total") > 200

        await eventually(busy, SETTLED_S, what="leased calls")
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:

            async def away() -> bool:
                return await server.metric("tallygate_breaker_state") > 0

            await eventually(away, SETTLED_S, what="a sidecar that has noticed")
            # For as long as it takes until whatever was leased has expired.
            over_s = time.monotonic() + TTL_MS / 1_000
            await eventually(lambda: time.monotonic() > over_s, what="leases that are over")
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        await running
        assert await server.terminate() == 0
        operations = await found.operations()
        assert set(caller.granted) <= set(operations)
        assert len(set(operations)) == len(operations)
        assert await found.held() == 0
        assert await found.used() == len(operations)
