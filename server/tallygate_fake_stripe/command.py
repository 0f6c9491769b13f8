"""`tallygate-fake-stripe`: the fake as a process of its own.

Guarantees: prints its address once it listens, on a line of its own; ends on SIGINT and SIGTERM;
listens on loopback unless told otherwise.
Refuses to know: what Stripe does.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from .behaviour import Behaviour, UnknownCustomer
from .clock import Clock, SystemClock, VirtualClock
from .server import FakeStripe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fake until it is told to end."""
    asyncio.run(_run(_parser().parse_args(arguments)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tallygate-fake-stripe",
        description="A fake of Stripe's usage-based billing, for tests. Everything is in memory.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (loopback)")
    parser.add_argument("--port", type=int, default=12_113, help="0 takes a free one (12113)")
    parser.add_argument(
        "--virtual-from",
        metavar="TIME",
        type=_instant,
        help="a clock that stands still from this time on, until POST /_fake/clock moves it",
    )
    parser.add_argument("--lag-s", type=float, default=0.0, help="until usage shows (0)")
    parser.add_argument(
        "--unknown-customer",
        type=UnknownCustomer,
        choices=list(UnknownCustomer),
        default=UnknownCustomer.REPORT,
        help="what becomes of usage for a customer that is not there (report)",
    )
    parser.add_argument("--no-rate-limits", action="store_true", help="take calls at any rate")
    return parser


async def _run(chosen: argparse.Namespace) -> None:
    clock: Clock = SystemClock()
    if chosen.virtual_from is not None:
        clock = VirtualClock(chosen.virtual_from)
    behaviour = Behaviour(
        lag_s=chosen.lag_s,
        unknown_customer=chosen.unknown_customer,
        rate_limited=not chosen.no_rate_limits,
    )
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with FakeStripe(clock, behaviour=behaviour, host=chosen.host, port=chosen.port) as stripe:
        sys.stdout.write(f"{stripe.url}\n")
        sys.stdout.flush()
        await told.wait()


def _instant(text: str) -> datetime:
    """Read an instant; without an offset it is UTC. Raises `ValueError`."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
