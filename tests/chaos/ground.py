"""The servers under an installation: a Redis with its replica, Postgres, and the ways to them.

Owns who is primary, and the proxies that every process goes through. Guarantees that no process
can reach a Redis that was deposed. Refuses to know the processes.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.embedded import EmbeddedPostgres, EmbeddedRedis
from tallygate.adapters.embedded.redis import free_port
from tests.faults.proxy import Proxy, proxied
from tests.servers import RedisBinary, eventually, redis_binaries

LOOK_TIMEOUT_S: Final = 30.0
SYNC_TIMEOUT_S: Final = 60.0
POSTGRES_SOCKET: Final = ".s.PGSQL.5432"


@dataclass(slots=True)
class Node:
    """One Redis server, and its address for its peer."""

    server: EmbeddedRedis
    port: int

    @property
    def address(self) -> str:
        """Where its peer and the proxies reach it."""
        return f"127.0.0.1:{self.port}"


@dataclass(slots=True)
class RedisPair:
    """A primary and its replica, which follows it over a link that can be cut."""

    primary: Node
    replica: Node
    link: Proxy
    ways: Mapping[str, Proxy] = field(default_factory=dict)
    failovers: int = 0

    def client(self) -> Redis:
        """Return a client of the primary, past the proxies; the caller closes it."""
        return Redis.from_url(self.primary.server.url, socket_timeout=LOOK_TIMEOUT_S)

    async def follow(self) -> None:
        """Have the replica follow the primary, and wait until it has all of its data."""
        self.link.target = self.primary.address
        self.link.heal()
        self.link.reset()
        client = Redis.from_url(self.replica.server.url, socket_timeout=LOOK_TIMEOUT_S)
        try:
            await client.replicaof("127.0.0.1", str(self.link.port))

            async def follows() -> bool:
                try:
                    told = await client.info("replication")
                except (RedisError, OSError):
                    return False
                return bool(told["role"] == "slave" and told["master_link_status"] == "up")

            await eventually(follows, SYNC_TIMEOUT_S, what="a replica in step")
        finally:
            await client.aclose()

    async def depose(self) -> None:
        """Kill the primary and put the replica in its place, with whatever it had by then."""
        await self.primary.server.kill()
        client = Redis.from_url(self.replica.server.url, socket_timeout=LOOK_TIMEOUT_S)
        try:
            await client.replicaof("NO", "ONE")
        finally:
            await client.aclose()
        self.primary, self.replica = self.replica, self.primary
        self.failovers += 1
        for way in self.ways.values():
            way.target = self.primary.address
            way.reset()

    async def return_deposed(self) -> None:
        """Start the one that was killed, as a replica of the one that took its place."""
        if not self.replica.server.running:
            await self.replica.server.start()
        await self.follow()


@dataclass(slots=True)
class Ground:
    """Redis and Postgres, and the ways to them by who goes there."""

    redis: RedisPair
    postgres: EmbeddedPostgres
    to_redis: dict[str, Proxy]
    to_postgres: Proxy

    @property
    def dsn(self) -> str:
        """The database's address, through the proxy."""
        port = self.to_postgres.port
        return f"postgresql://postgres@127.0.0.1:{port}/tallygate?sslmode=disable"

    @property
    def near_dsn(self) -> str:
        """The database's address, past the proxy."""
        return self.postgres.dsn

    def heal(self) -> None:
        """End every fault of the network."""
        for each in (*self.to_redis.values(), self.to_postgres, self.redis.link):
            each.heal()


def newest_binary() -> RedisBinary:
    """Return the redis-server that an operator would most likely run."""
    return max(redis_binaries(), key=lambda each: each.version)


def _postgres_socket(dsn: str) -> str:
    return f"{parse_qs(urlsplit(dsn).query)['host'][0]}/{POSTGRES_SOCKET}"


@asynccontextmanager
async def ground(
    folder: Path, *ways: str, seed: int = 0, replica: bool = True
) -> AsyncIterator[Ground]:
    """Start Redis, its replica, Postgres, and a proxy to Redis for each of the ways."""
    binary = newest_binary()
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for name in ("redis-a", "redis-b"):
            port = free_port()
            server = EmbeddedRedis(folder / name, binary=binary.path, tcp_port=port)
            if not nodes or replica:
                await stack.enter_async_context(server)
            nodes.append(Node(server, port))
        link = await stack.enter_async_context(proxied(nodes[0].address, seed=seed))
        to_redis = {
            way: await stack.enter_async_context(proxied(nodes[0].address, seed=seed + number))
            for number, way in enumerate(ways, 1)
        }
        pair = RedisPair(nodes[0], nodes[1], link, to_redis)
        if replica:
            await pair.follow()
        # Not synced: a killed server loses nothing that it has written, and the disk is spared.
        postgres = await stack.enter_async_context(
            EmbeddedPostgres(folder / "postgres", unsafe_fast=True)
        )
        to_postgres = await stack.enter_async_context(
            proxied(_postgres_socket(postgres.dsn), seed=seed)
        )
        yield Ground(pair, postgres, to_redis, to_postgres)
