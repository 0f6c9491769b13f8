"""Killed at every await: each step of each process is tried as its last (faults 1, 2 and 33).

A story is told once to count the steps of a process, then once for each of them, with the process
killed there and started again. Callers retry with the same id; the oracle judges each ending.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from tests.builders import REQUESTS
from tests.oracle.facts import Answer, Call
from tests.sim import calls
from tests.sim.calls import Ask
from tests.sim.parts import Sidecar, Worker
from tests.sim.small import Small, Story, told
from tests.sim.workload import TTL_US

RESTART_S: Final = 0.3
UNITS: Final = 3


async def ask(small: Small, asked: Ask) -> str:
    """Insist, then ask once more, as a caller does that did not hear; return what was granted."""
    first = await insist(small, asked)
    again = await insist(small, asked)
    assert again.replayed, again
    return first.decision.partition(" ")[0]


async def insist(small: Small, asked: Ask) -> Call:
    """Ask until there is an answer, with whatever has died started again."""
    call = await small.caller.once(asked, small.sidecar)
    while call.answer is Answer.OPEN:
        await asyncio.sleep(RESTART_S)
        small.start()
        call = await small.caller.once(asked, small.sidecar)
    assert call.answer is Answer.GRANTED, call
    return call


async def consumed(small: Small) -> None:
    """Charge."""
    await ask(small, calls.consume("team", "op", ((REQUESTS, UNITS),)))


async def recorded(small: Small) -> None:
    """Record."""
    await ask(small, calls.record("team", "op", REQUESTS, UNITS))


async def settled(small: Small) -> None:
    """Reserve, and commit more than that."""
    held = await ask(small, calls.reserve("team", "op", REQUESTS, UNITS - 1, TTL_US))
    await ask(small, calls.commit("team", "done", held, (REQUESTS, UNITS)))


async def released(small: Small) -> None:
    """Reserve, and give it back; charge anew."""
    held = await ask(small, calls.reserve("team", "op", REQUESTS, UNITS, TTL_US))
    await ask(small, calls.release("team", "off", held))
    await ask(small, calls.consume("team", "op-2", ((REQUESTS, UNITS),)))


async def refunded(small: Small) -> None:
    """Charge, and take a part back."""
    await ask(small, calls.consume("team", "op", ((REQUESTS, UNITS + 2),)))
    await ask(small, calls.refund("team", "back", "op:0", 2))


async def lost(small: Small) -> None:
    """Record; lose all of Redis before it is in the ledger; charge."""
    small.world.postgres.faults.down = True
    await ask(small, calls.record("team", "op", REQUESTS, UNITS - 1))
    small.world.state.flush()
    small.world.postgres.faults.down = False
    await ask(small, calls.consume("team", "op-2", ((REQUESTS, 1),)))


STORIES: Final = {
    "consume": consumed,
    "record": recorded,
    "commit": settled,
    "release": released,
    "refund": refunded,
    "loss of redis": lost,
}
HOSTS: Final[dict[str, Callable[[Small], Sidecar | Worker]]] = {
    "sidecar": lambda small: small.sidecar,
    "ingester": lambda small: small.ingester,
    "relay": lambda small: small.relay,
}
# An ingester and a relay see the same of each: one event is one event.
TOLD: Final = [
    *(("sidecar", name) for name in STORIES),
    ("ingester", "loss of redis"),
    ("ingester", "consume"),
    ("ingester", "refund"),
    ("relay", "consume"),
]


def killed(story: Story, host: Callable[[Small], Sidecar | Worker], step: int) -> Story:
    """Return the story with a process killed at a step of its, counted from the beginning."""

    async def told_so(small: Small) -> None:
        life = host(small).life
        assert life is not None
        life.process.kill_at = life.process.steps + step
        await story(small)
        await small.drained_or_dead(host(small))
        assert not life.process.alive, "it did not die where it was to"
        small.start()

    return told_so


def steps_of(story: Story, host: Callable[[Small], Sidecar | Worker]) -> int:
    """Return how many steps a process takes until all of a story is drained."""
    found: list[int] = []

    async def counted(small: Small) -> None:
        life = host(small).life
        assert life is not None
        before = life.process.steps
        await story(small)
        await small.drained()
        found.append(life.process.steps - before)

    told(counted)
    return found[0]


@pytest.mark.parametrize(("who", "name"), TOLD)
def test_a_death_at_any_step_changes_nothing(who: str, name: str) -> None:
    """Wherever a process dies, the ledger, the counter and the destinations end up the same."""
    story, host = STORIES[name], HOSTS[who]
    last = steps_of(story, host)
    assert last > 8, "the story has hardly a step to die at"
    for step in range(1, last + 1):
        history = told(killed(story, host, step))
        total = sum(row.amount for row in history.rest.ledger)
        assert total == UNITS, f"killed at step {step} of {last}: the ledger has {total}"
        used = {each.used for each in history.rest.counters if each.account == "team"}
        assert used == {UNITS, 0}, f"killed at step {step} of {last}: counters have {used}"
