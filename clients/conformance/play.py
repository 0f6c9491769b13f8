"""All cases with each client, against one installation.

Owns the order, how many go on at once, and the second look at the ledger once all is over.
Guarantees that every case of every client has an outcome. Refuses to know what cases are about.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from clients.conformance.cases import Case
from clients.conformance.drivers import DriverEnded, Language
from clients.conformance.story import Lane, Otherwise, ledger_faults, story
from clients.conformance.world import World


@dataclass(slots=True)
class Outcome:
    """What became of a case with a client: `fault` is empty where it passed."""

    language: str
    case: str
    seconds: float
    fault: str = ""
    tenant: str = ""
    ledger: Mapping[str, object] | None = None


async def play_all(
    world: World, languages: Sequence[Language], cases: Sequence[Case], lanes: int = 1
) -> list[Outcome]:
    """Play every case with every client; return what became of each."""
    run = secrets.token_hex(3)
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[list[Outcome]]] = []
        for number, language in enumerate(languages):
            # One case left by another language, where there is one.
            other = languages[(number + 1) % len(languages)]
            waiting = list(reversed(cases))
            tasks += [
                group.create_task(_lane(world, language, other, waiting, run))
                for _ in range(min(lanes, len(cases)))
            ]
    outcomes = [outcome for task in tasks for outcome in task.result()]
    await _look_again(world, outcomes)
    return outcomes


async def _lane(
    world: World, language: Language, other: Language, waiting: list[Case], run: str
) -> list[Outcome]:
    """Play the cases that nobody else has taken, one after the other, with one driver."""
    outcomes = []
    async with AsyncExitStack() as stack:
        lane = Lane(language, stack)
        while waiting:
            outcomes.append(await _play(world, lane, other, waiting.pop(), run))
    return outcomes


async def _play(world: World, lane: Lane, other: Language, case: Case, run: str) -> Outcome:
    began = time.monotonic()
    outcome = Outcome(lane.language.name, case.name, 0.0)
    try:
        async with story(case, world, lane, other, run) as told:
            outcome.tenant = told.tenant
            await told.play()
            outcome.ledger = told.expected_ledger
    except (Otherwise, DriverEnded) as error:
        outcome.fault = str(error)
    except Exception as error:  # noqa: BLE001 - others keep their outcome
        outcome.fault = f"{type(error).__name__}: {error}"
    outcome.seconds = time.monotonic() - began
    return outcome


async def _look_again(world: World, outcomes: Sequence[Outcome]) -> None:
    """Hold each case's ledger to it once more: what came twice may have come late."""
    for outcome in outcomes:
        if outcome.ledger is not None and not outcome.fault:
            faults = ledger_faults(outcome.ledger, await world.events(outcome.tenant))
            if faults:
                outcome.fault = f"the ledger, when all was over: {faults}"
