"""How events of the native front reach the event loop.

Guarantees: an event that has come is told of once at least, and `taken` gives each once.
Refuses to know: what events are.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from pygrpc_native import NativeGrpcFront

# Events taken at once; more of them wait for the loop's next turn.
EVENTS_MAX: Final = 512

Event = tuple[int, int, int, bytes | None, Any, Any]


class Arrivals(Protocol):
    """Tells of events, and gives them."""

    def start(self, tell: Callable[[], None]) -> None:
        """Call this on the loop whenever there may be events."""
        ...

    def taken(self) -> Sequence[Event]:
        """Return events that have come, without waiting."""
        ...

    async def stop(self) -> None:
        """Tell no more, and close the front."""
        ...


class PatchedFront(Protocol):
    """What our patch of the front adds to the published one."""

    def wake_fd(self) -> int:
        """Return what is readable while there may be events."""
        ...

    def take(self, max_events: int) -> list[Event]:
        """Return events that have come, without waiting."""
        ...

    def respond_many(self, answers: Sequence[tuple[int, bytes]]) -> None:
        """Answer calls by their numbers."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...


class ByDescriptor:
    """The loop waits for the front's own descriptor: no thread between, and one wake-up less."""

    def __init__(self, native: PatchedFront) -> None:
        self._native = native
        self._told: int | None = None

    def start(self, tell: Callable[[], None]) -> None:
        """Call this on the loop whenever there may be events."""
        self._told = self._native.wake_fd()
        asyncio.get_running_loop().add_reader(self._told, tell)

    def taken(self) -> Sequence[Event]:
        """Return events that have come, without waiting."""
        return self._native.take(EVENTS_MAX)

    async def stop(self) -> None:
        """Tell no more, and close the front."""
        if self._told is not None:
            asyncio.get_running_loop().remove_reader(self._told)
        # It waits for threads of its own.
        await asyncio.to_thread(self._native.close)


class ByThread:
    """A thread waits for events and wakes the loop: for a front that has no descriptor."""

    def __init__(self, native: NativeGrpcFront) -> None:
        self._native = native
        self._loop = asyncio.get_running_loop()
        self._come: deque[Sequence[Event]] = deque()
        self._handed_over = False
        self._thread: threading.Thread | None = None

    def start(self, tell: Callable[[], None]) -> None:
        """Call this on the loop whenever there may be events."""
        self._thread = threading.Thread(
            target=self._receive, args=(tell,), name="tallygate-front", daemon=True
        )
        self._thread.start()

    def taken(self) -> Sequence[Event]:
        """Return events that have come, without waiting."""
        self._handed_over = False
        events: list[Event] = []
        while self._come:
            events += self._come.popleft()
        return events

    async def stop(self) -> None:
        """Tell no more, and close the front."""
        await asyncio.to_thread(self._native.close)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _receive(self, tell: Callable[[], None]) -> None:
        receive = self._native.recv_batch_details
        while (events := receive(EVENTS_MAX)) is not None:
            self._come.append(events)
            # In this order: whoever takes says so before it looks.
            if not self._handed_over:
                self._handed_over = True
                try:
                    self._loop.call_soon_threadsafe(tell)
                except RuntimeError:
                    # The loop was closed without a stop.
                    return
