"""A Redis Cluster of real servers, whose slots the fault tests move and whose servers they end.

Guarantees: all slots are served before a test sees it; what is moved is moved as Redis' own tools
do it, key by key.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis
from redis.crc import key_slot

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis import keys
from tests.servers import (
    CLUSTER_OPTIONS,
    CLUSTER_SLOTS,
    COMMAND_TIMEOUT_S,
    RedisBinary,
    eventually,
)

PRIMARIES = 3
NODE_TIMEOUT_MS = 1_000
TOGETHER_MAX = 10
JOIN_TIMEOUT_S = 30.0


class Node:
    """A server of the cluster, with a connection of its own that follows no redirection."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server
        self.client = Redis.from_url(server.url, socket_timeout=COMMAND_TIMEOUT_S)
        self.name = ""

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.server.tcp_url.rpartition(":")[2])

    async def ask(self, *words: object) -> Any:
        """Send a command to this server and no other."""
        return await cast(Any, self.client).execute_command(*words)


class Nodes:
    """The servers of a cluster; the first `PRIMARIES` have slots, others are their replicas."""

    def __init__(self, nodes: list[Node]) -> None:
        self.all = nodes
        self.primaries = nodes[:PRIMARIES]

    @property
    def url(self) -> str:
        """The address for `connect`, of two of the servers."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.primaries[:2])
        return f"redis+cluster://{hosts}"

    async def owner(self, slot: int) -> Node:
        """Return the server that says of itself that it serves a slot."""
        for node in self.all:
            if node.server.running and await _serves(node, slot):
                return node
        raise AssertionError(f"nobody serves slot {slot}")

    async def move(self, slot: int, to: Node) -> None:
        """Move a slot with all its keys to a server, as `redis-cli --cluster reshard` does."""
        source = await self.owner(slot)
        if source is to:
            return
        await self.begin_move(slot, source, to)
        while names := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, TOGETHER_MAX):
            await migrate(source, to, names)
        for node in (to, source, *(each for each in self.primaries if each not in (to, source))):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.name)

    async def begin_move(self, slot: int, source: Node, to: Node) -> None:
        """Mark a slot as moving."""
        await to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.name)

    async def reshard(self, shards: int, rounds: int) -> None:
        """Move every shard, and the catalog, from server to server so many times."""
        slots = [slot_of(keys.meta(shard)) for shard in range(shards)]
        for turn in range(rounds):
            for place, slot in enumerate((*slots, slot_of(keys.layout()))):
                await self.move(slot, self.primaries[(place + turn) % PRIMARIES])


async def migrate(source: Node, to: Node, names: list[bytes]) -> None:
    """Move keys from one server to another."""
    timeout_ms = int(COMMAND_TIMEOUT_S * 1000)
    await source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, timeout_ms, "KEYS", *names)


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode()))


async def _serves(node: Node, slot: int) -> bool:
    rows = await node.ask("CLUSTER", "SLOTS")
    return any(
        first <= slot <= last and primary[2].decode() == node.name
        for first, last, primary, *_ in rows
    )


@asynccontextmanager
async def cluster_nodes(
    binary: RedisBinary, folder: Callable[[str], Path], *, replicas: int = 0
) -> AsyncIterator[Nodes]:
    """Run a cluster of `PRIMARIES` servers and some replicas, the first ones' first."""
    options = (
        *CLUSTER_OPTIONS,
        *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
        *("--cluster-require-full-coverage", "no"),
        *("--repl-diskless-sync-delay", "0"),
    )
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for _ in range(PRIMARIES + replicas):
            server = EmbeddedRedis(folder("node"), binary=binary.path, tcp_port=0, options=options)
            await stack.enter_async_context(server)
            node = Node(server)
            stack.push_async_callback(node.client.aclose)
            nodes.append(node)
        cluster = Nodes(nodes)
        await _join(cluster)
        yield cluster


async def _join(cluster: Nodes) -> None:
    first, size = cluster.all[0], CLUSTER_SLOTS // PRIMARIES + 1
    for place, node in enumerate(cluster.all):
        node.name = (await node.ask("CLUSTER", "MYID")).decode()
        # Otherwise two may claim the same epoch, and settle it at their leisure.
        await node.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        if node is not first:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", first.port)
    for place, node in enumerate(cluster.primaries):
        slots = range(place * size, min((place + 1) * size, CLUSTER_SLOTS))
        await node.ask("CLUSTER", "ADDSLOTS", *slots)
    await eventually(lambda: _all_know(cluster), JOIN_TIMEOUT_S, what="the servers' acquaintance")
    for place, node in enumerate(cluster.all[PRIMARIES:]):
        await node.ask("CLUSTER", "REPLICATE", cluster.primaries[place].name)
    await eventually(lambda: _all_serve(cluster), JOIN_TIMEOUT_S, what="the cluster's state")


async def _all_know(cluster: Nodes) -> bool:
    known = await asyncio.gather(*(node.ask("CLUSTER", "NODES") for node in cluster.all))
    return all(each.count(b"\n") == len(cluster.all) for each in known)


async def _all_serve(cluster: Nodes) -> bool:
    for node in cluster.all:
        state = str(await node.ask("CLUSTER", "INFO"))
        rows = await node.ask("CLUSTER", "SLOTS")
        if "cluster_state:ok" not in state or len(rows) != PRIMARIES:
            return False
        if node not in cluster.primaries:
            facts: dict[str, object] = await node.client.info("replication")
            if facts.get("master_link_status") != "up":
                return False
    return True
