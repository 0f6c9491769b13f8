"""So many connections that say hello and ask nothing, in a process of their own.

Guarantees: says `open` on its output once the server has greeted each, and holds them until its
input ends. Refuses to know what a connection costs.

Run as `python -m tests.faults.idle_connections PORT COUNT`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from socket import create_connection

from tests.faults.http2 import PREFACE, SETTINGS

GREETING = PREFACE + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
CONNECT_TIMEOUT_S = 60.0


@asynccontextmanager
async def idle_connections(port: int, count: int) -> AsyncIterator[None]:
    """Hold so many open meanwhile. Raises AssertionError if they cannot be opened."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.idle_connections", str(port), str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).strip() == b"open"
        yield
    finally:
        process.stdin.close()
        await process.wait()


def main() -> None:
    """Open them, say so, and wait."""
    port, count = map(int, sys.argv[1:])
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = stack.enter_context(create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S))
            one.sendall(GREETING)
            opened.append(one)
        if all(len(one.recv(9)) == 9 for one in opened):
            sys.stdout.write("open\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    main()
