"""Many commands in one write, and their replies, over one connection.

Guarantees: replies belong to the commands they stand for: a connection on which an exchange did not
end well is closed, never used again. A client of several servers sends each command where its key
lies.
Refuses to know: what commands mean.

redis-py's asyncio pipeline packs commands in Python, which costs more than all else that we do for
a decision; hiredis packs the same bytes in C.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

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
        # The stub wants a tuple of one; the function takes as many as a command has.
        pack = cast(Callable[[Command], bytes], hiredis.pack_command)
        packed = b"".join(pack(command) for command in commands)
        await connection.send_packed_command(packed)
        replies: list[object] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
        whole = True
        return replies
    finally:
        if not whole:
            await connection.disconnect(nowait=True)
        await pool.release(connection)
