"""The repository's prose, taken apart: pages, fenced blocks, commands, links, tables.

Owns how Markdown is read here. Guarantees that a block keeps the line it begins at, so that a fault
can be found. Refuses to know what pages say.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "tallygate"

_FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_CELLS = re.compile(r"(?<!\\)\|")


class Block(NamedTuple):
    """A fenced block: where it is, its language, its text."""

    page: str
    line: int
    language: str
    text: str


def pages() -> dict[str, str]:
    """Return every page by its path below the root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(found)}


def blocks(*languages: str) -> list[Block]:
    """Return the fenced blocks of these languages, of every page; without any, all blocks."""
    return [
        Block(page, text[: match.start()].count("\n") + 1, match["language"], match["text"])
        for page, text in pages().items()
        for match in _FENCE.finditer(text)
        if not languages or match["language"] in languages
    ]


def block(page: str, language: str, holding: str) -> str:
    """Return the text of the one block of a page that holds a text."""
    (found,) = [
        each.text for each in blocks(language) if each.page == page and holding in each.text
    ]
    return found


def prose(text: str) -> str:
    """Return a page's text without its fenced blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> Iterator[str]:
    """Yield the targets of a page's links, but for those into the web."""
    for match in _LINK.finditer(prose(text)):
        if not match["target"].startswith(("http://", "https://")):
            yield match["target"]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a console block; lines without a prompt are output."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        if line.startswith("$ "):
            yield shlex.split(line.removeprefix("$ "), comments=True)


def inline_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each `tallygate …` and `make …` in a page's prose."""
    for code in re.findall(r"`((?:\S*/)?(?:tallygate|make) [^`]+)`", prose(text)):
        yield shlex.split(code)


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of every table row whose first cell is code."""
    for line in prose(text).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in _CELLS.split(line)[1:-1]]
