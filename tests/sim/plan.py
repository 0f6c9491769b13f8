"""What happens in a run, drawn from its seed: faults with their times, and what is asked.

Owns chance. Guarantees: the same seed and the same scope give the same plan. Refuses to know how
faults are done.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """What the nemesis does."""

    REDIS_DOWN = "redis down"
    REDIS_STALLED = "redis stalled"
    REDIS_LOSSY = "redis loses requests and replies"
    REDIS_CUT = "redis cut off from one process"
    POSTGRES_DOWN = "postgres down"
    POSTGRES_LOSSY = "postgres loses requests and commits' replies"
    SIDECAR_KILLED = "sidecar killed"
    SIDECAR_STOPPED = "sidecar stopped"
    INGESTER_KILLED = "ingester killed"
    INGESTER_STOPPED = "ingester stopped"
    RELAY_KILLED = "relay killed"
    RELAY_STOPPED = "relay stopped"
    GROUP_LOST = "consumer group lost"
    DESTINATION_FAILING = "destination fails, also after it took"
    CLOCK_STEPPED = "redis' clock stepped"
    REDIS_FLUSHED = "redis emptied"
    REDIS_RESTORED = "redis replaced by a copy that lagged behind"
    POWER_LOST = "sidecar without power, and with it what was not synced"
    DISK_FULL = "disk of a sidecar full"
    DISK_FAILING = "disk of a sidecar failing"


EVERY: Final = tuple(Fault)

LOSSES: Final = (Fault.REDIS_FLUSHED, Fault.REDIS_RESTORED)
# Sidecars and their disks live: whatever Redis loses, nothing that was accepted may be lost.
SPARING: Final = (
    *LOSSES,
    *LOSSES,
    Fault.REDIS_DOWN,
    Fault.REDIS_STALLED,
    Fault.REDIS_LOSSY,
    Fault.REDIS_CUT,
    Fault.POSTGRES_DOWN,
    Fault.POSTGRES_LOSSY,
    Fault.SIDECAR_STOPPED,
    Fault.INGESTER_KILLED,
    Fault.INGESTER_STOPPED,
    Fault.GROUP_LOST,
    Fault.CLOCK_STEPPED,
)
SPARING_SHARE: Final = 0.4
# A step of the clock over a window's turn makes windows of usage that counters cannot have.
STEP_US_MAX: Final = 600_000_000


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins and for how long, in seconds; what it befalls; how badly."""

    at_s: float
    for_s: float
    fault: Fault
    target: int
    badness: float
    # A kill comes so many steps of the process later: it may die at any await.
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.fault} at {self.at_s:.3f} s for {self.for_s:.3f} s, target {self.target},"
            f" {self.badness:.2f}, step {self.steps}"
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """How large a run is. Times are virtual seconds."""

    faults: Sequence[Fault] = EVERY
    faults_max: int = 6
    calls: int = 40
    callers: int = 4
    length_s: float = 8.0
    sidecars: int = 2
    ingesters: int = 2
    relays: int = 2
    drain_max_s: float = 60.0


# Few kinds of faults and many of them, so that losses meet what undoes the one before.
LOSING: Final = Scope(
    faults=(*LOSSES, Fault.POSTGRES_DOWN, Fault.INGESTER_KILLED, Fault.SIDECAR_STOPPED),
    faults_max=10,
)


def planned(chance: random.Random, scope: Scope) -> tuple[Planned, ...]:
    """Return the faults of a run, by when they begin."""
    faults = scope.faults
    if faults is EVERY and chance.random() < SPARING_SHARE:
        faults = SPARING
    found = [
        Planned(
            at_s=chance.uniform(0.2, scope.length_s),
            for_s=chance.uniform(0.05, 2.5),
            fault=chance.choice(faults),
            target=chance.randrange(64),
            badness=chance.uniform(0.05, 0.6),
            steps=chance.randrange(1, 60),
        )
        for _ in range(chance.randrange(scope.faults_max + 1))
    ]
    return tuple(sorted(found, key=lambda each: each.at_s))
