"""What a soak is to be, and what came of it.

Refuses to know how it is run and how it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.gauges import Slope
from tests.chaos.installation import Shape
from tests.chaos.nemesis import EVERYTHING


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: for how long, at how many calls a second, and what may befall it."""

    seed: int
    seconds: float
    per_s: float = 150.0
    shape: Shape = field(default_factory=Shape)
    weights: Mapping[str, int] = field(default_factory=lambda: EVERYTHING)
    tenants: int = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: `wrong` by invariant, and what it was like."""

    plan: Plan
    wrong: Mapping[str, Sequence[str]]
    tries: Mapping[str, int]
    failures: Mapping[str, int]
    strikes: Mapping[str, int]
    events: int
    messages: int
    drained_s: float | None
    slopes: Sequence[Slope]
    unexpected: Mapping[str, Sequence[int]]
    ended: Mapping[str, tuple[int, float]]

    @property
    def faults(self) -> list[str]:
        """All that is wrong, each with its invariant."""
        return [f"{name}: {each}" for name, found in self.wrong.items() for each in found]
