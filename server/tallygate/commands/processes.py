"""Running a process until it is told to stop.

Guarantees: SIGTERM and SIGINT drain: health turns, calls in flight end, loops finish their round.
Refuses to know: which roles a process has.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tallygate.commands.signals import stop_signal
from tallygate.settings import Settings
from tallygate.wiring.leftover import needs_group
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role


class Listening(Protocol):
    """Where a process, or a group of them, listens."""

    grpc_addresses: list[str]
    control_addresses: list[str]
    envoy_addresses: list[str]
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
