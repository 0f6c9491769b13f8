"""One server process: launched, awaited, stopped.

Guarantees: it dies with its owner (on Linux by the kernel's signal, elsewhere at the next start on
the folder); a start either is ready in time or raises with the log's last lines and leaves nothing
running; a stop ends within its timeout. Bound to no event loop, as fixtures use several.
Refuses to know what the server serves: readiness is a probe that it is given.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tallygate.adapters.embedded.errors import StartFailed
from tallygate.adapters.embedded.folder import ServerFolder, unusable

LAUNCHER = Path(__file__).with_name("launch.py")

POLL_S = 0.01
"""Between two looks at a starting or stopping server: short beside its start of 50 ms and more."""

KILL_TIMEOUT_S = 5.0
"""For the kernel to take away a killed process, which only a hanging disk delays."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account to run as instead of root; `cross_folders` keeps root's way through folders."""

    uid: int
    gid: int
    cross_folders: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """How to run one server: its command, the signal that ends it cleanly, its account."""

    command: Sequence[str]
    stop_signal: signal.Signals
    account: Account | None = None

    def arguments(self) -> list[str]:
        """Return the command line of the launcher that becomes the server."""
        account = self.account or Account(-1, -1, cross_folders=False)
        numbers = (
            os.getpid(),
            int(self.stop_signal),
            account.uid,
            account.gid,
            int(account.cross_folders),
        )
        # -I and -S: isolated and without site packages, which also makes it start in 15 ms.
        return [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCHER),
            *(str(number) for number in numbers),
            *self.command,
        ]


def clean_environment() -> dict[str, str]:
    """Return the environment of a server: nothing of ours, which may hold secrets or PG* names."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


class ServerProcess:
    """A running server of one folder."""

    def __init__(self, folder: ServerFolder, launch: Launch) -> None:
        """Start the process; must be called from a thread that lives as long as the server.

        The kernel's death signal follows the starting *thread*, so never from a pool's thread.
        """
        self._folder = folder
        self._stop_signal = launch.stop_signal
        with unusable(folder.log_path), folder.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own launcher and arguments
                launch.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder.path,
                env=clean_environment(),
                # Ctrl-C in a terminal reaches a whole group; the owner stops its servers last.
                start_new_session=True,
            )
        folder.remember_process(self._process.pid)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        """The exit code of an ended process, negative for a signal; None while it runs."""
        return self._process.poll()

    async def wait_ready(
        self, name: str, probe: Callable[[], Awaitable[bool]], timeout_s: float
    ) -> None:
        """Return once `probe` says yes; end the process and raise StartFailed when it will not."""
        deadline = time.monotonic() + timeout_s
        try:
            while not await probe():
                if not self.running:
                    if await probe():
                        # It has ended since, with its work done.
                        return
                    why = f"ended with code {self.code}"
                    raise StartFailed(f"{name} {why}:\n{self._folder.log_tail()}")
                if time.monotonic() > deadline:
                    why = f"was not ready within {timeout_s:g} s"
                    raise StartFailed(f"{name} {why}:\n{self._folder.log_tail()}")
                await asyncio.sleep(POLL_S)
        except BaseException:
            # Also on cancellation: a half-started server must not keep the folder.
            await self.kill()
            raise

    async def stop(self, timeout_s: float) -> None:
        """End the server cleanly; kill it when it takes longer than `timeout_s`."""
        if self.running:
            self._process.send_signal(self._stop_signal)
            if not await self._ended_within(timeout_s):
                self._process.kill()
        await self.kill()

    async def kill(self) -> None:
        """End the process at once, as a crash would (SIGKILL)."""
        if self.running:
            self._process.kill()
        await self._ended_within(KILL_TIMEOUT_S)
        self._folder.forget_process()

    async def _ended_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.running and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return not self.running
