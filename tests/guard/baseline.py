"""What each scene may cost: the figures that were recorded, and how far from them is too far.

Owns `baselines.json`. Guarantees that a figure half as large again is too much, and that one so
much smaller that this would no longer hold has to be recorded anew. Refuses to know how counts come
about.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parent / "baselines.json"
RECORD: Final = "make guard ARGS=--record"

MORE_MAX: Final = 1.25
"""Times the baseline: far above what counts move by, below a slowdown by half."""

MORE_MAX_CARRIED: Final = 1.4
"""The same where a socket and a thread decide how many calls come at once."""

LESS_MIN: Final = 0.7
"""Times the baseline: below, even twice the work could pass."""

ELSEWHERE: Final = (1.45, 0.4)
"""The same two where this Python has no baselines of its own: its compiler is another one."""

SLACK: Final = 0.15
"""Of one of anything: a callback or a command less than every sixth time is no figure."""

SLACK_BYTES: Final = 24
"""Of a call: what Redis says of itself while it is asked is now longer and now shorter."""

Costs = Mapping[str, Mapping[str, float]]
"""Counts by name, of a piece of a scene's work, by the scene's name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its baseline, None where there is none."""

    scene: str
    count: str
    now: float
    was: float | None
    # Whether the baseline is of another Python.
    foreign: bool = False

    @property
    def ratio(self) -> float:
        """How many times the baseline it is."""
        return self.now / self.was if self.was else 1.0

    @property
    def state(self) -> str:
        """Return `ok`, `more`, `less` or `new`."""
        if self.was is None:
            return "new"
        slack = SLACK_BYTES if self.count.startswith("bytes ") else SLACK
        more_max, less_min = self._margins()
        if self.now > self.was * more_max + slack:
            return "more"
        if self.now < self.was * less_min - slack:
            return "less"
        return "ok"

    def _margins(self) -> tuple[float, float]:
        if self.foreign:
            return ELSEWHERE
        return MORE_MAX_CARRIED if " over " in self.scene else MORE_MAX, LESS_MIN

    def __str__(self) -> str:
        what = f"{self.scene}: {self.now:,.2f} {self.count}"
        match self.state:
            case "more":
                return (
                    f"{what}, {self.ratio:.2f} times the {self.was:,.2f} of the baseline. Where: "
                    f"make guard ARGS='--where \"{self.scene}\"'. Meant: {RECORD}"
                )
            case "less":
                return (
                    f"{what}, only {self.ratio:.2f} times the {self.was:,.2f} of the baseline, "
                    f"which would no longer notice a slowdown: {RECORD}"
                )
            case "new":
                return f"{what} has no baseline: {RECORD}"
            case _:
                return f"{what}, {self.ratio:.2f} times the baseline"


def python() -> str:
    """Return the Python whose bytecodes are counted: another minor version has others."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def recorded() -> Costs:
    """Return the baselines of this Python, of the nearest one where it has none."""
    document = _document()
    here = python()
    if here in document:
        return document[here]
    return document[min(document, key=lambda each: abs(_minor(each) - _minor(here)))]


def record(costs: Costs) -> None:
    """Make these the baselines of this Python."""
    document = _document()
    document[python()] = {
        scene: {count: round(each, 2) for count, each in figures.items()}
        for scene, figures in costs.items()
    }
    FILE.write_text(json.dumps(document, indent=2) + "\n")


def verdicts(costs: Costs, baselines: Costs) -> Iterator[Verdict]:
    """Hold each figure against its baseline."""
    foreign = python() not in _document()
    for scene, figures in costs.items():
        for count, now in figures.items():
            was = baselines.get(scene, {}).get(count)
            yield Verdict(scene, count, now, was, foreign)


def _document() -> dict[str, Costs]:
    found: dict[str, Costs] = json.loads(FILE.read_text())
    return found


def _minor(version: str) -> int:
    return int(version.partition(".")[2])
