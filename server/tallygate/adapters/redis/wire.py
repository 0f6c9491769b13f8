"""Many commands in one write, and their replies, over one connection.

Guarantees: replies belong to the commands they stand for: a connection on which an exchange did not
end well is closed, never used again. A client of several servers sends each command where its key
lies.
Refuses to know: what commands mean.

redis-py's asyncio pipeline packs commands in Python, which costs more than all else that we do for
a decision; hiredis packs the same bytes in C.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

Argument = str | bytes | int
Command = tuple[Argument, ...]


class Routed(Redis, ABC):  # type: ignore[misc]  # redis-py gives a method two types
    """A client that looks like that of one server, and stands for several."""

    @abstractmethod
    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        """Send each command to its server, and return the replies in order.

        An error stands in the place of its reply, also that of a server which cannot be reached;
        raised is only that none of them could be.
        """

    @abstractmethod
    async def primaries(self) -> list[Redis]:
        """Return a client of each server that serves keys now."""


async def primaries(client: Redis) -> list[Redis]:
    """Return a client of each server that serves keys: mostly the one given."""
    return await client.primaries() if isinstance(client, Routed) else [client]


async def exchange(client: Redis, commands: Sequence[Command]) -> list[object]:
    """Send the commands, and return their replies in order, an error in the place of its reply.

    Raises what redis-py raises when the connection breaks or does not answer in time.
    """
    if isinstance(client, Routed):
        return await client.exchange(commands)
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    whole = False
    try:
        await connection.check_health()
        replies = await _exchanged(connection, commands)
        whole = True
        return replies
    finally:
        if not whole:
            await connection.disconnect(nowait=True)
        await pool.release(connection)


async def _exchanged(
    connection: Any,  # noqa: ANN401  what is asked of it is none of redis-py's types
    commands: Sequence[Command],
) -> list[object]:
    """Send and read over a connection, all within its timeout.

    redis-py's own sending makes a task, and its reading sets a timer for each reply: with a script
    call per shard these cost more than the scripts' arguments.
    """
    # The stub wants a tuple of one; the function takes as many as a command has.
    pack = cast(Callable[[Command], bytes], hiredis.pack_command)
    packed = b"".join([pack(command) for command in commands])
    try:
        async with asyncio.timeout(connection.socket_timeout):
            await connection._send_packed_command((packed,))  # noqa: SLF001
            # An error that the server answers with is a reply, in the place of the reply.
            read = connection._read_response_from_parser  # noqa: SLF001
            return [await read() for _ in commands]
    except TimeoutError:
        raise RedisTimeoutError("no reply in time") from None
    except OSError as error:
        raise RedisConnectionError(f"the connection broke: {error.args}") from error
