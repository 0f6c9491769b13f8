"""A child process that is waited for: it is ready, it has ended, or it never will be."""

import signal
import sys
from pathlib import Path

import pytest

from tallygate.adapters.embedded.errors import StartFailed
from tallygate.adapters.embedded.folder import ServerFolder
from tallygate.adapters.embedded.process import Launch, ServerProcess
from tests.servers import eventually


@pytest.mark.parametrize("done", [True, False])
async def test_one_that_ends_just_after_a_look_is_looked_at_again(
    tmp_path: Path, done: bool
) -> None:
    """It has done its work, or it has not: that it runs no more says neither."""
    folder = ServerFolder(tmp_path)
    folder.lock()
    process = ServerProcess(folder, Launch([sys.executable, "-c", ""], signal.SIGTERM))
    looks = 0

    async def has_ended_well() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            await eventually(lambda: not process.running, what="its end")
            return False
        return done

    try:
        if done:
            await process.wait_ready("it", has_ended_well, 30)
        else:
            with pytest.raises(StartFailed, match="it ended with code 0"):
                await process.wait_ready("it", has_ended_well, 30)
    finally:
        folder.unlock()
    assert looks == 2
