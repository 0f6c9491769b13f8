"""Running a process until it is told to stop.

Guarantees: SIGTERM and SIGINT drain: health turns, calls in flight end, loops finish their round.
Refuses to know: which roles a process has.
"""

import asyncio
import signal
from collections.abc import Callable

from tallygate.settings import Settings
from tallygate.wiring import Role, Running, running


async def run_until_told(
    settings: Settings, roles: frozenset[Role], announce: Callable[[Running], None]
) -> None:
    """Start the roles, announce where they listen, and stop at a signal."""
    stop = stop_signal()
    async with running(settings, roles) as process:
        announce(process)
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
