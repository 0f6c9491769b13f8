"""Methods that take calls in batches, as bytes: how transports hand them over without a task each.

Guarantees: nothing here allocates per call but what the caller passes.
Refuses to know: transports, and what methods do.

A transport collects what has arrived, lets in what there is room for, and calls the method once
with all of it. The method answers each call exactly once, at once or later, in any order, on the
event loop's thread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Call = tuple[int, bytes, float]
"""A call's number, its request as it came, the loop time in seconds when its caller gives up."""


class Answering(Protocol):
    """Where answers go. A call that has ended meanwhile is no error: its answer is dropped."""

    def respond(self, call: int, reply: bytes) -> None:
        """Answer a call with an encoded reply."""
        ...

    def fail(self, call: int, error: Exception) -> None:
        """Answer a call with the status of an error, as the error table has it."""
        ...

    def waits(self, call: int) -> bool:
        """Say whether anybody still waits: not once the caller has gone or its time is over."""
        ...


BatchMethod = Callable[[Sequence[Call], Answering], None]
"""Takes calls of one method. It raises nothing: what goes wrong is an answer."""

BatchMethods = Mapping[str, BatchMethod]
"""By full method name without the leading slash: `tallygate.v1.QuotaService/CheckAndConsume`."""
