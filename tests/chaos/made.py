"""Usage made up from a seed, and what ledger, rollups and counters must make of it.

Owns the arithmetic of the expectation, which is done here from the made usage alone, by no code of
the product. Refuses to know how usage travels.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

METERS: Final = ("requests", "egress_bytes")
MINUTE_US: Final = 60_000_000
UNITS_US: Final = {"minute": MINUTE_US, "hour": 60 * MINUTE_US, "day": 24 * 60 * MINUTE_US}
HORIZON_MINUTES: Final = 35 * 24 * 60
DISTINCT_MINUTES: Final = 2_000

Bucket = tuple[str, str, int]
Figures = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much usage, and how unruly: shares of what is sent again, is late, or is too late."""

    seed: int
    events: int
    tenants: int = 40
    again: float = 0.1
    late: float = 0.3
    too_late: float = 0.001


@dataclass(slots=True)
class Made:
    """The events by number: whose, of which meter, how much, when; times in us since 1970.

    `sends` are the numbers in the order in which they are sent; one that stands there again is a
    repeat.
    """

    recipe: Recipe
    now_us: int
    tenants: list[str] = field(default_factory=list)
    meters: list[str] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    sends: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    def accepted(self) -> Iterator[int]:
        """Yield the numbers of the events that the ledger must have."""
        return (number for number in range(self.recipe.events) if number not in self.refused)

    def buckets(self, unit: str) -> dict[Bucket, Figures]:
        """Return count, sum, max and min by tenant, meter and bucket."""
        length_us = UNITS_US[unit]
        found: dict[Bucket, list[int]] = {}
        for number in self.accepted():
            at_us = self.times_us[number] // length_us * length_us
            amount = self.amounts[number]
            kept = found.setdefault(
                (self.tenants[number], self.meters[number], at_us), [0, 0, amount, amount]
            )
            kept[0] += 1
            kept[1] += amount
            kept[2] = max(kept[2], amount)
            kept[3] = min(kept[3], amount)
        return {key: (kept[0], kept[1], kept[2], kept[3]) for key, kept in found.items()}

    def counters(self) -> dict[tuple[str, str], int]:
        """Return what this month's window holds by tenant and meter."""
        now = datetime.fromtimestamp(self.now_us / 1e6, UTC)
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        starts_us = round(month.timestamp()) * 1_000_000
        found: dict[tuple[str, str], int] = defaultdict(int)
        for number in self.accepted():
            if self.times_us[number] >= starts_us:
                found[self.tenants[number], self.meters[number]] += self.amounts[number]
        return dict(found)


def make(recipe: Recipe, now_us: int) -> Made:
    """Make the usage of a recipe, as of an instant."""
    chance = random.Random(recipe.seed)
    made = Made(recipe, now_us)
    this_minute = now_us // MINUTE_US
    # Few enough minutes that each bucket has several events to be added up wrongly.
    past = [this_minute - chance.randrange(10, HORIZON_MINUTES - 600)
            for _ in range(DISTINCT_MINUTES)]  # fmt: skip
    for number in range(recipe.events):
        made.tenants.append(f"tenant-{chance.randrange(recipe.tenants)}")
        made.meters.append(METERS[chance.random() < 0.3])
        made.amounts.append(chance.randint(1, 1_000))
        draw = chance.random()
        minute = this_minute - chance.randrange(10)
        if draw < recipe.too_late:
            minute = this_minute - HORIZON_MINUTES - 60
            made.refused.add(number)
        elif draw < recipe.too_late + recipe.late:
            minute = chance.choice(past)
        made.times_us.append(minute * MINUTE_US + chance.randrange(MINUTE_US))
        if made.times_us[-1] > now_us:
            made.times_us[-1] -= MINUTE_US
    made.sends = _sends(made, chance)
    return made


def _sends(made: Made, chance: random.Random) -> list[int]:
    recipe = made.recipe
    sends = list(range(recipe.events))
    kept: Sequence[int] = [each for each in sends if each not in made.refused]
    repeats = chance.choices(kept, k=int(recipe.events * recipe.again)) if kept else []
    sends += repeats
    chance.shuffle(sends)
    return sends
