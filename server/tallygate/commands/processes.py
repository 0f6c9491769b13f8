"""Running a process until it is told to stop.

Guarantees: SIGTERM and SIGINT drain: health turns, calls in flight end, loops finish their round.
Refuses to know: which roles a process has.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tallygate.settings import Settings
from tallygate.wiring import Role, running
from tallygate.wiring.leftover import needs_group


class Listening(Protocol):
    """Where a process, or a group of them, listens."""

    grpc_addresses: list[str]
    control_addresses: list[str]
    ops_port: int


Start = Callable[[Settings, frozenset[Role]], AbstractAsyncContextManager[Listening]]


async def run_until_told(
    settings: Settings, roles: frozenset[Role], announce: Callable[[Listening], None]
) -> None:
    """Start the roles, announce where they listen, and stop at a signal."""
    stop = stop_signal()
    start: Start = running
    if Role.SERVE in roles and needs_group(settings):
        # One process alone holds nothing of a group in memory.
        from tallygate.wiring.grouped import grouped  # noqa: PLC0415

        start = grouped
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
