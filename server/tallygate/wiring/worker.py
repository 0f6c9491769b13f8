"""A process of a group, from the order that it gets to its end.

Guarantees: it drains when it is told to, on SIGTERM, and when the process that watches is gone; it
is over some seconds after its grace then, also when its loop hangs.
Refuses to know: the other processes.
"""

import asyncio
import os
import signal
import threading
import time
from typing import Final

import structlog

from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings
from tallygate.wiring.allocator import give_back
from tallygate.wiring.collector import collect_seldom
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.worker_line import Failed, Leaving, Order, Started, State, WorkerLine

REPORT_S: Final = 0.25
"""Between two states: a probe sees a change within that time."""
END_S: Final = 10.0
"""After the grace: loops end their round, leases are given back, connections close."""
EXIT_HUNG: Final = 70

log = structlog.get_logger(__name__)


async def work(order: Order, line: WorkerLine) -> bool:
    """Be what the order says, until told to end; return whether that went well."""
    give_back()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    structlog.contextvars.bind_contextvars(process=order.place.index)
    _watch_for_end(line, loop, stop, order.settings)
    try:
        async with running(order.settings, order.roles, order.place) as process:
            collect_seldom()
            addresses = (process.grpc_addresses, process.control_addresses)
            line.say(Started(*addresses, process.envoy_addresses))
            await _report(process, line, stop)
            line.say(Leaving())
    except Exception as error:
        found = cause_of(error)
        line.say(Failed(found.message, found.field) if found else Failed(repr(error), ""))
        if not found:
            log.exception("process_failed")
        return False
    return True


async def _report(process: Running, line: WorkerLine, stop: asyncio.Event) -> None:
    while not stop.is_set():
        found = process.readiness()
        line.say(State(found.ready, dict(found.components), process.unfinished()))
        try:
            async with asyncio.timeout(REPORT_S):
                await stop.wait()
        except TimeoutError:
            continue


def _watch_for_end(
    line: WorkerLine, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, settings: Settings
) -> None:
    """Stop when the other side is gone or says so; end the process when that takes too long."""

    def watch() -> None:
        line.wait_for_end()
        loop.call_soon_threadsafe(stop.set)
        time.sleep(settings.drain_grace_ms / 1000 + END_S)
        log.error("process_hung")
        os._exit(EXIT_HUNG)

    threading.Thread(target=watch, name="tallygate-end", daemon=True).start()


def cause_of(error: BaseException) -> TallygateError | None:
    """Return the first of possibly several errors that a person should read."""
    if isinstance(error, TallygateError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(cause_of, error.exceptions)), None)
    return None
