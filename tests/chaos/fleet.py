"""The processes of an installation, each kept running as a cluster would, each with its log.

Owns starting, killing, pausing and restarting them. Guarantees that none outlives the harness, also
when it is killed, and that an end that nobody asked for is counted. Refuses to know what they do.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e import forked
from tests.e2e.processes import FREE, environment, fetch
from tests.servers import eventually

START_TIMEOUT_S: Final = 180.0
"""A start takes a second, and on a machine full of other work up to a minute."""

STOP_TIMEOUT_S: Final = 60.0
RESTART_S: Final = 0.5
"""Before a process that ended by itself is started again, as a cluster does, only sooner."""

_READY: Final = re.compile(r"tallygate (?P<roles>[a-z+]+): (?P<grpc>.+); ops on port (?P<ops>\d+)")


@dataclass(slots=True)
class Worker:
    """One process that is started again whenever it ends, always on the same folder."""

    name: str
    arguments: Sequence[str]
    settings: Mapping[str, Any]
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    child: forked.Child | None = None
    starts: int = 0
    unexpected: list[int] = field(default_factory=list)
    wanted: bool = False
    paused: bool = False
    _from: int = 0
    _keeper: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        """What it has said in all its lives."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its process, None while there is none."""
        return None if self.child is None or self.child.returncode is not None else self.child.pid

    async def start(self) -> None:
        """Start it; do not wait until it serves."""
        self.wanted = True
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self) -> re.Match[str]:
        """Wait until it says where it listens; return what it said."""

        def said() -> re.Match[str] | None:
            return _READY.search(self._text())

        try:
            match = await eventually(said, START_TIMEOUT_S, what=f"{self.name} to serve")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._text()[-2000:]}") from None
        assert match is not None
        return match

    async def page(self, path: str) -> tuple[int, str]:
        """Return the status and text of an ops page."""
        ops_port = (await self.ready())["ops"]
        return await asyncio.to_thread(fetch, f"http://127.0.0.1:{ops_port}{path}")

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; say whether there was a process to take it."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, number)
        self.paused = number is signal.SIGSTOP
        return True

    async def kill(self) -> None:
        """End it as a crash would; it is not started again before `start`."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        self.wanted = False
        child, keeper = self.child, self._keeper
        if child is None:
            return 0
        if self.paused:
            self.send(signal.SIGCONT)
        if child.returncode is None:
            child.send_signal(number)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise AssertionError(f"{self.name} did not end in {STOP_TIMEOUT_S:g} s") from None
        if keeper is not None:
            await keeper
        return code

    async def _keep(self) -> None:
        while self.wanted:
            assert self.child is not None
            code = await self.child.wait()
            if self.wanted:
                self.unexpected.append(code)
                await asyncio.sleep(RESTART_S)
            if self.wanted:
                await self._launch()

    async def _launch(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._from = self.log.stat().st_size if self.log.exists() else 0
        settings = environment(dict(self.settings)) | dict(self.environ)
        command = forked.Command(tuple(self.arguments), settings, str(Path.cwd()))
        with self.log.open("ab") as log:
            self.child = await forked.start(command, log.fileno(), log.fileno())
        self.starts += 1
        self.paused = False

    def _text(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")


@dataclass(slots=True)
class Fleet:
    """All processes by name."""

    folder: Path
    workers: dict[str, Worker] = field(default_factory=dict)

    async def start(
        self,
        name: str,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Worker:
        """Start a process under a name, on a folder of its own, with more in its environment."""
        folder = self.folder / name
        free: dict[str, Any] = dict.fromkeys(("grpc_address", "ops_address"), FREE)
        free["control_address"] = FREE
        given = {**free, "data_dir": folder, "breaker_hang_ms": 250, **settings}
        worker = Worker(name, arguments, given, self.folder / "logs", environ or {})
        self.workers[name] = worker
        await worker.start()
        return worker

    def named(self, prefix: str) -> list[Worker]:
        """Return the processes whose names begin so, in the order of their names."""
        return [self.workers[name] for name in sorted(self.workers) if name.startswith(prefix)]

    @property
    def unexpected(self) -> dict[str, list[int]]:
        """The exit codes of processes that ended though nobody had asked them to."""
        return {each.name: each.unexpected for each in self.workers.values() if each.unexpected}

    async def stop(self) -> dict[str, tuple[int, float]]:
        """Ask all to end; return each one's exit code, and how many seconds it took."""
        began = time.monotonic()

        async def end(worker: Worker) -> tuple[int, float]:
            return await worker.terminate(), time.monotonic() - began

        ended = await asyncio.gather(*(end(each) for each in self.workers.values()))
        return dict(zip(self.workers, ended, strict=True))


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Lend a fleet; whatever still runs on leaving is killed."""
    lent = Fleet(folder)
    try:
        yield lent
    finally:
        await asyncio.gather(*(each.kill() for each in lent.workers.values()))
