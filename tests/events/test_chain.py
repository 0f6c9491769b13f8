"""From a sender's event and an app's row to the ledger: one process of every role, real servers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.pool import Postgres
from tallygate.ports import CatalogChange
from tallygate.settings import Settings
from tallygate.settings_sources import load_settings
from tallygate.wiring.capturing import capturing
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.capture.world import TABLE, App, app
from tests.events.test_rules import cloud
from tests.servers import connection, eventually
from tests.transports import TRANSPORT

FREE = "127.0.0.1:0"
CATALOG = """\
version: 1
default_plan: free
meters:
  tokens: {}
  calls: {aggregation: count}
  rows: {aggregation: count}
  storage: {aggregation: time_weighted}
plans: {free: {limits: []}}
ingest:
  events:
    - {type: prompt, meter: tokens, value: $.tokens, dimensions: {model: $.model}}
    - {type: prompt, meter: calls}
"""
WAIT_S = 60.0

Row = tuple[str, str, int]


def settings_of(redis_url: str, dsn: str, folder: Path) -> Settings:
    """Return what a process of all roles is told, and who records by it."""
    given: dict[str, Any] = {
        "redis_url": redis_url,
        "postgres_dsn": dsn,
        "capture_dsn": dsn,
        "grpc_address": f"unix:{folder}/s.sock",
        "control_address": FREE,
        "ops_address": FREE,
        "http_address": FREE,
        "data_dir": str(folder / "data"),
        "capture_poll_ms": 10,
        "shards": 1,
        # A machine full of tests is slow; that is no outage.
        "breaker_hang_ms": 20_000,
        "redis_timeout_ms": 20_000,
        "transport": TRANSPORT,
    }
    return load_settings(given, environ={})


async def apply(dsn: str) -> None:
    """Put the catalog in place, as of now."""
    postgres = Postgres(dsn)
    parsed = parse(CATALOG)
    now_us = SystemClock().now_us()
    change = CatalogChange(parsed.catalog, parsed.tenants, CATALOG, now_us)
    await PostgresCatalogStore(postgres).write(change, 0)
    await postgres.close()


async def ledger(dsn: str, *meters: str) -> list[Row]:
    """Return what the ledger has of some meters: whose, of what, how much."""
    async with connection(dsn) as opened:
        rows = await opened.fetch(
            "select tenant_id, meter, amount from tallygate.usage_event"
            " where meter = any($1) order by tenant_id, meter, event_time, amount desc",
            [*meters],
        )
    return [(row["tenant_id"], row["meter"], row["amount"]) for row in rows]


@asynccontextmanager
async def sender(settings: Settings) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Run every role; lend a session, and the address of events."""
    roles = frozenset((Role.SERVE, Role.INGEST, Role.CONTROL))
    async with running(settings, roles) as process, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{process.http_port}/api/v1/events"
        await eventually(process.ready, WAIT_S, what="a catalog")
        yield http, url


async def captured(world: App, expected: Sequence[Row], dsn: str) -> None:
    """Wait until the ledger has what was captured, and the outbox has nothing."""

    async def handed_on() -> bool:
        return await ledger(dsn, "rows", "storage") == [*expected]

    await eventually(handed_on, WAIT_S, what="what was captured")
    assert await world.sql.fetchval("select count(*) from tallygate.captured") == 0


async def test_events_and_rows_reach_the_ledger_once(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """An event sent twice is there once; a level that comes to nothing is taken back."""
    settings = settings_of(redis_url, postgres_dsn, tmp_path)
    await apply(postgres_dsn)
    async with sender(settings) as (http, url):

        async def sent(*events: Any) -> int:
            async with http.post(url, json=[*events]) as answer:
                return answer.status

        async def accepted() -> bool:
            return await sent(cloud(time=None)) == 204

        # The rules are read by a loop, and so is a sidecar's catalog.
        await eventually(accepted, WAIT_S, what="an event taken")
        assert await sent(cloud(time=None), cloud(time=None, source="other")) == 204

        async def stored() -> bool:
            return len(await ledger(postgres_dsn, "tokens", "calls")) == 4

        await eventually(stored, WAIT_S, what="events in the ledger")
        tokens = ("acme", "tokens", 7)
        assert await ledger(postgres_dsn, "tokens") == [tokens, tokens]
        async with app(postgres_dsn) as world, capturing(settings):
            await world.capture("rows")
            await world.level("storage")
            await world.insert("acme", "abc", "de")
            row, level = ("acme", "rows", 1), ("acme", "storage", 5)
            await captured(world, [row, row, level], postgres_dsn)
            await world.sql.execute(f"delete from {TABLE}")
            nothing = [("acme", "storage", 1), ("acme", "storage", -1)]
            await captured(world, [row, row, level, *nothing], postgres_dsn)
