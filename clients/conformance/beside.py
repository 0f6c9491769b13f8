"""A command beside a sidecar: `python -m clients.conformance.beside COMMAND...`.

Owns the installation for as long as the command runs, and tells it where that is by
`TALLYGATE_TARGET`. Guarantees the command's own exit status. Refuses to know what the command does:
it is a client's tests, in any language, against the catalog of `world.py`.
"""

import asyncio
import os
import sys
from collections.abc import Sequence

from clients.conformance.world import servers, world


async def run(command: Sequence[str]) -> int:
    """Run a command beside a sidecar of its own; return its exit status."""
    async with servers() as (redis_url, dsn), world(redis_url, dsn) as made:
        environment = os.environ | {"TALLYGATE_TARGET": made.address}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(sys.argv[1:])))
