"""What each client costs per call, beside the bare stub of its language.

Run as `python -m bench.clients`, a minute, after `make clients`. One sidecar; per language one
program that makes calls by its bare stub and by its client in turns, ABBA, so that what is compared
was measured within seconds of each other. Callers and sidecar share this machine's cores: what
counts is the difference, and the median of the rounds' differences.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from clients.conformance.drivers import LANGUAGES, Driver, Language, driver
from clients.conformance.world import servers, world

ROUNDS: Final = 6
CALLS: Final = 300
WARM_UP: Final = 300
"""As many as a runtime that compiles while it runs needs to be near its speed."""

CLIENT: Final = "bench"
WAYS: Final = ("bare", "client")


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds per call, by round: of the bare stub and of the client."""

    language: str
    bare: tuple[float, ...]
    client: tuple[float, ...]

    @property
    def overhead_us(self) -> float:
        """What the client adds to a call: the median of the rounds' differences."""
        return statistics.median(b - a for a, b in zip(self.bare, self.client, strict=True))

    @property
    def ratio(self) -> float:
        """What a call takes beside a bare one."""
        return statistics.median(b / a for a, b in zip(self.bare, self.client, strict=True))


async def measure(language: Language, target: str, rounds: int, calls: int) -> Cost:
    """Measure a client in rounds, in which its two ways take turns."""
    async with driver(language) as running:
        opened = await running.told("open", client=CLIENT, target=target, timeout_ms=20_000)
        assert "ok" in opened, opened
        for way in WAYS:
            await _mean_us(running, way, WARM_UP)
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                found[way].append(await _mean_us(running, way, calls))
        await running.told("close", client=CLIENT, timeout_ms=1_000)
    return Cost(language.name, tuple(found["bare"]), tuple(found["client"]))


async def _mean_us(running: Driver, way: str, calls: int) -> float:
    asked: dict[str, Any] = {"calls": calls, "concurrency": 1, "how": way, "warmup": 0}
    told = await running.told(
        "bench",
        timeout_s=120.0,
        client=CLIENT,
        tenant=f"bench-{running.language.name}",
        items=[{"meter": "huge", "amount": 1}],
        **asked,
    )
    assert "ok" in told, told
    return float(told["ok"]["mean_us"])


async def measure_all(languages: Sequence[Language], rounds: int, calls: int) -> list[Cost]:
    """Measure one client after the other."""
    async with servers() as (redis_url, dsn), world(redis_url, dsn) as made:
        return [await measure(each, made.address, rounds, calls) for each in languages]


def table(costs: Sequence[Cost]) -> Table:
    """Return the figures as a table."""
    made = Table("client", "bare stub, µs", "client, µs", "overhead, µs", "ratio", box=None)
    for each in costs:
        made.add_row(
            each.language,
            f"{statistics.median(each.bare):,.0f}",
            f"{statistics.median(each.client):,.0f}",
            f"{each.overhead_us:,.0f}",
            f"{each.ratio:.2f}",
        )
    return made


def main() -> int:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.clients", description=__doc__)
    parser.add_argument("--lang", action="append", choices=sorted(LANGUAGES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--calls", type=int, default=CALLS)
    asked = parser.parse_args()
    languages = [LANGUAGES[name] for name in asked.lang or LANGUAGES]
    present = [each for each in languages if each.present]
    costs = asyncio.run(measure_all(present, asked.rounds, asked.calls))
    Console(width=100).print(table(costs))
    return 0 if costs else 1


if __name__ == "__main__":
    sys.exit(main())
