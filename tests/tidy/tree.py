"""The repository's files, as the tidy rules see them.

Owns which files are looked at and which count as generated. Guarantees paths relative to the root,
in order. Refuses to know any rule.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
GIT_TIMEOUT_S = 60
GENERATED = (
    "clients/python/tallygate_client/gen/",
    "image/requirements.lock",
    "requirements.lock",
    "server/tallygate/gen/",
)
# Read only where there is no git, as in an unpacked release.
NOT_SOURCE = {".git", ".venv", "__pycache__", ".tallygate", "build", "dist", "node_modules"}


class Fault(NamedTuple):
    """One breach of the house style."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        """Write the fault as editors and terminals link it."""
        return f"{self.path}:{self.line}: {self.message}"


class Source(NamedTuple):
    """One text file: its path below the root, and what it says."""

    path: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The file's lines, without their ends."""
        return self.text.splitlines()


def sources(*suffixes: str, below: str = "", generated: bool = False) -> list[Source]:
    """Read the text files of the repository, all of them or those with one of `suffixes`.

    Args:
        suffixes: with their dot, as `.py`.
        below: only files whose path begins with this.
        generated: whether generated files count too.
    """
    found = []
    for path in sorted(_paths()):
        if not path.startswith(below) or (suffixes and PurePosixPath(path).suffix not in suffixes):
            continue
        if not generated and path.startswith(GENERATED):
            continue
        text = _text(ROOT / path)
        if text is not None:
            found.append(Source(path, text))
    return found


def _paths() -> Iterator[str]:
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, timeout=GIT_TIMEOUT_S, check=True
        )
        yield from {name for name in done.stdout.decode().split("\0") if name}
        return
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in NOT_SOURCE and "cache" not in name]
        for file in files:
            yield (Path(folder) / file).relative_to(ROOT).as_posix()


def _text(path: Path) -> str | None:
    """Read a file; None for what is not text, not a file, or was deleted meanwhile."""
    try:
        return path.read_bytes().decode("utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return None
