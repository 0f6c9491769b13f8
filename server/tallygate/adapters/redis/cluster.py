"""A client of a Redis Cluster that looks like the client of one Redis.

Guarantees: a command is sent where its key lies now; it is sent again only where a server has said
that it did nothing: it sent us elsewhere (MOVED, ASK), or is moving the slot (TRYAGAIN), a bounded
number of times. A server that cannot be reached fails its own commands, and no others.
Refuses to know: what commands mean, and what a shard is.

redis-py's own cluster client repeats commands whose connection broke, which a script that ran once
must not be, and has no way to send commands packed by hiredis.

An exchange of keys that lie on one server costs what it costs without a cluster, plus a checksum
of each key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from tallygate.adapters.redis.wire import Command, Routed, exchange

# A slot that moves while we look is found at the second or third try.
SENT_MAX: Final = 12
# A slot is unavailable to calls with new keys while its keys are moved: small ones take no longer
# than this in all, and for others the rules for an outage hold.
PAUSES_S: Final = (0.001, 0.002, 0.005, 0.01, 0.01, 0.01, 0.02, 0.02, 0.02, 0.02, 0.02)
# A failover takes seconds: asking more often would find nothing new.
REFRESH_EVERY_S: Final = 0.1
# Beside its callers' connections a server has one for the question where slots lie.
CONNECTIONS_MORE: Final = 2
# Cursors of SCAN are below this; what is above tells which server gave them.
CURSORS: Final = 2**64
_READS: Final = frozenset(("HMGET", "MGET"))
_KEYLESS: Final = frozenset(("CONFIG GET", "INFO", "PING", "SCRIPT LOAD", "TIME"))

Address = tuple[str, int]
# A command and how redis-py reads its reply.
_Staged = tuple[tuple[Any, ...], dict[str, Any]]
# Sends the commands at some places to a server, each after ASKING or not.
_Send = Callable[[Redis, list[int], bool], Awaitable[list[object]]]


class ClusterClient(Routed):
    """A client of the cluster that the servers at some addresses belong to."""

    def __init__(self, seeds: Sequence[ConnectionPool]) -> None:
        """Take `seeds`, pools of servers to ask first; each server gets one of the same kind."""
        super().__init__(connection_pool=seeds[0])
        self._kind = seeds[0]
        self._seeds = [_address_of(pool) for pool in seeds]
        self._nodes: dict[Address, Redis] = {}
        # Every server ever named, in order: cursors hold a place in it.
        self._named: list[Address] = []
        self._owners: list[Address | None] = []
        self._broken: set[Address] = set()
        self._absent: set[Address] = set()
        self._stale = False
        self._refreshed_s = 0.0
        self._refreshing: asyncio.Task[None] | None = None

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to every server."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        for node in self._nodes.values():
            await node.aclose()
        await super().aclose(close_connection_pool)

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Send each command to its server. See `Routed`."""

        async def send(node: Redis, places: list[int], asking: bool) -> list[object]:
            chosen = [commands[place] for place in places]
            if not asking:
                return await exchange(node, chosen)
            both = [part for command in chosen for part in (("ASKING",), command)]
            return (await exchange(node, both))[1::2]

        # What is read in an order proves something, which it does not if a part comes later.
        in_order = any(command[0] in _READS for command in commands)
        slots = [_slot_of(command) for command in commands]
        replies = await self._routed(slots, send, in_order=in_order)
        if replies and all(isinstance(each, RedisConnectionError | OSError) for each in replies):
            raise cast(Exception, replies[0])
        return replies

    async def primaries(self) -> list[Redis]:
        """Return a client of each server that serves slots now."""
        # A server that was demoted goes on answering, and nobody would send us elsewhere.
        await self._look(afresh=True)
        return [self._node(each) for each in dict.fromkeys(self._owners) if each is not None]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline; one that is a transaction must be of one slot."""
        return ClusterPipeline(self, transaction)

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Send a command to its server, or to all, and return its reply as redis-py reads it."""
        if args[0] == "SCRIPT LOAD":
            return await self._everywhere(*args, **options)
        if args[0] == "SCAN":
            return await self._scan(args, options)
        [reply] = await self.staged([(args, options)], transaction=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def staged(self, stack: Sequence[_Staged], *, transaction: bool) -> list[object]:
        """Send a pipeline's commands, and return replies as read, errors in their places."""
        slots = [_slot_of(args) for args, _ in stack]
        first = next((slot for slot in slots if slot is not None), None)
        slots = [first if slot is None else slot for slot in slots]

        async def send(node: Redis, places: list[int], asking: bool) -> list[object]:
            async with node.pipeline(transaction=False) as pipeline:
                for place in places:
                    args, options = stack[place]
                    if asking:
                        pipeline.execute_command("ASKING")
                    pipeline.execute_command(*args, **options)
                replies = await pipeline.execute(raise_on_error=False)
            return replies[1::2] if asking else replies

        async def send_whole(node: Redis, _: list[int], asking: bool) -> list[object]:
            # Its commands cannot each be preceded by ASKING.
            if asking:
                raise TryAgainError("TRYAGAIN the slot of a transaction is moving")
            async with node.pipeline(transaction=True) as pipeline:
                for args, options in stack:
                    pipeline.execute_command(*args, **options)
                return [await pipeline.execute()]

        if not transaction:
            return await self._routed(slots, send)
        [reply] = await self._routed([first], send_whole)
        return cast(list[object], reply) if isinstance(reply, list) else [reply] * len(stack)

    async def _routed(
        self, slots: Sequence[int | None], send: _Send, *, in_order: bool = False
    ) -> list[object]:
        """Send each command to its slot's server, and after what redirects it, until it is done.

        With `in_order`, those of a slot whose keys are being moved are not: they would not stay
        in their order.
        """
        replies: list[object] = [None] * len(slots)
        # By place, the server that a command was sent to for once.
        waiting: dict[int, Address | None] = dict.fromkeys(range(len(slots)))
        for turn in range(SENT_MAX):
            await self._look()
            groups: dict[tuple[Address, bool], list[int]] = {}
            for place, asked in waiting.items():
                owner = asked or self._owner_of(slots[place])
                if owner is None:
                    self._stale = True
                    replies[place] = ClusterDownError("CLUSTERDOWN a slot is not served")
                else:
                    groups.setdefault((owner, asked is not None), []).append(place)
            sent = [self._sent(*to, places, send) for to, places in groups.items()]
            answers = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
            waiting, moving = {}, False
            for (address, _), places, some in zip(groups, groups.values(), answers, strict=True):
                for place, reply in zip(places, some, strict=True):
                    replies[place] = reply
                    if isinstance(reply, AskError | TryAgainError | ClusterDownError):
                        if in_order and not isinstance(reply, MovedError | ClusterDownError):
                            replies[place] = TryAgainError("TRYAGAIN the slot is moving")
                            continue
                        moving = moving or not isinstance(reply, AskError)
                        self._redirect(address, place, reply, waiting)
            if not waiting or turn == SENT_MAX - 1:
                break
            if moving:
                await asyncio.sleep(PAUSES_S[turn])
        for place in waiting:
            replies[place] = TryAgainError("TRYAGAIN the slot is moving")
        return replies

    def _redirect(
        self,
        asked: Address,
        place: int,
        reply: AskError | TryAgainError | ClusterDownError,
        waiting: dict[int, Address | None],
    ) -> None:
        """Note where a command has to be sent next, if it has."""
        if isinstance(reply, ClusterDownError):
            self._stale = True
        elif isinstance(reply, TryAgainError):
            waiting[place] = None
        else:
            # A server that does not know its own name leaves it out.
            address = (reply.host or asked[0], int(reply.port))
            moved = isinstance(reply, MovedError)
            if moved:
                self._owners[int(reply.slot_id)] = address
                self._stale = True
            waiting[place] = None if moved else address

    async def _sent(
        self, address: Address, asking: bool, places: list[int], send: _Send
    ) -> list[object]:
        """Send to one server; a failure stands in the place of every reply."""
        try:
            replies = await send(self._node(address), places, asking)
        except ResponseError as error:
            return [error] * len(places)
        except (RedisError, OSError) as error:
            self._broken.add(address)
            self._stale = True
            return [error] * len(places)
        self._broken.discard(address)
        return replies

    async def _everywhere(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Send a command to every server we know of, and return what one of them says.

        Those that cannot be reached are left out, unless it is all of them.
        """
        await self._look()
        nodes = [self._node(each) for each in {*self._nodes, *filter(None, self._owners)}]
        replies = await asyncio.gather(
            *(cast(Any, node).execute_command(*args, **options) for node in nodes),
            return_exceptions=True,
        )
        for reply in replies:
            if not isinstance(reply, BaseException):
                return reply
        raise cast(BaseException, replies[0])

    async def _scan(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:  # noqa: ANN401
        """Read a page of the keys of one slot, which the pattern names.

        Raises `TryAgainError` when the slot moves: keys could be missed, so begin anew.
        """
        pattern = cast(str, args[args.index(b"MATCH") + 1])
        probe = pattern[: pattern.index("}") + 1]
        slot = key_slot(probe.encode())
        number, cursor = divmod(int(args[1]), CURSORS)
        for _ in range(SENT_MAX):
            await self._look()
            owner = self._owner_of(slot)
            if owner is None:
                break
            if int(args[1]) != 0 and self._named[number] != owner:
                raise TryAgainError("TRYAGAIN the slot has moved")
            async with self._node(owner).pipeline(transaction=False) as pipeline:
                # A key that is never there: its slot is whole here if nobody sends us elsewhere.
                pipeline.exists(probe)
                cast(Any, pipeline).execute_command("SCAN", cursor, *args[2:], **options)
                pipeline.exists(probe)
                before, page, after = await pipeline.execute(raise_on_error=False)
            redirected = next(
                (each for each in (before, after) if isinstance(each, AskError)), None
            )
            if redirected is None:
                if isinstance(page, Exception):
                    raise page
                following, names = page
                place = self._named.index(owner)
                return (following + place * CURSORS if following else 0), names
            if not isinstance(redirected, MovedError) or int(args[1]) != 0:
                raise TryAgainError("TRYAGAIN the slot is moving")
            self._redirect(owner, 0, redirected, {})
        raise ClusterDownError("CLUSTERDOWN a slot is not served")

    def _owner_of(self, slot: int | None) -> Address | None:
        if slot is not None:
            return self._owners[slot]
        return next((each for each in self._owners if each is not None), None)

    def _node(self, address: Address) -> Redis:
        """Return the client of a server."""
        node = self._nodes.get(address)
        if node is None:
            kwargs = self._kind.connection_kwargs | {"host": address[0], "port": address[1]}
            pool = ConnectionPool(
                connection_class=self._kind.connection_class,
                max_connections=self._kind.max_connections + CONNECTIONS_MORE,
                **kwargs,
            )
            node = self._nodes[address] = Redis.from_pool(pool)
            if address not in self._named:
                self._named.append(address)
        return node

    async def _look(self, *, afresh: bool = False) -> None:
        """Know where slots lie; unless `afresh`, what may have changed is not waited for."""
        afresh = afresh or not self._owners
        if not afresh and not self._stale:
            return
        now_s = asyncio.get_running_loop().time()
        idle = self._refreshing is None or self._refreshing.done()
        if idle and (afresh or now_s - self._refreshed_s >= REFRESH_EVERY_S):
            self._refreshed_s = now_s
            self._refreshing = asyncio.create_task(self._refresh(), name="cluster-slots")
        if afresh:
            # Shielded: another caller may wait for it too.
            await asyncio.shield(cast(asyncio.Task[None], self._refreshing))
            if not self._owners:
                raise RedisConnectionError("no server of the cluster tells where slots lie")

    async def _refresh(self) -> None:
        """Ask servers where slots lie until one tells."""
        known = dict.fromkeys(each for each in self._owners if each is not None)
        self._stale = False
        # Those that failed us last come last: each may cost a timeout.
        for address in sorted((*known, *self._seeds), key=self._broken.__contains__):
            try:
                [reply] = await exchange(self._node(address), [("CLUSTER", "SLOTS")])
            except (RedisError, OSError):
                self._broken.add(address)
                continue
            if isinstance(reply, list) and reply:
                self._broken.discard(address)
                self._owners = _owners_of(reply, address)
                await self._forget_others()
                return
        self._stale = True

    async def _forget_others(self) -> None:
        """Close the connections to servers that have had no slot for two refreshes."""
        absent = self._nodes.keys() - set(self._owners) - set(self._seeds)
        for address in absent & self._absent:
            await self._nodes.pop(address).aclose()
        self._absent = absent


class ClusterPipeline(Pipeline):
    """Commands that are sent together, each to its server."""

    def __init__(self, cluster: ClusterClient, transaction: bool) -> None:
        """Take the client whose servers they are for."""
        callbacks = cluster.response_callbacks
        super().__init__(cluster.connection_pool, callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands; return the replies in order, or raise the first error."""
        try:
            stack = cast(list[_Staged], self.command_stack)
            transaction = bool(self.is_transaction)
            replies = await self._cluster.staged(stack, transaction=transaction) if stack else []
        finally:
            await self.reset()  # type: ignore[no-untyped-call]
        if raise_on_error:
            _raise_first(replies)
        return replies


def _raise_first(replies: Iterable[object]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _slot_of(command: Sequence[Any]) -> int | None:
    """Return the slot of a command's first key, None for a command without one."""
    name = command[0]
    if name in _KEYLESS:
        return None
    if name in ("EVAL", "EVALSHA"):
        key = command[3]
    elif name == "XREADGROUP":
        key = command[command.index(b"STREAMS") + 1]
    else:
        key = command[1]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def _owners_of(rows: Sequence[Any], asked: Address) -> list[Address | None]:
    """Return the primary of each slot, of what CLUSTER SLOTS answers."""
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, primary, *_ in rows:
        host = primary[0].decode() if primary[0] else ""
        # It does not know its own name, or is told not to tell: it is where we asked.
        address = (host if host not in ("", "?") else asked[0], int(primary[1]))
        owners[first : last + 1] = [address] * (last - first + 1)
    return owners


def _address_of(pool: ConnectionPool) -> Address:
    return pool.connection_kwargs.get("host", "localhost"), pool.connection_kwargs.get("port", 6379)
