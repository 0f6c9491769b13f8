"""Reading what the script remembers: what is asked for together is read together.

Guarantees: what is read is of one moment of the shard's epoch and stage, which are told with it.
One connection at a time, however many ask, so that a burst of settlements cannot take
the connections from decisions; a bounded number waits.
Refuses to know: what records mean.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.wire import Command, exchange
from tallygate.domain.errors import Overloaded, TallygateError

# A record holds up to 64 events: some hundred of them are a reply of about a megabyte at most.
READ_TOGETHER_MAX: Final = 200
# Some seconds of reading; more would only answer callers who have given up.
WAITING_MAX: Final = 20_000

_Values = list[bytes | None]


@dataclass(frozen=True, slots=True)
class Read:
    """What a shard's keys hold, and its epoch and stage then; None where either changed meanwhile.

    An epoch never comes back, nor does a stage: where both are the same before and after, they were
    the same between.
    """

    values: _Values
    before: _Values
    after: _Values

    @property
    def epoch(self) -> str | None:
        """The epoch in which the keys were read."""
        epoch = self.before[0]
        return epoch.decode() if epoch is not None and self.before == self.after else None

    @property
    def open(self) -> bool:
        """Whether what is not there never was, as far as it is remembered."""
        return self.before[1] == b"1"


@dataclass(slots=True, eq=False)
class _Asked:
    """Keys of one shard, and what they hold, or why that is not known."""

    commands: tuple[Command, Command, Command]
    answer: Read | TallygateError | None = None


class RecordReads:
    """Reads keys, one pipeline at a time, fed by what was asked for meanwhile."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: deque[_Asked] = deque()
        self._turn = asyncio.Lock()

    async def read(self, shard: int, *names: str) -> Read:
        """Return the values of keys of a shard.

        Raises `BackendUnavailable`, `StorageFault` and `Overloaded`.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("too many reservations wait to be read")
        state = ("HMGET", keys.meta(shard), keys.EPOCH_FIELD, keys.OPEN_FIELD)
        asked = _Asked((state, ("MGET", *names), state))
        self._waiting.append(asked)
        try:
            async with self._turn:
                # Whoever has the turn reads for all that wait; most find theirs read.
                while asked.answer is None:
                    await self._read_some()
        except asyncio.CancelledError:
            if asked in self._waiting:
                self._waiting.remove(asked)
            raise
        if isinstance(asked.answer, TallygateError):
            raise asked.answer
        return asked.answer

    async def _read_some(self) -> None:
        count = min(len(self._waiting), READ_TOGETHER_MAX)
        some = [self._waiting.popleft() for _ in range(count)]
        try:
            replies = await self._exchange([one for each in some for one in each.commands])
        except (RedisError, OSError) as error:
            for each in some:
                each.answer = translate(error)
            return
        except asyncio.CancelledError:
            # The next in turn reads them.
            self._waiting.extendleft(reversed(some))
            raise
        for place, each in enumerate(some):
            parts = replies[3 * place : 3 * place + 3]
            refusal = next((part for part in parts if isinstance(part, RedisError)), None)
            if refusal is not None:
                each.answer = translate(refusal)
            else:
                before, values, after = cast(list[_Values], parts)
                each.answer = Read(values, before, after)

    async def _exchange(self, commands: list[Command]) -> list[object]:
        try:
            return await exchange(self._client, commands)
        except RedisConnectionError:
            # An idle connection that was cut; to read twice changes nothing.
            return await exchange(self._client, commands)
