"""A plain function as a step of a loop, and a task as something to end.

Guarantees: the loop waits after each call, as there is never more to do at once.
Refuses to know: what the function does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ran:
    """A small step was run; `more` says whether to run it again at once."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A function as a step of a loop."""

    function: Callable[[], Awaitable[object]]

    async def run_once(self) -> Ran:
        """Call the function."""
        await self.function()
        return Ran()


def ending(end: Callable[[], None], task: asyncio.Task[None]) -> Callable[[], Awaitable[None]]:
    """Return a callback that tells a task to end, and waits until it has."""

    async def wait() -> None:
        end()
        await task

    return wait
