"""What a rehearsal came to, and `docs/operating/rehearsal.md`, which is made of it.

Owns the figures and their form. Guarantees that everything on the page comes from one run. Refuses
to know how a disaster is struck.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tests.docs.pages import ROOT
from tests.operating.disasters import Disaster

PAGE: Final = ROOT / "docs" / "operating" / "rehearsal.md"
EQUAL: Final = "equal"


@dataclass(slots=True)
class Rehearsed:
    """What a disaster came to. Seconds are from the loss on, but for `lost_s`, which are before."""

    disaster: Disaster
    accepted: int = 0
    lost: int = 0
    lost_s: float = 0.0
    left: int = 0
    odd: int = 0
    passed: int = 0
    waited_s: float = 0.0
    ledger_s: float = 0.0
    verify: str = ""
    steps: list[tuple[str, float]] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        found = {
            f"{self.lost} events are lost": self.lost and self.disaster.tell is None,
            f"{self.left} events are missing in the end": self.left,
            f"{self.odd} events are of nobody, or other than they were accepted": self.odd,
            f"limits are passed by {self.passed} units": self.passed > self.lost,
            f"verify says: {self.verify}": self.verify != EQUAL,
        }
        return [f"{self.disaster.name}: {text}" for text, so in found.items() if so]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to rehearse, and at how many calls a second."""

    seed: int
    per_s: float
    disasters: tuple[Disaster, ...]


def line(result: Rehearsed) -> str:
    """Return a disaster's outcome as one line."""
    return (
        f"{result.disaster.name:10} accepted {result.accepted:,}; lost {result.lost:,}"
        f" of {result.lost_s:.1f} s, {result.left} in the end; callers waited"
        f" {result.waited_s:.1f} s; ledger after {result.ledger_s:.1f} s; {result.verify}"
    )


HEAD: Final = """\
# The last rehearsal

Each disaster of [disaster recovery](disaster-recovery.md) on real processes, under load, cured by
the steps of that page, then held against the callers' own books. Made by `make rehearse`; do not
edit.

"""


NOTE: Final = """\
*Lost* are events that a caller was told were accepted, and that the ledger lacked once all else
had been drained. *Waited* is from a call's first try to its answer, over all retries. Times are
from the loss on, and are those of a small ledger on a busy machine: the copy of the base backup and
the log's replay grow with the ledger."""


def page(plan: Plan, results: Sequence[Rehearsed]) -> str:
    """Return the page."""
    facts = {
        "run": f"{datetime.now(UTC):%Y-%m-%d}, seed {plan.seed}",
        "again": f"`make rehearse ARGS='--seed {plan.seed} --per-s {plan.per_s:.0f}'`",
        "machine": f"{os.cpu_count()} cores, shared by all processes, the callers and other work",
        "processes": "2 serve, 2 ingest, 1 relay, 1 control; Redis, Postgres, its archive",
        "load": f"{plan.per_s:.0f} calls a second, in lists of ten, also while all is down",
        "events": f"{results[-1].accepted:,}",
    }
    lines = [
        HEAD.rstrip("\n"),
        "",
        *_table(("what", "figure"), facts.items()),
        "",
        "## What was lost, and how long it took",
        "",
        *_table(
            ("gone", "may be lost", "lost", "handed in again", "a caller waited, at most",
             "ledger goes on after", "`tallygate verify`"),
            [_row(each) for each in results],
        ),
        "",
        NOTE,
        "",
        "## Steps",
        "",
        *_table(
            ("gone", "step", "s"),
            [
                (each.disaster.gone, name, f"{seconds:.1f}")
                for each in results
                for name, seconds in each.steps
            ],
        ),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(result: Rehearsed) -> tuple[str, ...]:
    lost = f"{result.lost:,}"
    if result.lost:
        lost += f", of the last {max(result.lost_s, 0.0):.1f} s"
    told = (
        "" if result.disaster.tell is None else f"all but {result.left}" if result.left else "all"
    )
    return (
        result.disaster.gone,
        result.disaster.lost,
        lost,
        told,
        f"{result.waited_s:.1f} s",
        f"{result.ledger_s:.1f} s",
        result.verify,
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
