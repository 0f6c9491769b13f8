"""A page that is walked through: its files are written, its commands are run, in its order.

Owns a folder, the servers that the page starts, and what days and addresses of the page are here.
Guarantees that each command prints what the page shows and ends with 0, or as its `echo $?` says.
Refuses to know what the page is about; and a shell: of it, it knows what such pages use.

Days of the page are moved so that its yesterday is ours. A line `…` stands for any lines. Widths of
tables, and what the machine's clock or chance decide, are left out of account.
"""

import asyncio
import base64
import re
import shlex
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e import forked
from tests.e2e.processes import COMMAND, FREE, environment, started
from tests.servers import eventually

from .pages import Block, blocks

WIDTH: Final = "160"
SHOWN_S: Final = 120.0
CALL_TIMEOUT_S: Final = 60.0
FAKE_COMMAND: Final = COMMAND.with_name("tallygate-fake-stripe")
YESTERDAY: Final = date(2026, 11, 21)
DATA, FAKE = "127.0.0.1:50051", "127.0.0.1:12113"
CHANGES: Final = ("apply", "issue", "--apply", "send-shadow", "/v1/", "/_fake/customers")
"""What may be done once only; anything else is asked again until it answers as shown."""

_DAY: Final = re.compile(r"\b\d{4}-\d\d-\d\d(?=\b|T)")
_DATE_COMMAND: Final = re.compile(r"\$\(date -ud (\S+) \+%s\)")
_MASKS: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "HASH"),
    (re.compile(r'"created":\d+'), '"created":TIME'),
    (re.compile(r'"timestamp":\d+'), '"timestamp":TIME'),
    (re.compile(r"since_us: \d+"), "since_us: TIME"),
    (re.compile(r"[━─]+"), "─"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a page, and what the page shows beneath it."""

    line: int
    command: str
    shown: str


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a console block."""
    joined = block.text.replace("\\\n", "")
    parts = re.split(r"^\$ ", joined, flags=re.MULTILINE)[1:]
    for part in parts:
        command, _, shown = part.partition("\n")
        yield Step(block.line, command, shown)


def alike(text: str) -> list[str]:
    """Return lines as they are compared."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def fits(shown: str, found: str) -> bool:
    """Whether a command has printed what is shown."""
    parts = [re.escape("\n".join(part)) for part in _parts(alike(shown))]
    return bool(re.fullmatch(r"(?s:.*)".join(parts), "\n".join(alike(found))))


def _parts(lines: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for line in lines:
        if line == "…":
            yield part
            part = []
        else:
            part.append(line)
    yield part


@dataclass(slots=True)
class Walk:
    """A page under way. `recorded` is what each command printed, by its place on the page."""

    page: str
    folder: Path
    stack: AsyncExitStack
    environment: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    dev: list[str] = field(default_factory=list)
    code: int = 0
    recorded: list[tuple[str, str]] = field(default_factory=list)

    async def run(self) -> None:
        """Do all that the page says."""
        found = [each for each in blocks() if each.page == self.page]
        for place, each in enumerate(found):
            match each.language:
                case "yaml":
                    self._write(each.text)
                case "python":
                    following = found[place + 1]
                    assert following.language == "text", (self.page, each.line)
                    self.check(Step(each.line, "python", following.text), await self._python(each))
                case "console":
                    for step in steps(each):
                        await self.step(step)
                case "text":
                    assert found[place - 1].language == "python", (self.page, each.line)
                case other:
                    raise AssertionError((self.page, each.line, other))

    async def step(self, step: Step) -> None:
        """Run a command; it has to print what is shown, where asking may help within a while."""
        command = self.here(step.command)
        words = shlex.split(_DATE_COMMAND.sub(_seconds, command))
        match words:
            case ["tallygate", "dev", *rest]:
                await self._start_dev(rest)
            case ["tallygate-fake-stripe"]:
                await self._start_fake()
            case ["export", assigned]:
                # A page cannot know the folder: what is printed here is taken.
                name = assigned.partition("=")[0]
                (line,) = [each for each in self.dev if each.startswith(f"export {name}=")]
                self.environment[name] = shlex.split(line)[1].partition("=")[2]
            case ["echo", "$?"]:
                self.check(step, f"{self.code}\n")
                self.code = 0
            case ["echo", text, ">", name]:
                (self.folder / name).write_text(f"{text}\n")
            case _:
                await self._ask(step, words)

    async def _ask(self, step: Step, words: list[str]) -> None:
        assert self.code == 0, (self.page, step.line, "the command before ended with", self.code)
        printed = ""

        async def as_shown() -> bool:
            nonlocal printed
            self.code, printed = await self._once(words)
            return fits(self.here(step.shown), printed)

        changes = any(each in step.command for each in CHANGES)
        try:
            await eventually(as_shown, 0.0 if changes else SHOWN_S)
        except AssertionError:
            self.check(step, printed)
        self.recorded.append((step.command, printed))

    def check(self, step: Step, found: str) -> None:
        """Hold what was printed against what is shown."""
        place = f"{self.page}, block of line {step.line}: {step.command}"
        assert fits(self.here(step.shown), found), f"{place}\nprinted\n{found}"

    async def _once(self, words: list[str]) -> tuple[int, str]:
        match words:
            case ["tallygate", *arguments]:
                own = {**environment({}), **self.environment, "COLUMNS": WIDTH}
                command = forked.Command(tuple(arguments), own, str(self.folder))
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    code, out, err = await forked.run(command)
                return code, out + err
            case ["curl", url, *options]:
                return 0, await asyncio.to_thread(_call, url, options)
            case _:
                raise AssertionError((self.page, words))

    def here(self, text: str) -> str:
        """Return a text of the page with the days and addresses of here."""
        away = datetime.now(UTC).date() - timedelta(days=1) - YESTERDAY
        text = _DAY.sub(lambda found: str(date.fromisoformat(found[0]) + away), text)
        for there, address in self.addresses.items():
            text = text.replace(there, address)
        return text

    def _write(self, text: str) -> None:
        path = self.folder / "catalog.yaml"
        before = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump(_merged(before, yaml.safe_load(self.here(text)))))

    async def _python(self, block: Block) -> str:
        from tests.docs.test_examples import run_python  # noqa: PLC0415

        return await run_python(self.here(block.text))

    async def _start_dev(self, options: list[str]) -> None:
        free: dict[str, Any] = dict.fromkeys(("grpc_address", "ops_address"), FREE)
        process = await self.stack.enter_async_context(
            started("dev", *options, cwd=self.folder, control_address=FREE, **free)
        )
        await process.said("export TALLYGATE_POSTGRES_DSN=.*\n")
        self.dev = process.out
        data = await process.said(r"data plane \(gRPC\)\W+([\d.]+:\d+)")
        control = await process.said(r"control \(gRPC\)\W+([\d.]+:\d+)")
        self.addresses[DATA] = data[1]
        self.environment["TALLYGATE_CONTROL_ADDRESS"] = control[1]

    async def _start_fake(self) -> None:
        arguments = ("--port", "0")
        process = await self.stack.enter_async_context(started(*arguments, command=FAKE_COMMAND))
        address = await process.said(r"http://(\S+)")
        self.addresses[FAKE] = address[1]


def _merged(before: Any, after: Any) -> Any:  # as YAML has it
    """Return a mapping with another one put into it."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    return {**before, **{name: _merged(before.get(name), each) for name, each in after.items()}}


def _seconds(found: re.Match[str]) -> str:
    return str(int(datetime.fromisoformat(f"{found[1]}+00:00").timestamp()))


def _call(url: str, options: list[str]) -> str:
    """Do what curl does."""
    pairs = list(zip(options[::2], options[1::2], strict=True))
    texts = [value for name, value in pairs if name == "-d"]
    body = "&".join(urllib.parse.quote(each, safe="=[]") for each in texts).encode()
    if texts and texts[0].startswith("{"):
        body = texts[0].encode()
    request = urllib.request.Request(url, data=body or None)
    for name, value in pairs:
        assert name in ("-d", "-u"), name
        if name == "-u":
            request.add_header(
                "Authorization", "Basic " + base64.b64encode(value.encode()).decode()
            )
    with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as reply:
        return str(reply.read().decode())
