"""A server behind a network: requests take time, get lost on the way there or back, or hang.

Owns what may happen between a client and a server. Guarantees: what a server does, it does at one
instant and whole, whether or not its client still lives or waits. Refuses to know what is asked.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tallygate.domain.errors import BackendUnavailable
from tests.sim.loop import VirtualLoop

T = TypeVar("T")


class Reset(BackendUnavailable):
    """The connection broke: what was asked may have been done."""


@dataclass(slots=True)
class Faults:
    """What is wrong with a server now. Shares are from 0 to 1, of all calls."""

    down: bool = False
    stalled: bool = False
    lost_requests: float = 0.0
    lost_replies: float = 0.0
    cut_off: set[str] = field(default_factory=set)

    def heal(self) -> None:
        """Have nothing wrong any more."""
        self.down = self.stalled = False
        self.lost_requests = self.lost_replies = 0.0
        self.cut_off.clear()

    def heal_losses(self) -> None:
        """Lose nothing any more."""
        self.lost_requests = self.lost_replies = 0.0


class Server:
    """What answers calls, after a time that chance decides."""

    def __init__(
        self, loop: VirtualLoop, chance: random.Random, delays_s: tuple[float, float]
    ) -> None:
        self.faults = Faults()
        self._loop = loop
        self._chance = chance
        self._delays_s = delays_s
        self._queued: list[Callable[[], None]] = []

    async def call(self, who: str, what: Callable[[], T], timeout_s: float) -> T:
        """Do something at the server; return what it came to, or raise what it raised.

        Raises `Reset` where the connection broke, and `BackendUnavailable` after the time-out.
        """
        reply: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_later(self._delay_s(), self._arrive, who, what, reply)
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise BackendUnavailable("the server did not answer in time") from None

    def release(self) -> None:
        """Go on with what came in while the server was stalled."""
        self.faults.stalled = False
        queued, self._queued = self._queued, []
        for each in queued:
            self._loop.call_soon(each)

    def forget_queued(self) -> None:
        """Lose what came in while the server was stalled, as a restart does."""
        self._queued.clear()

    def _delay_s(self) -> float:
        return self._chance.uniform(*self._delays_s)

    def _arrive(self, who: str, what: Callable[[], Any], reply: asyncio.Future[Any]) -> None:
        faults = self.faults
        if faults.down or who in faults.cut_off or self._chance.random() < faults.lost_requests:
            self._fail(reply)
            return
        if faults.stalled:
            self._queued.append(lambda: self._arrive(who, what, reply))
            return
        try:
            result = what()
        except Exception as error:  # noqa: BLE001  what the server says, its client hears
            self._loop.call_later(self._delay_s(), _raise, reply, error)
            return
        if self._chance.random() < faults.lost_replies:
            self._fail(reply)
            return
        self._loop.call_later(self._delay_s(), _settle, reply, result)

    def _fail(self, reply: asyncio.Future[Any]) -> None:
        self._loop.call_later(self._delay_s(), _raise, reply, Reset())


def _settle(reply: asyncio.Future[T], result: T) -> None:
    if not reply.done():
        reply.set_result(result)


def _raise(reply: asyncio.Future[Any], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


def at_once(coro: Any) -> Any:
    """Return what a coroutine comes to that never waits, as a fake's method does."""
    try:
        coro.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("a fake has waited for something")
