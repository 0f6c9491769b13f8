"""What came of the tests that show promises, and of the larger runs: kept beside them, as JSON.

Guarantees that one kind of result is replaced without touching the others. Refuses to judge.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.json")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a test: its cases, how many of them passed, and the seconds they took."""

    cases: int
    passed: int
    seconds: float

    @property
    def text(self) -> str:
        """As the page says it."""
        if self.passed == self.cases:
            return "passed" if self.cases == 1 else f"passed, {self.cases} cases"
        return f"**{self.cases - self.passed} of {self.cases} failed**"


@dataclass(frozen=True, slots=True)
class Larger:
    """A larger run: when, and what it said."""

    date: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """The last run of all tests that show a promise, and the last larger ones by their command."""

    date: str = ""
    seed: int = 0
    results: Mapping[str, Result] = field(default_factory=dict)
    larger: Mapping[str, Larger] = field(default_factory=dict)

    def of(self, test: str) -> str:
        """Return what a test came to, as the page says it."""
        result = self.results.get(test)
        return "not run yet" if result is None else result.text


def today() -> str:
    """Return the date, in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def read(path: Path = RESULTS) -> Run:
    """Return what is kept."""
    if not path.exists():
        return Run()
    kept: dict[str, Any] = json.loads(path.read_text())
    return Run(
        kept["date"],
        kept["seed"],
        {name: Result(**each) for name, each in kept["results"].items()},
        {name: Larger(**each) for name, each in kept["larger"].items()},
    )


def write(run: Run, path: Path = RESULTS) -> None:
    """Keep a run."""
    path.write_text(json.dumps(asdict(run), indent=1, sort_keys=True) + "\n")


def keep_larger(command: str, text: str, path: Path = RESULTS) -> None:
    """Keep what a larger run said."""
    run = read(path)
    larger = {**run.larger, command: Larger(today(), text)}
    write(Run(run.date, run.seed, run.results, larger), path)
