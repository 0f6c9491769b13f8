"""The `tallygate` command as processes of their own.

Owns starting, hearing, signalling and ending them. Guarantees that no process outlives its block,
and that nothing of the machine's own settings reaches one. Refuses to know what a verb does.
"""

import asyncio
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.e2e import forked
from tests.servers import eventually
from tests.transports import TRANSPORT

COMMAND = Path(sys.prefix) / "bin" / "tallygate"
FREE = "127.0.0.1:0"
WIDE = "400"
"""Columns of output: a table then folds nothing that a test looks for."""

COMMAND_TIMEOUT_S = 60.0
START_TIMEOUT_S = 90.0
PAGE_TIMEOUT_S = 5.0
_READY = re.compile(r"tallygate ([a-z+]+): (?P<grpc>.+); ops on port (?P<ops>\d+)")


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # as JSON has it
        """Return stdout, which has to be one JSON document."""
        return json.loads(self.out)

    def figures(self, title: str) -> dict[str, Any]:
        """Return a sheet of two columns as a mapping."""
        return dict(tuple(row.values()) for row in self.json()[title])


def environment(settings: dict[str, Any]) -> dict[str, str]:
    """Return this process's environment with these settings and no others."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TALLYGATE_")}
    # Without it, what a process says waits in its buffer until it ends.
    kept |= {"COLUMNS": WIDE, "PYTHONUNBUFFERED": "1"}
    # On a machine full of tests an answer may take that long: no test is about outages by accident.
    kept["TALLYGATE_BREAKER_HANG_MS"] = "10000"
    kept["TALLYGATE_TRANSPORT"] = TRANSPORT
    return kept | {f"TALLYGATE_{key.upper()}": str(value) for key, value in settings.items()}


async def tallygate(*arguments: object, cwd: Path | None = None, **settings: Any) -> Finished:
    """Run a command to its end, without the second that it takes to import what it is made of."""
    given = tuple(map(str, arguments))
    command = forked.Command(given, environment(settings), str(cwd or Path.cwd()))
    async with asyncio.timeout(COMMAND_TIMEOUT_S):
        return Finished(*await forked.run(command))


async def installed(*arguments: object, cwd: Path | None = None, **settings: Any) -> Finished:
    """Run the installed command to its end, as a shell does."""
    async with started(*arguments, cwd=cwd, command=COMMAND, **settings) as process:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            code = await process.ended()
    return Finished(code, "".join(process.out), "".join(process.err))


@dataclass(slots=True)
class Process:
    """A running command. `out` and `err` are the lines that it has said so far."""

    child: asyncio.subprocess.Process | forked.Child
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    def listen(self, out: asyncio.StreamReader, err: asyncio.StreamReader) -> Self:
        """Take down what is said, so that no pipe is ever full."""
        for stream, lines in ((out, self.out), (err, self.err)):
            self.readers.append(asyncio.create_task(_take_down(stream, lines)))
        return self

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.child.returncode is None

    async def said(self, pattern: str, timeout_s: float = START_TIMEOUT_S) -> re.Match[str]:
        """Return the first match in what was said, as soon as it is."""

        def found() -> re.Match[str] | None:
            text = "".join([*self.out, *self.err])
            match = re.search(pattern, text)
            assert match or self.running, f"ended with {self.child.returncode}: {text}"
            return match

        match = await eventually(found, timeout_s, what=f"said {pattern!r}")
        assert match is not None
        return match

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.child.send_signal(number)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        """Wait for its end; return its exit code, which is negative after a signal."""
        code = await self.child.wait()
        await asyncio.gather(*self.readers)
        return code


async def _take_down(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())


@asynccontextmanager
async def started(
    *arguments: object, cwd: Path | None = None, command: Path | None = None, **settings: Any
) -> AsyncIterator[Process]:
    """Start Tallygate, or a command by its path; kill it on leaving if it still runs."""
    given = tuple(map(str, arguments))
    if command is None:
        process = await _forked(
            forked.Command(given, environment(settings), str(cwd or Path.cwd()))
        )
    else:
        process = await _executed(command, given, cwd, environment(settings))
    try:
        yield process
    finally:
        if process.running:
            process.send(signal.SIGKILL)
        await process.ended()


async def _forked(command: forked.Command) -> Process:
    (out, out_end), (err, err_end) = await _pipe(), await _pipe()
    try:
        child = await forked.start(command, out_end, err_end)
    finally:
        os.close(out_end)
        os.close(err_end)
    return Process(child).listen(out, err)


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    return reader, writing


async def _executed(
    command: Path, arguments: tuple[str, ...], cwd: Path | None, environ: dict[str, str]
) -> Process:
    child = await asyncio.create_subprocess_exec(
        command,
        *arguments,
        cwd=cwd,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    return Process(child).listen(child.stdout, child.stderr)


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves: where it listens, and what its ops pages say."""

    process: Process
    address: str
    ops_port: int

    async def page(self, path: str) -> tuple[int, str]:
        """Return the status and text of an ops page."""
        return await asyncio.to_thread(fetch, f"http://127.0.0.1:{self.ops_port}{path}")

    async def metric(self, name: str) -> float:
        """Return a metric without labels, 0 where there is none yet."""
        _, text = await self.page("/metrics")
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def ready(self) -> Self:
        """Wait until it says that it is ready: a sidecar then has a catalog."""

        async def told() -> bool:
            return (await self.page("/readyz"))[0] == 200

        await eventually(told, START_TIMEOUT_S, what="a process that is ready")
        return self

    async def terminate(self) -> int:
        """Tell it to stop; return its exit code."""
        self.process.send(signal.SIGTERM)
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            return await self.process.ended()


def fetch(url: str) -> tuple[int, str]:
    """Return the status and text of a page, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=PAGE_TIMEOUT_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@dataclass(slots=True)
class Site:
    """One installation under test: its settings, a data folder for each process, and an exit."""

    folder: Path
    stack: AsyncExitStack
    settings: dict[str, Any]
    count: int = 0

    async def start(self, *arguments: object, **settings: Any) -> Server:
        """Start a process that serves, on free ports; return it once it has said where."""
        self.count += 1
        folder = self.folder / f"process-{self.count}"
        free: dict[str, Any] = dict.fromkeys(("grpc_address", "ops_address"), FREE)
        free["control_address"] = FREE
        given = {**free, "data_dir": folder, **self.settings, **settings}
        process = await self.stack.enter_async_context(started(*arguments, **given))
        ready = await process.said(_READY.pattern)
        return Server(process, ready["grpc"], int(ready["ops"]))

    async def dev(self, **settings: Any) -> tuple[Server, str]:
        """Start `dev`; return it and the address of its control."""
        free: dict[str, Any] = dict.fromkeys(("grpc_address", "ops_address"), FREE)
        free["control_address"] = FREE
        given = {**free, "data_dir": self.folder / "dev", **self.settings, **settings}
        process = await self.stack.enter_async_context(started("dev", **given))
        ops = await process.said(r"http://127\.0\.0\.1:(\d+)/metrics")
        data = await process.said(r"data plane \(gRPC\)\W+([\d.]+:\d+)")
        control = await process.said(r"control \(gRPC\)\W+([\d.]+:\d+)")
        return Server(process, data[1], int(ops[1])), control[1]


@asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """Lend an installation; all that it started is ended on leaving."""
    async with AsyncExitStack() as stack:
        yield Site(folder, stack, settings)


def rows_of(finished: Finished, title: str) -> Sequence[dict[str, Any]]:
    """Return a sheet's rows."""
    rows: Sequence[dict[str, Any]] = finished.json()[title]
    return rows
