"""Long runs of a shard against its specification: so many steps from so many seeds.

Owns the loop over seeds, and its progress. Refuses to know what a step is.

Run as `python -m tests.property.seeded URL [--seeds N] [--steps N] [--first N]`.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.property.shard_limits import Choice
from tests.property.shard_world import World


class Seeded:
    """Choices from a seed: the same seed gives the same run."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one_of(self, options: Sequence[Choice]) -> Choice:
        """Return one of the options."""
        return self._random.choice(options)

    def integer(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        return self._random.randint(low, high)


def run(url: str, seed: int, steps: int) -> Counter[str]:
    """Run one seed; return how often each kind of outcome came. Raises AssertionError."""
    with asyncio.Runner() as runner:
        world = World(url, runner, Seeded(seed))
        try:
            world.begin()
            for step in range(steps):
                try:
                    world.step()
                except AssertionError as error:
                    error.add_note(f"seed {seed}, step {step}")
                    raise
        finally:
            world.close()
        return Counter(world.outcomes)


def main() -> int:
    """Run the seeds asked for, and print what they met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    asked = parser.parse_args()
    met: Counter[str] = Counter()
    for seed in range(asked.first, asked.first + asked.seeds):
        started = time.monotonic()
        met += run(asked.url, seed, asked.steps)
        took_s = time.monotonic() - started
        sys.stdout.write(f"seed {seed}: {asked.steps} steps agree, {took_s:.0f} s\n")
        sys.stdout.flush()
    for name, count in sorted(met.items()):
        sys.stdout.write(f"{count:9}  {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
