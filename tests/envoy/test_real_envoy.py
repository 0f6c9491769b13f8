"""A real Envoy, configured as docs/envoy.md has it, is limited by a plan; the ledger has it all."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import yaml

from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tallygate.settings import Settings
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.envoy.world import BODY, Edge, catalog, configuration, edge, sidecar
from tests.servers import eventually

LIMIT = 5
CALLS = LIMIT + 3


def parts() -> dict[str, Any]:
    """Return the page's catalog, its daily limit low enough to be reached."""
    found = catalog()
    limits = [{**each, "limit": LIMIT} for each in found["plans"]["free"]["limits"][:1]]
    return {**found, "plans": {"free": {"limits": [*limits]}}}


@asynccontextmanager
async def ingesting(folder: Path, redis_url: str, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Drain the streams into a ledger; give a connection to it."""
    chosen: dict[str, Any] = {
        "redis_url": redis_url,
        "postgres_dsn": dsn,
        "data_dir": folder / "ingest",
        "ops_address": "127.0.0.1:0",
    }
    settings = Settings(**chosen)
    async with running(settings, frozenset({Role.INGEST})):
        connection = await asyncpg.connect(dsn)
        try:
            yield connection
        finally:
            await connection.close()


async def ledger(connection: asyncpg.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """Return what the ledger has: events and units, by tenant and meter."""
    rows = await connection.fetch(
        "select tenant_id, meter, count(*) as events, sum(amount)::bigint as units"
        " from tallygate.usage_event group by tenant_id, meter"
    )
    return {(row["tenant_id"], row["meter"]): (row["events"], row["units"]) for row in rows}


async def test_limited_exactly(tmp_path: Path, redis_url: str, postgres_dsn: str) -> None:
    """So many calls pass as the plan allows, then 429 with headers; usage and bytes are billed.

    Envoy waits 20 ms for each answer, and refuses by 500 what it has none for: a machine that
    others keep busy may need a second tenant to see a row of calls without one.
    """
    async with (
        ingesting(tmp_path, redis_url, postgres_dsn) as found,
        sidecar(tmp_path, redis_url, parts()) as asked,
        edge(asked.address) as envoy,
    ):
        tried: list[str] = []
        seen: dict[str, Counter[int]] = {}

        async def row() -> Counter[int] | None:
            tenant = f"tenant-{len(tried)}"
            tried.append(tenant)
            answers = [await envoy.get(tenant) for _ in range(CALLS)]
            seen[tenant] = Counter(status for status, _ in answers)
            assert seen[tenant][200] <= LIMIT
            if 500 in seen[tenant]:
                return None
            assert [status for status, _ in answers] == [200] * LIMIT + [429] * (CALLS - LIMIT)
            passed, refused = answers[0][1], answers[-1][1]
            assert passed["ratelimit-policy"] == f'"requests-per-day";q={LIMIT}'
            assert passed["ratelimit"].startswith(f'"requests-per-day";r={LIMIT - 1};t=')
            assert refused["ratelimit"].startswith('"requests-per-day";r=0;t=')
            assert int(refused["retry-after"]) > 0
            assert refused["x-envoy-ratelimited"] == "true"
            return seen[tenant]

        await eventually(row, timeout_s=60)
        counters = await envoy.counters("cluster.app.ratelimit")
        assert counters["cluster.app.ratelimit.ok"] >= LIMIT
        assert counters["cluster.app.ratelimit.over_limit"] >= CALLS - LIMIT
        await _billed(envoy, found, tried[-1])
        # Whoever names nobody is not served, as Envoy would not even ask.
        async with envoy.session.get(envoy.url) as response:
            assert response.status == 401


async def _billed(envoy: Edge, found: asyncpg.Connection, tenant: str) -> None:
    """Wait until the ledger has a tenant's calls, and each of their entries of the access log."""
    logged: dict[tuple[str, str], tuple[int, int]] = {}

    async def whole() -> bool:
        logged.update(await ledger(found))
        return (tenant, "egress_bytes") in logged and logged[tenant, "egress_bytes"][0] == CALLS

    await eventually(whole, timeout_s=30)
    assert logged[tenant, "requests"] == (LIMIT, LIMIT)
    _, units = logged[tenant, "egress_bytes"]
    # Headers of Envoy's come to the bodies.
    assert LIMIT * len(BODY) < units < LIMIT * len(BODY) + CALLS * 1_000


async def test_sidecar_away(tmp_path: Path, redis_url: str) -> None:
    """Where nobody answers, Envoy does as its failure mode says; it asks again when it is back."""
    config = configuration()
    lenient = yaml.safe_load(yaml.safe_dump(config).replace("deny: true", "deny: false"))
    async with sidecar(tmp_path, redis_url, parts()) as asked:
        address = asked.address
    async with edge(address, lenient) as envoy:
        assert (await envoy.get("acme"))[0] == 200
        async with sidecar(tmp_path, redis_url, parts(), envoy_address=(address,)) as back:

            async def refused() -> bool:
                return (await envoy.get("acme"))[0] == 429

            await eventually(refused, timeout_s=60)
            assert back.count("envoy_descriptors_total", outcome="ok") == LIMIT


TYPE = "type.googleapis.com/envoy.extensions"
LOGGER = f"{TYPE}.access_loggers.grpc.v3.TcpGrpcAccessLogConfig"
CONNECTIONS: dict[str, Any] = {
    "name": "connections",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10001}},
    "filter_chains": [
        {
            "filters": [
                {
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": "connections",
                        "cluster": "app",
                        "access_log": [
                            {
                                "name": "envoy.access_loggers.tcp_grpc",
                                "typed_config": {
                                    "@type": LOGGER,
                                    "common_config": {
                                        "log_name": "connections",
                                        "transport_api_version": "V3",
                                        "buffer_flush_interval": "0.1s",
                                        "grpc_service": {
                                            "envoy_grpc": {"cluster_name": "tallygate"}
                                        },
                                    },
                                },
                            }
                        ],
                    },
                }
            ]
        }
    ],
}


async def test_connections_are_billed(tmp_path: Path, redis_url: str) -> None:
    """Bytes of a connection through a real Envoy are usage once it has ended, each byte of them."""
    config = configuration()
    config["static_resources"]["listeners"].append(CONNECTIONS)
    rule = {"kind": "tcp", "tenant": {"field": "cluster"}, "meters": {"egress_bytes": "sent_bytes"}}
    found = catalog(envoy={"access_logs": [rule]})
    async with sidecar(tmp_path, redis_url, found) as asked, edge(asked.address, config) as envoy:
        reader, writer = await asyncio.open_connection("127.0.0.1", envoy.tcp)
        writer.write(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.endswith(BODY)

        def recorded() -> bool:
            return asked.count("envoy_log_events_total", outcome="recorded") == 1

        await eventually(recorded, timeout_s=30)
        async with grpc.aio.insecure_channel(asked.process.grpc_addresses[0]) as channel:
            stub = quota_pb2_grpc.QuotaServiceStub(channel)
            question = quota_pb2.GetQuotaRequest(tenant_id="app", meters=["egress_bytes"])
            (limit,) = (await stub.GetQuota(question)).limits
        assert limit.used == len(answer)
