"""`make soak`: mixed load on a whole installation while the nemesis strikes, then the oracle.

Owns the run and its outcome. Guarantees that a run is named by its seed, which is printed first.
Refuses to excuse anything that the faults of the run do not.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.chaos.book import Book
from tests.chaos.callers import HOLD_MS, App, Line
from tests.chaos.gauges import Gauges, grown
from tests.chaos.installation import (
    BUDGET_UNITS,
    LOCAL_BUDGET,
    STRICT_UNITS,
    TENANTS_PER_KIND,
    Installation,
    installation,
)
from tests.chaos.nemesis import EVERYTHING, LOSSLESS, Nemesis
from tests.chaos.outcome import Outcome, Plan
from tests.chaos.report import page
from tests.chaos.rest import Standing, drained, rest, wrong_buckets
from tests.oracle.facts import Answer, History, Rest
from tests.oracle.invariants import verdicts

APPS: Final = 12
DRAIN_S: Final = 60.0
ANSWER_S: Final = 60.0
TURN_S: Final = 8.0
"""How long one tenant of a small limit is asked for, until the next one's turn."""

STEADY: Final = ("open", "record", "batch", "hold", "refund")


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

    def standings(self, outages: int, unheard: Mapping[str, int]) -> list[Standing]:
        """Return how each tenant's limit is to be judged after so many outages.

        `unheard` are units by tenant that a replica had not heard of when it took over: until that
        is found out, limits may be passed by them.
        """
        steady = [
            Standing(f"{kind}-{number}", None)
            for kind in (*STEADY, "allow")
            for number in range(self._plan.tenants)
        ]
        passed = LOCAL_BUDGET * self._plan.shape.sidecars * outages
        turns = range(self.turn + 1)
        return [
            *steady,
            *(_standing(f"strict-{turn}", STRICT_UNITS, unheard) for turn in turns),
            *(_standing(f"budget-{turn}", BUDGET_UNITS, unheard, passed) for turn in turns),
        ]


def _standing(tenant: str, limit: int, unheard: Mapping[str, int], passed: int = 0) -> Standing:
    return Standing(tenant, limit, passed + unheard.get(tenant, 0))


def _unheard(book: Book, nemesis: Nemesis) -> Counter[str]:
    found: Counter[str] = Counter()
    for call in book.calls:
        if call.answer is Answer.GRANTED and any(
            began_us <= call.ended_us and call.sent_us <= ended_us
            for began_us, ended_us in nemesis.behind_us
        ):
            found[call.tenant] += sum(units for _, units in call.units)
    return found


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
        standings = tenants.standings(len(nemesis.strikes), _unheard(book, nemesis))
        found = await rest(place, lines, standings, drained_s)
        wrong = verdicts(_history(book, found, nemesis, place))
        buckets = await wrong_buckets(place)
        wrong["I1"] += [
            f"{count} wrong buckets of {each}" for each, count in buckets.items() if count
        ]
        wrong["answers"] = [f"{count} times {text}" for text, count in book.surprises.items()]
        slopes = gauges.slopes(0.8 * plan.seconds)
        wrong["memory"] = list(grown(slopes))
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
            len(found.taken), drained_s, slopes, place.fleet.unexpected, exits,
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


def main() -> int:
    """Run it as the command line says; exit 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--per-s", type=float, default=150.0)
    parser.add_argument("--lossless", action="store_true", help="spare Redis' data")
    parser.add_argument("--report", type=Path, default=None)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    weights = LOSSLESS if given.lossless else EVERYTHING
    plan = Plan(seed, given.seconds, given.per_s, weights=weights)
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="tallygate-soak-") as folder:
        outcome = asyncio.run(soak(Path(folder), plan))
    text = page(outcome)
    if given.report is not None:
        given.report.write_text(text)
    sys.stdout.write(text)
    sys.stdout.writelines(f"WRONG {each[:400]}\n" for each in outcome.faults[:100])
    sys.stdout.write(f"{len(outcome.faults)} wrong\n")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main())
