"""A transport that is none: hands bytes to the methods of a service, and takes theirs.

Guarantees: a method gets what a transport would give it: all calls that are there at once where it
takes calls in batches, else a task each. Refuses to know sockets.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tallygate.api.batched import BatchMethod

PATIENCE_S: Final = 60.0
"""Counting makes everything a hundred times slower; no call gives up for that."""


class Context:
    """Of a call, what servicers ask of it."""

    def time_remaining(self) -> float:
        """Return the seconds that the caller still waits."""
        return PATIENCE_S


@dataclass(slots=True)
class Answers:
    """Where methods answer. `replies` are by the calls' numbers."""

    expected: int
    replies: dict[int, bytes] = field(default_factory=dict)
    # Made plainly, as what the loop makes is counted.
    done: asyncio.Future[None] = field(default_factory=asyncio.Future)

    def respond(self, call: int, reply: bytes) -> None:
        """Take a reply; one more than there are calls is a fault."""
        assert call not in self.replies
        self.replies[call] = reply
        if len(self.replies) == self.expected:
            self.done.set_result(None)

    def fail(self, call: int, error: Exception) -> None:
        """Take an error, which no call of a guard should get."""
        if not self.done.done():
            self.done.set_exception(error)

    def waits(self, call: int) -> bool:
        """Say that somebody waits."""
        return call not in self.replies


class Front:
    """The methods of some services, by their full names."""

    def __init__(self) -> None:
        self._batched: dict[str, BatchMethod] = {}
        self._plain: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Ignore: the same methods come registered by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take a service's methods."""
        self._plain |= {f"{service}/{name}": handler for name, handler in handlers.items()}

    def take(self, batched: Mapping[str, BatchMethod]) -> None:
        """Take the methods that have calls in batches."""
        self._batched |= batched

    def is_batched(self, method: str) -> bool:
        """Say whether a method takes calls in batches."""
        return method in self._batched

    async def call(self, method: str, requests: Sequence[bytes]) -> list[bytes]:
        """Have calls answered that are there at the same time; return their replies in order."""
        batched = self._batched.get(method)
        if batched is None:
            return await self._each(method, requests)
        answers = Answers(len(requests))
        ends_at = asyncio.get_running_loop().time() + PATIENCE_S
        batched([(number, request, ends_at) for number, request in enumerate(requests)], answers)
        await answers.done
        return [answers.replies[number] for number in range(len(requests))]

    async def _each(self, method: str, requests: Sequence[bytes]) -> list[bytes]:
        handler = self._plain[method]

        async def one(request: bytes) -> bytes:
            asked = handler.request_deserializer(request)
            reply: bytes = handler.response_serializer(await handler.unary_unary(asked, Context()))
            return reply

        if len(requests) == 1:
            return [await one(requests[0])]
        return list(await asyncio.gather(*map(one, requests)))
