"""Running a process until it is told to stop.

Guarantees: SIGTERM and SIGINT drain: health turns, calls in flight end, loops finish their round.
Refuses to know: which roles a process has.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from tallygate.settings import Settings
from tallygate.wiring import Role, grouped, needs_group, running


class Listening(Protocol):
    """Where a process, or a group of them, listens."""

    grpc_addresses: list[str]
    control_addresses: list[str]
    ops_port: int


async def run_until_told(
    settings: Settings, roles: frozenset[Role], announce: Callable[[Listening], None]
) -> None:
    """Start the roles, announce where they listen, and stop at a signal."""
    stop = stop_signal()
    start = grouped if needs_group(settings, roles) else running
    async with start(settings, roles) as process:
        announce(process)
        await stop.wait()


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
