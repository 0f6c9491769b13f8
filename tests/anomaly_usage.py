"""Usage by hour as real services have it: by day and week, with noise, from a seed."""

import random
from typing import Final

from tallygate.domain.anomaly import Used, hour_of_week

# A Monday's first hour, in UTC.
MONDAY: Final = 490_008 - hour_of_week(490_008)
WEEK: Final = 168
UNITS_PER_EVENT: Final = 37


def busy(seed: int, hours: range, level: float = 1.0) -> dict[int, Used]:
    """Return usage of some thousand events an hour by day, and of half as many at weekends."""
    found = {}
    for hour in hours:
        chance = random.Random(seed * 1_000_003 + hour)
        day, clock = divmod(hour_of_week(hour), 24)
        shape = 0.3 + max(0.0, 1 - abs(clock - 13) / 9)
        shape *= 0.5 if day >= 5 else 1.0
        mean = 2_000 * shape * level
        events = max(0, round(chance.gauss(mean, 0.08 * mean) + chance.gauss(0, mean**0.5)))
        found[hour] = Used(events * UNITS_PER_EVENT, events)
    return found


def office(seed: int, hours: range) -> dict[int, Used]:
    """Return usage on working days from nine to five, and none else."""
    return {
        hour: used
        for hour, used in busy(seed, hours).items()
        if hour_of_week(hour) // 24 < 5 and 9 <= hour_of_week(hour) % 24 < 17
    }


def sporadic(seed: int, hours: range, chance: float = 0.05) -> dict[int, Used]:
    """Return usage of some 500 events in hours that nobody can foretell."""
    found = {}
    for hour in hours:
        drawn = random.Random(seed * 1_000_003 + hour)
        if drawn.random() < chance:
            found[hour] = Used(drawn.randint(4_100, 5_900), 500)
    return found
