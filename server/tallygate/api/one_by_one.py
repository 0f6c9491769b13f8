"""Methods that take calls in batches, asked one call at a time: for who has no batches.

Guarantees: each caller gets his own answer; one that has gone is asked for no more.
Refuses to know: transports, and what methods do.
"""

import asyncio
from dataclasses import dataclass, field

from tallygate.api.batched import BatchMethod


@dataclass(slots=True)
class OneByOne:
    """Hands a batch method one call at a time, and waits for its answer; an `Answering`."""

    batch: BatchMethod
    waiting: dict[int, asyncio.Future[bytes]] = field(default_factory=dict)
    numbers: int = 0

    async def answered(self, data: bytes, ends_at: float) -> bytes:
        """Return the reply to a request as it came. Raises what the method answers with."""
        self.numbers = number = self.numbers + 1
        self.waiting[number] = reply = asyncio.get_running_loop().create_future()
        try:
            self.batch(((number, data, ends_at),), self)
            answer: bytes = await reply
            return answer
        finally:
            del self.waiting[number]

    def respond(self, call: int, reply: bytes) -> None:
        """Answer a call with an encoded reply."""
        if self.waits(call):
            self.waiting[call].set_result(reply)

    def fail(self, call: int, error: Exception) -> None:
        """Answer a call with the status of an error."""
        if self.waits(call):
            self.waiting[call].set_exception(error)

    def waits(self, call: int) -> bool:
        """Say whether its caller still waits."""
        found = self.waiting.get(call)
        return found is not None and not found.done()
