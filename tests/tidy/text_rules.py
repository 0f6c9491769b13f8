"""Tidy rules over text of every kind: sizes, Lua and SQL headers, words that must not be there.

Guarantees that each rule is a pure function from one source to its faults. Refuses to know where
sources come from.
"""

import re
from collections.abc import Iterator

from .tree import Fault, Source

FILE_LINES_MAX = 400
LINE_MAX = 100
README_LINES_MAX = 150
LUA_LABELS = ("KEYS", "ARGV", "Returns", "Invariant", "Cost")

# Written so that they do not match themselves.
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
REGISTRY = re.compile(
    r"py[p]i\.org|python[h]osted\.org|npm[j]s\.(?:org|com)|[a]rtifactory|proxy\.go[l]ang"
    r"|(?:extra-)?inde[x]-url\s*=?\s*\S+://",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.$}-])/(?:work|root|home/\w+|Users/\w+)/")
LUA_COMMENT = re.compile(r"^\s*--(?:\[\[)?\s?(?P<text>.*?)(?:\]\])?$")
SQL_NAME = re.compile(r"^--\s*name\s*:", re.IGNORECASE)


def file_size(source: Source) -> Iterator[Fault]:
    """Refuse files of more lines than one can hold in mind."""
    if len(source.lines) > FILE_LINES_MAX:
        yield Fault(source.path, FILE_LINES_MAX, f"the file has {len(source.lines)} lines")


def line_sizes(source: Source) -> Iterator[Fault]:
    """Refuse lines that do not fit beside another window."""
    for number, line in enumerate(source.lines, 1):
        if len(line) > LINE_MAX:
            yield Fault(source.path, number, f"the line has {len(line)} characters")


def readme_size(source: Source) -> Iterator[Fault]:
    """Refuse a README that is a manual."""
    if len(source.lines) > README_LINES_MAX:
        yield Fault(source.path, README_LINES_MAX, f"the README has {len(source.lines)} lines")


def unfinished(source: Source) -> Iterator[Fault]:
    """Refuse notes that stand for work not done."""
    yield from _matches(source, UNFINISHED, "is unfinished work")


def machine_traces(source: Source) -> Iterator[Fault]:
    """Refuse names of package registries and paths of one machine."""
    yield from _matches(source, REGISTRY, "names a package registry")
    yield from _matches(source, MACHINE_PATH, "is a path of one machine")


def lua_header(source: Source) -> Iterator[Fault]:
    """Ask each script for its purpose, KEYS, ARGV, Returns, Invariant and Cost."""
    header = []
    for line in source.lines:
        # The line that names the engine and its flags must come before any comment.
        if line.startswith("#!"):
            continue
        comment = LUA_COMMENT.match(line)
        if comment is None:
            break
        header.append(comment["text"].strip())
    if not any(header) or next(filter(None, header)).startswith(LUA_LABELS):
        yield Fault(source.path, 1, "the script does not open with its purpose")
    for label in LUA_LABELS:
        if not any(line.startswith(label) for line in header):
            yield Fault(source.path, 1, f"the script's header lacks {label}")


def sql_purposes(source: Source) -> Iterator[Fault]:
    """Ask each SQL file, and each named query in it, for a comment that says its purpose."""
    lines = source.lines
    if not lines or not (_sql_prose(lines[0]) or SQL_NAME.match(lines[0])):
        yield Fault(source.path, 1, "the file does not open with its purpose")
    for index, line in enumerate(lines):
        if SQL_NAME.match(line):
            following = lines[index + 1] if index + 1 < len(lines) else ""
            if not _sql_prose(following):
                yield Fault(
                    source.path, index + 1, "the query's name is not followed by its purpose"
                )


def requirement_reasons(source: Source, requirements: list[str]) -> Iterator[Fault]:
    """Ask each requirement of a pyproject for a comment on the line above it."""
    lines = [line.strip() for line in source.lines]
    for requirement in requirements:
        quoted = f'"{requirement}"'
        at = next((n for n, line in enumerate(lines) if quoted in line), None)
        if at is None:
            yield Fault(source.path, 1, f"{requirement} does not stand on a line of its own")
        elif at == 0 or not re.match(r"#\s*\w+\W+\w+", lines[at - 1]):
            yield Fault(source.path, at + 1, f"{requirement} has no reason")


def _matches(source: Source, pattern: re.Pattern[str], verdict: str) -> Iterator[Fault]:
    for number, line in enumerate(source.lines, 1):
        for found in pattern.finditer(line):
            yield Fault(source.path, number, f"{found[0]!r} {verdict}")


def _sql_prose(line: str) -> bool:
    return not SQL_NAME.match(line) and re.match(r"--\s*\w+\W+\w+", line) is not None
