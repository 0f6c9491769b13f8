"""The clients under test: each a program of its own language that does as it is told.

Owns how each is started and spoken to: a JSON object per line, answered by one per line, in order.
Guarantees that none outlives its block. Refuses to know what is asked.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final = ROOT / "clients"
ANSWER_TIMEOUT_S: Final = 30.0
START_TIMEOUT_S: Final = 60.0
LINE_BYTES_MAX: Final = 16 << 20
STDERR_LINES_KEPT: Final = 30


@dataclass(frozen=True, slots=True)
class Language:
    """A client, the command of its driver, and where that is run."""

    name: str
    command: tuple[str, ...]
    cwd: Path
    built: Path
    """What is there once it has been built."""
    tool: str
    """What runs it."""
    sdk: str
    """What its package calls itself."""
    path: tuple[Path, ...] = ()

    @property
    def present(self) -> bool:
        """Whether it can be run here."""
        return self.built.exists() and shutil.which(self.tool) is not None


def _python(name: str, *mode: str) -> Language:
    folder = CLIENTS / "python"
    return Language(
        name,
        (sys.executable, "-m", "conformance_driver", *mode),
        folder,
        folder / "conformance_driver.py",
        sys.executable,
        "tallygate-python",
        (folder,),
    )


_GO: Final = CLIENTS / "go"
_NODE: Final = CLIENTS / "typescript"
_JAVA: Final = CLIENTS / "java"

LANGUAGES: Final[Mapping[str, Language]] = {
    each.name: each
    for each in (
        _python("python"),
        _python("asyncio", "--mode", "asyncio"),
        Language(
            "go",
            (str(_GO / "build" / "conformance"),),
            _GO,
            _GO / "build" / "conformance",
            str(_GO / "build" / "conformance"),
            "tallygate-go",
        ),
        Language(
            "node",
            ("node", "conformance/driver.mjs"),
            _NODE,
            _NODE / "dist",
            "node",
            "tallygate-node",
        ),
        Language(
            "java",
            ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "@target/conformance.args"),
            _JAVA,
            _JAVA / "target" / "conformance.args",
            "java",
            "tallygate-java",
        ),
    )
}
"""Java's arguments hold its class path and its class, as its build writes them."""


class DriverEnded(Exception):
    """The driver ended, or did not answer."""


@dataclass(slots=True)
class Driver:
    """A driver that runs."""

    language: Language
    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _waiting: dict[int, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)
    _readers: list["asyncio.Task[None]"] = field(default_factory=list)

    def ask(self, operation: str, **fields: Any) -> "asyncio.Future[dict[str, Any]]":
        """Ask for something; the future is its answer, without the number."""
        assert self.process.stdin is not None
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        line = json.dumps({"id": number, "do": operation, **fields})
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(line.encode() + b"\n")
        return answer

    async def told(
        self, operation: str, timeout_s: float = ANSWER_TIMEOUT_S, **fields: Any
    ) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        answer = self.ask(operation, **fields)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise DriverEnded(
                f"no answer to {operation} in {timeout_s:g} s{self._tail()}"
            ) from None

    def listen(self) -> None:
        """Take down answers and what is said beside them."""
        self._readers = [asyncio.create_task(self._answers()), asyncio.create_task(self._errors())]

    async def _answers(self) -> None:
        assert self.process.stdout is not None
        fault = ""
        while line := await self.process.stdout.readline():
            try:
                answer = json.loads(line)
                waiting = self._waiting.pop(answer.pop("id"))
            except (ValueError, KeyError, AttributeError) as error:
                fault = f"an answer that cannot be read, {error!r}: {line[:500]!r}"
                break
            if not waiting.done():
                waiting.set_result(answer)
        for each in self._waiting.values():
            if not each.done():
                each.set_exception(DriverEnded((fault or "the driver ended") + self._tail()))
                # It may be that nobody asks for it any more.
                each.exception()

    async def _errors(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said.append(line.decode(errors="replace").rstrip())
            del self.said[:-STDERR_LINES_KEPT]

    def _tail(self) -> str:
        return "".join(f"\n    | {line}" for line in self.said)

    async def kill(self) -> None:
        """End it as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._readers)


@asynccontextmanager
async def driver(language: Language) -> AsyncIterator[Driver]:
    """Start a driver; kill it on leaving."""
    kept = {
        key: value
        for key, value in os.environ.items()
        # Settings of this machine, and of the runner, are none of the client's.
        if not key.upper().startswith(("TALLYGATE_", "GRPC_")) and "PROXY" not in key.upper()
    }
    process = await asyncio.create_subprocess_exec(
        *language.command,
        cwd=language.cwd,
        env=kept | {"PYTHONPATH": os.pathsep.join(map(str, language.path))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    made = Driver(language, process)
    made.listen()
    try:
        hello = await made.told("hello", START_TIMEOUT_S)
        assert hello["ok"]["sdk"].startswith(f"{language.sdk}/"), hello
        yield made
    finally:
        await made.kill()
