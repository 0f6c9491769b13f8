"""A real installation for the cases: Redis, Postgres, and a sidecar that also ingests.

Owns its catalog and what its ledger holds. Guarantees that a tenant of the default plan has
counters of its own. Refuses to know clients.
"""

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.postgres.migrate import migrate
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc, quota_pb2, quota_pb2_grpc
from tests.e2e.processes import site
from tests.servers import UNSYNCED, connection, eventually, quick_folder
from tests.tls.certs import Authority

CATALOG: Final = """\
version: 1
default_plan: cases
meters:
  requests: {aggregation: sum, unit: request}
  scarce: {aggregation: sum, unit: request}
  tokens: {aggregation: sum, unit: token}
  huge: {aggregation: sum, unit: unit}
  images: {aggregation: sum, unit: image, late_horizon: 1h}
  egress_bytes: {aggregation: sum, unit: byte}
plans:
  cases:
    limits:
      - {id: monthly, meter: requests, kind: window, period: month, limit: 1_000_000}
      - {id: ten, meter: scarce, kind: window, period: month, limit: 10}
      - {id: tokens, meter: tokens, kind: window, period: month, limit: 1_000}
      - {id: per-model, meter: images, kind: window, period: month, limit: 5, per: model}
      - {id: egress, meter: egress_bytes, kind: window, period: month, limit: 1_000_000_000}
tenants:
  suspended: {plan: cases, suspended: true}
"""

APPLY_TIMEOUT_S: Final = 30.0
TENANTS_OF_EVERY_SHARD: Final = 100
"""Tenants hash to 16 shards: that one of them has none of a hundred is one chance in forty."""

_ROWS: Final = """\
select tenant_id, event_id, operation_id, meter, amount, sdk, subject_id, refund_of,
       reservation_id, dimensions::text, metadata::text
from tallygate.usage_event where tenant_id = any($1) order by event_id collate "C"
"""


@dataclass(frozen=True, slots=True)
class Papers:
    """What a server and a client prove themselves with, as files."""

    server: ssl.SSLContext
    ca_file: Path
    cert_file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class World:
    """What runs: the sidecar's address, a channel to it, the ledger, and room for sockets."""

    address: str
    channel: grpc.aio.Channel
    dsn: str
    folder: Path
    papers: Papers

    async def events(self, *tenants: str) -> list[dict[str, Any]]:
        """Return the ledger's events of some tenants."""
        async with connection(self.dsn) as opened:
            return [dict(row) for row in await opened.fetch(_ROWS, tenants)]


@asynccontextmanager
async def servers() -> AsyncIterator[tuple[str, str]]:
    """Start a Redis and a migrated Postgres of the run's own; give their addresses."""
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as otherwise,
        quick_folder(Path(otherwise)) as folder,
    ):
        redis = EmbeddedRedis(folder / "redis", options=UNSYNCED)
        postgres = EmbeddedPostgres(folder / "postgres", unsafe_fast=True)
        async with redis, postgres:
            await migrate(postgres.dsn)
            yield redis.url, postgres.dsn


@asynccontextmanager
async def world(redis_url: str, dsn: str) -> AsyncIterator[World]:
    """Start a sidecar that ingests, on these servers."""
    async with AsyncExitStack() as stack:
        # Sockets lie in it, whose paths may have some hundred characters.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
        settings = {
            "redis_url": redis_url,
            "postgres_dsn": dsn,
            "redis_timeout_ms": 10_000,
        }
        place = await stack.enter_async_context(site(folder, **settings))
        server = await place.start("serve", "--with", "ingest,control")
        address, control = server.address.split(", ")
        async with grpc.aio.insecure_channel(control) as lent:
            admin = admin_pb2_grpc.AdminServiceStub(lent)
            applied = await admin.ApplyCatalog(
                admin_pb2.ApplyCatalogRequest(document=CATALOG), timeout=APPLY_TIMEOUT_S
            )
        assert not applied.faults, applied.faults
        await server.ready()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        await _every_shard_answers(channel)
        yield World(address, channel, dsn, folder, papers(folder))


async def _every_shard_answers(channel: grpc.aio.Channel) -> None:
    """Wait until no counters are being made: tenants of every shard are read."""
    stub = quota_pb2_grpc.QuotaServiceStub(channel)
    for number in range(TENANTS_OF_EVERY_SHARD):
        request = quota_pb2.GetQuotaRequest(tenant_id=f"shard-{number}")

        async def answers(request: quota_pb2.GetQuotaRequest = request) -> bool:
            try:
                await stub.GetQuota(request, timeout=APPLY_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return True

        await eventually(answers, APPLY_TIMEOUT_S, what="a shard that answers")


def papers(folder: Path) -> Papers:
    """Make what a server and its clients prove themselves with."""
    authority = Authority()
    ca_file = authority.write(folder)
    own_cert, own_key = authority.server().write(folder, "server")
    cert_file, key_file = authority.client("spiffe://example.org/ns/shop/sa/app").write(
        folder, "client"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_cert, own_key)
    context.load_verify_locations(ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return Papers(context, ca_file, cert_file, key_file)
