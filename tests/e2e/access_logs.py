"""Access logs for tests, counted independently of the product.

Refuses to know how the product reads a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Counted:
    """What a log holds: lines, distinct clients, lines with bytes, and those bytes."""

    lines: int
    clients: int
    with_bytes: int
    bytes: int

    @property
    def events(self) -> int:
        """One per line, and one more where bytes were sent."""
        return self.lines + self.with_bytes

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return events and sum by meter."""
        return {
            "requests": (self.lines, self.lines),
            "egress_bytes": (self.with_bytes, self.bytes),
        }


def sample(lines: int) -> list[str]:
    """Return the first lines of the shipped sample."""
    text = resources.files("tallygate.demo").joinpath("access.log").read_text()
    return text.splitlines()[:lines]


def write(path: Path, lines: Sequence[str]) -> Path:
    """Write a log."""
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def counted(lines: Sequence[str]) -> Counted:
    """Count a log in common format by its first and last words."""
    words = [line.split() for line in lines]
    sizes = [0 if each[-1] == "-" else int(each[-1]) for each in words]
    with_bytes = sum(1 for size in sizes if size)
    return Counted(len(lines), len({each[0] for each in words}), with_bytes, sum(sizes))


def totals_of(document: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return events and sum by meter as `usage --json` shows them."""
    return {row["meter"]: (row["events"], row["sum"]) for row in document["totals"]}
