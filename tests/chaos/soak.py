"""`make soak`: mixed load on a whole installation while the nemesis strikes, then the oracle.

Owns the run and its outcome. Guarantees that a run is named by its seed, which is printed first.
Refuses to excuse anything that the faults of the run do not.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.book import Book
from tests.chaos.callers import HOLD_MS, App, Line
from tests.chaos.gauges import Gauges, Slope
from tests.chaos.installation import (
    BUDGET_UNITS,
    LOCAL_BUDGET,
    STRICT_UNITS,
    TENANTS_PER_KIND,
    Installation,
    Shape,
    installation,
)
from tests.chaos.nemesis import EVERYTHING, Nemesis
from tests.chaos.rest import Standing, drained, rest, wrong_buckets
from tests.oracle.facts import History, Rest
from tests.oracle.invariants import verdicts

APPS: Final = 12
DRAIN_S: Final = 60.0
ANSWER_S: Final = 60.0
TURN_S: Final = 8.0
"""How long one tenant of a small limit is asked for, until the next one's turn."""

STEADY: Final = ("open", "record", "batch", "hold", "refund")


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


class Tenants:
    """Whose calls are made: few of them steadily, those of small limits in turn."""

    def __init__(self, plan: Plan, chance: random.Random) -> None:
        self._plan, self._chance = plan, chance
        self._began_s = time.monotonic()

    @property
    def turn(self) -> int:
        """The number of the tenant whose turn it is."""
        return min(int((time.monotonic() - self._began_s) / TURN_S), TENANTS_PER_KIND - 1)

    def pick(self, kind: str) -> str:
        """Return a tenant for a call of that kind."""
        if kind in {"strict", "budget"}:
            return f"{kind}-{self.turn}"
        return f"{kind}-{self._chance.randrange(self._plan.tenants)}"

    def standings(self, outages: int) -> list[Standing]:
        """Return how each tenant's limit is to be judged after so many outages."""
        steady = [
            Standing(f"{kind}-{number}", None)
            for kind in (*STEADY, "allow")
            for number in range(self._plan.tenants)
        ]
        passed = LOCAL_BUDGET * self._plan.shape.sidecars * outages
        turns = range(self.turn + 1)
        return [
            *steady,
            *(Standing(f"strict-{turn}", STRICT_UNITS) for turn in turns),
            *(Standing(f"budget-{turn}", BUDGET_UNITS, passed) for turn in turns),
        ]


@asynccontextmanager
async def calling(
    place: Installation, plan: Plan, book: Book, tenants: Tenants
) -> AsyncIterator[list[Line]]:
    """Have apps call until the block ends, and then each get its last answer."""
    lines = [await place.line(name) for name in sorted(place.sockets)]
    done, given_up = asyncio.Event(), asyncio.Event()
    apps = [
        App(
            f"{plan.seed}-{number}", lines[number % len(lines)], book,
            random.Random(f"{plan.seed} {number}"), tenants.pick, given_up,
        )
        for number in range(APPS)
    ]  # fmt: skip
    running = [asyncio.create_task(app.run(done, plan.per_s / APPS)) for app in apps]
    try:
        yield lines
        done.set()
        _, late = await asyncio.wait(running, timeout=ANSWER_S)
        given_up.set()
        await asyncio.gather(*running)
        if late:
            book.surprises[f"{len(late)} apps without an answer {ANSWER_S:g} s after healing"] += 1
    finally:
        for each in running:
            each.cancel()


async def soak(folder: Path, plan: Plan) -> Outcome:
    """Run a plan to its end and judge it."""
    chance = random.Random(plan.seed)
    async with installation(folder, plan.shape, seed=plan.seed) as place:
        book, tenants = Book(place.secrets), Tenants(plan, chance)
        nemesis = Nemesis(
            place.ground, place.fleet, place.receiver, plan.seed, plan.weights, place.disks
        )
        gauges, over = Gauges(place.fleet), asyncio.Event()
        watching = asyncio.create_task(gauges.run(over))
        async with calling(place, plan, book, tenants) as lines:
            ended = asyncio.Event()
            asyncio.get_running_loop().call_later(plan.seconds, ended.set)
            await nemesis.run(ended)
            await nemesis.heal()
        # What was reserved and forgotten comes back by itself.
        await asyncio.sleep(HOLD_MS / 1000)
        drained_s = await drained(place, DRAIN_S)
        over.set()
        await watching
        found = await rest(place, lines, tenants.standings(len(nemesis.strikes)), drained_s)
        wrong = verdicts(_history(book, found, nemesis, place))
        buckets = await wrong_buckets(place)
        wrong["I1"] += [
            f"{count} wrong buckets of {each}" for each, count in buckets.items() if count
        ]
        wrong["answers"] = [f"{count} times {text}" for text, count in book.surprises.items()]
        exits = await place.fleet.stop()
        wrong["exits"] = [
            *(f"{name} ended by itself: {codes}" for name, codes in place.fleet.unexpected.items()),
            *(f"{name} ended with {code}" for name, (code, _) in exits.items() if code),
        ]
        tries: dict[str, int] = {}
        for call in book.calls:
            name = f"{call.kind} {call.answer}{' degraded' if call.degraded else ''}"
            tries[name] = tries.get(name, 0) + 1
        return Outcome(
            plan, wrong, tries, book.failures, nemesis.counts, len(found.ledger),
            len(found.taken), drained_s, gauges.slopes(), place.fleet.unexpected, exits,
        )  # fmt: skip


def _history(book: Book, found: Rest, nemesis: Nemesis, place: Installation) -> History:
    logs = tuple(
        line
        for worker in place.fleet.workers.values()
        for line in worker.log.read_text(errors="replace").splitlines()
    )
    return History(
        tuple(book.calls), found, secrets=place.secrets, logs=logs,
        forgotten_us=tuple(nemesis.forgotten_us),
    )  # fmt: skip
