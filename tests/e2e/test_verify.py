"""The whole installation verified by the command: at rest, under load, and one unit off."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from tests.e2e import catalogs
from tests.e2e.calls import LOST, Load, consume, quota
from tests.e2e.processes import Finished, Server, rows_of, site, tallygate
from tests.servers import connection, eventually

CATALOG = """\
version: 1
meters:
  requests: {aggregation: sum, unit: request}
plans:
  prepaid:
    limits:
      - {id: credits, meter: requests, kind: balance}
      - {id: daily, meter: requests, kind: window, period: day, limit: 1_000_000}
tenants:
  acme: {plan: prepaid}
"""
WINDOW = CATALOG.replace("      - {id: credits, meter: requests, kind: balance}\n", "")
SETTLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Parts:
    """A whole installation."""

    serve: Server
    control: Server
    settings: dict[str, Any]

    async def verify(self) -> Finished:
        """Run the verb."""
        return await tallygate("verify", "--json", **self.settings)

    async def key(self, kind: str) -> tuple[Redis, str]:
        """Return a client, and the key of acme's account."""
        client = Redis.from_url(self.settings["redis_url"])
        (name,) = [each async for each in client.scan_iter(match=f"*:{kind}:*:acme")]
        return client, name.decode()


@pytest.fixture
async def parts(tmp_path: Path, redis_url: str, postgres_dsn: str) -> AsyncIterator[Parts]:
    """A sidecar, an ingester and a control; acme has credits."""
    settings: dict[str, Any] = {"redis_url": redis_url, "postgres_dsn": postgres_dsn}
    async with site(tmp_path, redis_url=redis_url) as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        await place.start("ingest", postgres_dsn=postgres_dsn)
        serve = await place.start("serve")
        to = ("--control-address", control.address)
        applied = await tallygate("apply", "-f", catalogs.write(tmp_path, CATALOG), *to)
        assert applied.code == 0, applied.err + applied.out
        given = await tallygate("credit", "grant", "acme", "credits", 100_000, "--id", "one", *to)
        assert given.code == 0, given.err

        async def usable() -> bool:
            async with quota(serve.address) as stub:
                try:
                    return (await stub.CheckAndConsume(consume("first", 1, "acme"))).allowed
                except grpc.aio.AioRpcError as error:
                    if error.code() not in LOST:
                        raise
                    return False

        await eventually(usable, SETTLE_S, what="credits in the counters")
        yield Parts(serve, control, settings)


async def test_a_live_installation_verifies(parts: Parts) -> None:
    """While calls go on, nothing differs; a unit planted in the balance is named, and exit is 1."""
    load = Load(parts.serve.address, "op", "acme")
    sending = asyncio.create_task(load.send(1_500))
    live = await parts.verify()
    await sending
    assert live.code == 0, live.out + live.err
    compared = live.figures("compared")
    assert compared["counters"] >= 2
    assert compared["numbers given out"] > 0

    async def stored() -> bool:
        async with connection(parts.settings["postgres_dsn"]) as admin:
            found = await admin.fetchval("select count(*) from tallygate.usage_event")
        return int(found) == 1_501

    await eventually(stored, SETTLE_S, what="all events in the ledger")
    client, key = await parts.key("a")
    text = await client.hget(key, "credits/balance")
    assert isinstance(text, bytes)
    head, _, left = text.decode().rpartition(":")
    await client.hset(key, "credits/balance", f"{head}:{int(left) - 1}")
    await client.aclose()
    off = await parts.verify()
    (found,) = rows_of(off, "differences")
    assert (off.code, found["check"], found["what"]) == (1, "balance", "credits")
    assert (found["where"], found["expected"], found["found"]) == (
        "grant 1",
        int(left),
        int(left) - 1,
    )


async def test_a_redis_that_was_emptied_verifies(
    tmp_path: Path, redis_url: str, postgres_dsn: str
) -> None:
    """Emptied under load, rebuilt from ledger and journal: counters and numbers agree again."""
    settings: dict[str, Any] = {"redis_url": redis_url, "postgres_dsn": postgres_dsn}
    async with site(tmp_path, redis_url=redis_url) as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        await place.start("ingest", postgres_dsn=postgres_dsn)
        serve = await place.start("serve")
        file = catalogs.write(tmp_path, WINDOW)
        await tallygate("apply", "-f", file, "--control-address", control.address)
        load = Load(serve.address, "op", "acme")
        sending = asyncio.create_task(load.send(300))
        await eventually(lambda: len(load.answered) > 100, SETTLE_S, what="calls before the loss")
        client = Redis.from_url(redis_url)
        await client.flushall()
        await client.aclose()
        await sending

        async def stored() -> bool:
            async with connection(postgres_dsn) as admin:
                found = await admin.fetchval("select count(*) from tallygate.usage_event")
            return int(found) == 300

        await eventually(stored, SETTLE_S, what="each event in the ledger once")
        finished = await tallygate("verify", "--json", **settings)
        assert finished.code == 0, finished.out + finished.err
        assert finished.figures("compared")["counters"] == 1
