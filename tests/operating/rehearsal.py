"""What rehearsals came to, and `docs/operating/rehearsal.md`, which is made of it.

Owns the figures, where they are kept, and their form. Guarantees that each disaster's row comes
from its last run that was kept, with its date. Refuses to know how a disaster is struck.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.docs.pages import ROOT
from tests.operating.disasters import DISASTERS, Disaster

PAGE: Final = ROOT / "docs" / "operating" / "rehearsal.md"
KEPT: Final = Path(__file__).with_name("rehearsed.json")
EQUAL: Final = "equal"


@dataclass(slots=True)
class Rehearsed:
    """What a disaster came to. Seconds are from the loss on, but for `lost_s`, which are before.

    `lost` and `lost_strict` are the events that were lost, and the units of those among them that
    a hard limit had granted; by no more may such limits be `passed`, in units.
    """

    disaster: Disaster
    accepted: int = 0
    lost: int = 0
    lost_s: float = 0.0
    lost_strict: int = 0
    left: int = 0
    odd: int = 0
    passed: int = 0
    waited_s: float = 0.0
    ledger_s: float = 0.0
    verify: str = ""
    steps: list[tuple[str, float]] = field(default_factory=list)
    date: str = ""
    run: str = ""

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        found = {
            f"{self.lost} events are lost": self.lost and self.disaster.tell is None,
            f"{self.left} events are missing in the end": self.left,
            f"{self.odd} events are of nobody, or other than they were accepted": self.odd,
            f"limits are passed by {self.passed} units": self.passed > self.lost_strict,
            f"verify says: {self.verify}": self.verify != EQUAL,
        }
        return [f"{self.disaster.name}: {text}" for text, so in found.items() if so]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to rehearse, at how many calls a second, and whether what is right is kept."""

    seed: int
    per_s: float
    disasters: tuple[Disaster, ...]
    kept: bool = False


def line(result: Rehearsed) -> str:
    """Return a disaster's outcome as one line."""
    return (
        f"{result.disaster.name:10} accepted {result.accepted:,}; lost {result.lost:,}"
        f" of {result.lost_s:.1f} s, {result.left} in the end; callers waited"
        f" {result.waited_s:.1f} s; ledger after {result.ledger_s:.1f} s; {result.verify}"
    )


def read(path: Path = KEPT) -> list[Rehearsed]:
    """Return what is kept, in the order of the disasters."""
    kept: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results = [Rehearsed(each, **kept[each.name]) for each in DISASTERS if each.name in kept]
    for each in results:
        each.steps = [(name, seconds) for name, seconds in each.steps]
    return results


def keep(plan: Plan, results: Iterable[Rehearsed], path: Path = KEPT) -> None:
    """Keep what disasters came to, each in the place of its last run."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for each in results:
        kept[each.disaster.name] = {
            "accepted": each.accepted, "lost": each.lost, "lost_s": round(each.lost_s, 2),
            "lost_strict": each.lost_strict,
            "left": each.left, "odd": each.odd, "passed": each.passed,
            "waited_s": round(each.waited_s, 2), "ledger_s": round(each.ledger_s, 2),
            "verify": each.verify, "steps": [(name, round(s, 2)) for name, s in each.steps],
            "date": f"{datetime.now(UTC):%Y-%m-%d}", "run": f"{plan.seed}, {plan.per_s:.0f}/s",
        }  # fmt: skip
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


HEAD: Final = """\
# The last rehearsal

Each disaster of [disaster recovery](disaster-recovery.md) on real processes (two sidecars, two
ingesters, a relay, a control, Redis, Postgres, its archive), under load from callers who go on
calling while all is down; cured by the steps of that page, then held against the callers' own
books. Made by `make rehearse ARGS=--keep`; do not edit.

## What was lost, and how long it took

"""

NOTE: Final = """\

*Lost* are events that a caller was told were accepted, and that the ledger lacked once all else had
been drained. *Waited* is from a call's first try to its answer, over all retries. Times are from
the loss on, and are those of a small ledger on two cores that other work shared: the copy of the
base backup and the log's replay grow with the ledger.

## Steps

"""


def page(results: Sequence[Rehearsed]) -> str:
    """Return the page."""
    columns = (
        "gone", "may be lost", "accepted by then", "lost", "handed in again",
        "a caller waited, at most", "ledger goes on after", "`tallygate verify`", "run, seed",
    )  # fmt: skip
    steps = [
        (each.disaster.gone, name, f"{seconds:.1f}")
        for each in results
        for name, seconds in each.steps
    ]
    found = _table(columns, map(_row, results)) + NOTE + _table(("gone", "step", "s"), steps)
    return HEAD + found


def _row(result: Rehearsed) -> tuple[str, ...]:
    lost = f"{result.lost:,}"
    if result.lost:
        lost += f", of the last {max(result.lost_s, 0.0):.1f} s"
    told = ""
    if result.disaster.tell is not None:
        told = f"all but {result.left}" if result.left else "all"
    return (
        result.disaster.gone,
        result.disaster.lost,
        f"{result.accepted:,}",
        lost,
        told,
        f"{result.waited_s:.1f} s",
        f"{result.ledger_s:.1f} s",
        result.verify,
        f"{result.date}, {result.run}",
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
