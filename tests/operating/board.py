"""What the processes of an installation say of themselves: all their metrics at one moment.

Owns reading the ops pages. Guarantees that a process that does not answer is told as such, and
never as one whose figures are 0. Refuses to know what a figure means.
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

PAGE_TIMEOUT_S: Final = 5.0

Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]
"""Of each metric, its labels and values."""


@dataclass(frozen=True, slots=True)
class Board:
    """Samples by process; `silent` are those that did not answer."""

    samples: Mapping[str, Samples] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()

    def values(self, metric: str, **labels: str) -> list[float]:
        """Return a metric's values with these labels, of all processes."""
        return [
            value
            for process in self.samples.values()
            for found, value in process.get(metric, ())
            if all(found.get(name) == wanted for name, wanted in labels.items())
        ]

    def total(self, metric: str, **labels: str) -> float:
        """Return their sum, 0 where there are none."""
        return sum(self.values(metric, **labels))

    def most(self, metric: str, **labels: str) -> float:
        """Return the greatest, 0 where there are none."""
        return max(self.values(metric, **labels), default=0.0)


def samples_of(text: str) -> Samples:
    """Return what a page of metrics says."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


async def board(addresses: Mapping[str, str | None]) -> Board:
    """Read the pages of processes by their names; None is one that is known to be down."""
    pages = await asyncio.gather(
        *(asyncio.to_thread(_page, address) for address in addresses.values())
    )
    named = dict(zip(addresses, pages, strict=True))
    return Board(
        {name: samples_of(text) for name, text in named.items() if text},
        frozenset(name for name, text in named.items() if not text),
    )


def _page(address: str | None) -> str:
    if address is None:
        return ""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=PAGE_TIMEOUT_S) as reply:
            text: str = reply.read().decode()
            return text
    except (OSError, urllib.error.URLError):
        return ""


def named(addresses: Iterable[str]) -> dict[str, str | None]:
    """Return addresses as given on a command line, each `NAME=HOST:PORT` or without a name."""
    found: dict[str, str | None] = {}
    for each in addresses:
        name, equals, address = each.rpartition("=")
        found[name if equals else address] = address
    return found
