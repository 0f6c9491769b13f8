"""The stages that a client goes through, one command after the other, with their times.

Owns what has to be run again: what has changed since it last passed. Guarantees that a command that
fails is shown with all that it said. Refuses to know what the commands are about.
"""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clients.builds.recipes import CLIENTS, ROOT, Commands, Recipe

STAMPS: Final = ROOT / ".venv" / ".clients"
COMMAND_TIMEOUT_S: Final = 900.0
GIT_TIMEOUT_S: Final = 60.0
SHARED: Final = ("protos", "clients/service_config.json")
"""What each client is made from besides its own folder."""


class StageFailed(Exception):
    """A command of a stage ended with a fault; what it said follows."""


@dataclass(slots=True)
class Progress:
    """What was done, and how long each stage took; `cached` where nothing had changed."""

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    cached: set[tuple[str, str]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    async def stage(
        self, recipe: Recipe, name: str, commands: Commands, *, keep: bool = True
    ) -> None:
        """Run a stage, unless it is to be kept and nothing has changed since it passed."""
        stamp = STAMPS / f"{recipe.name}-{name}"
        known = fingerprint(recipe)
        if keep and stamp.exists() and stamp.read_text() == known and recipe.made.exists():
            self.cached.add((recipe.name, name))
            self.seconds[recipe.name, name] = 0.0
            return
        began = time.monotonic()
        stamp.unlink(missing_ok=True)
        for command in commands:
            await run(command, recipe.folder)
        self.seconds[recipe.name, name] = time.monotonic() - began
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(known)


async def run(
    command: tuple[str, ...], folder: Path, extra: Mapping[str, str] | None = None
) -> str:
    """Run a command; return what it said. Raises `StageFailed` with all of it where it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYGATE_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment | dict(extra or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    if process.returncode:
        told = " ".join(command)
        raise StageFailed(f"{told} (in {folder.name}) ended with {process.returncode}:\n{text}")
    return text


def fingerprint(recipe: Recipe) -> str:
    """Return what a client and all that it is made from look like now."""
    folder = recipe.folder.relative_to(ROOT)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard", str(folder), *SHARED],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=GIT_TIMEOUT_S,
    ).stdout
    whole = hashlib.sha256()
    for name in sorted(filter(None, listed.decode().split("\0"))):
        path = ROOT / name
        if path.is_file():
            whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    # The samples are installed beside it, and the recipes say how.
    for path in sorted([*CLIENTS.glob("readme/**/*.*"), *CLIENTS.glob("builds/*.py")]):
        if path.is_file() and path.suffix != ".pyc":
            whole.update(path.read_bytes())
    return whole.hexdigest()
