"""One run from one seed: faults, healing, draining, and the oracle's judgement.

Owns the phases of a run. Guarantees: one integer, with the scope, gives the whole run again.
Refuses to know how each part is done.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Limit, OnExceed, OnOutage
from tallygate.domain.ids import TenantId
from tallygate.domain.window import Period
from tallygate.ports.epochs import Stage
from tests.builders import BYTES, CatalogInMemory, catalog, tenant, window
from tests.oracle.facts import Held, History, Rest
from tests.oracle.invariants import faults
from tests.sim import evidence
from tests.sim.calls import Caller
from tests.sim.destination import SECRET, SimDestination
from tests.sim.journaling import virtual_time
from tests.sim.loop import SimClock, VirtualLoop
from tests.sim.nemesis import Nemesis
from tests.sim.parts import SHARDS, Sidecar, Worker, World, begin_ingest, begin_relay
from tests.sim.plan import STEP_US_MAX, Scope, planned
from tests.sim.postgres import Database
from tests.sim.redis import RedisState
from tests.sim.wire import Server, at_once
from tests.sim.workload import TENANTS, Workload

# 2026-11-20 10:00:00 UTC: in the middle of a month.
START_US: Final = 1_795_168_800_000_000
STEPS_SHOWN: Final = 60
# Callers insist for longer than any fault lasts, and are answered soon after.
LAST_FAULT_S: Final = 3.0
LOOK_S: Final = 0.25
DESTINATIONS: Final = ("one", "two")


@dataclass(slots=True)
class Found:
    """What a run came to."""

    seed: int
    history: History
    faults: list[str]
    steps: deque[str]
    counts: dict[str, int] = field(default_factory=dict)

    def report(self) -> str:
        """Return what a person needs to see of a run that failed."""
        return "\n".join(
            [
                f"seed {self.seed}, again with: make sim FIRST={self.seed} SEEDS=1",
                *self.steps,
                *(f"WRONG {each}" for each in self.faults),
            ]
        )


class Simulation:
    """One run."""

    def __init__(self, seed: int, scope: Scope) -> None:
        self._seed = seed
        self._scope = scope
        self._chance = chance = random.Random(seed)
        self._loop = VirtualLoop()
        self._steps: deque[str] = deque(maxlen=STEPS_SHOWN)
        self._limits = drawn_limits(chance)
        self.world = world = made_world(self._loop, chance, self._limits)
        skew_us = chance.choice((0, 0, 3_600_000_000, -3_600_000_000, 250_000))
        self.sidecars = [
            Sidecar(world, f"s{number}", skew_us if number else 0)
            for number in range(scope.sidecars)
        ]
        ingesters = [Worker(world, f"i{number}", begin_ingest) for number in range(scope.ingesters)]
        relays = [Worker(world, f"r{number}", begin_relay) for number in range(scope.relays)]
        self._hosts: tuple[Sidecar | Worker, ...] = (*self.sidecars, *ingesters, *relays)
        self._nemesis = Nemesis(world, self.sidecars, ingesters, relays, self._trace)
        self._caller = Caller(world.clock, chance, self.sidecars)
        self._workload = Workload(self._caller, chance, self.sidecars, self._trace)

    def run(self) -> Found:
        """Run it through, and judge it."""
        with virtual_time(self.world.clock):
            history = self._loop.run(self._phases())
        wrong = faults(history)
        wrong += [f"unheard: {each}" for each in self._loop.unheard]
        return Found(self._seed, history, wrong, self._steps, dict(self.world.told.counts))

    async def _phases(self) -> History:
        scope = self._scope
        for host in self._hosts:
            host.start()
        plan = planned(self._chance, scope)
        while not shards_open(self.world):
            await asyncio.sleep(LOOK_S)
        pause_s = scope.length_s * scope.callers / scope.calls
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nemesis.run(plan))
            for _ in range(scope.callers):
                group.create_task(self._workload.run(scope.calls // scope.callers, pause_s))
            group.create_task(self._heal())
        # What was done after the first healing is undone as well.
        self._nemesis.heal()
        healed_s = self._loop.time()
        drained_s = await self._drained(healed_s)
        # What is held ends by Redis' clock, which may have been stepped back.
        self.world.state.clock.ahead_us += 2 * STEP_US_MAX
        return await self._history(drained_s)

    async def _heal(self) -> None:
        await asyncio.sleep(self._scope.length_s + LAST_FAULT_S)
        self._trace("healed")
        self._nemesis.heal()

    async def _drained(self, healed_s: float) -> float | None:
        while self._loop.time() - healed_s < self._scope.drain_max_s:
            if not lags(self.world, self.sidecars):
                return self._loop.time() - healed_s
            await asyncio.sleep(LOOK_S)
        return None

    def _lossy(self) -> frozenset[Held]:
        """Return what the faults of this run may have lost, as documented."""
        nemesis = self._nemesis
        found: set[Held] = set()
        if nemesis.powers_lost or (nemesis.disks_failed and nemesis.sidecars_killed):
            found.add(Held.BUFFERED)
        if nemesis.losses and (nemesis.disks_failed or nemesis.sidecars_killed):
            # What Redis alone has is lost with it where the journal could not be written any more.
            found |= {Held.BUFFERED, Held.REDIS}
        return frozenset(found)

    def _trace(self, line: str) -> None:
        self._steps.append(f"{self._loop.time():9.4f} {line}")

    async def _history(self, drained_s: float | None) -> History:
        world, record = self.world, self._caller.record
        lagged = tuple(each for each in self._nemesis.losses if each[0] < each[1])
        at = evidence.Moment(world.state.clock.now_us(), lagged)
        reading = evidence.counters(self.sidecars[0], self._limits, record, at)
        lossy = self._lossy()
        rest = Rest(
            ledger=tuple(evidence.rows(world)),
            counters=tuple([each async for each in reading]),
            lanes=tuple(evidence.lanes(world, lost=Held.REDIS in lossy)),
            wanted=tuple(evidence.wanted(world)),
            taken=tuple(evidence.taken(world)),
            drained_s=drained_s,
            drain_max_s=self._scope.drain_max_s,
        )
        return History(
            calls=tuple(record),
            rest=rest,
            tenants=TENANTS,
            secrets=(SECRET,),
            logs=(*world.told.lines, *(row.reason for row in world.database.outbox.rows)),
            forgotten_us=tuple(world.state.lost_us),
            lossy=lossy,
        )


def simulate(seed: int, scope: Scope | None = None) -> Found:
    """Run one seed."""
    return Simulation(seed, scope or Scope()).run()


def lags(world: World, sidecars: Sequence[Sidecar]) -> bool:
    """Say whether anything waits for its next step, anywhere."""
    shards = world.state.streams.shards
    behind = any(shard.read < len(shard.entries) or shard.pending for shard in shards)
    waiting = any(sidecar.flows is None or len(sidecar.flows.backlog) for sidecar in sidecars)
    unconfirmed = any(
        sidecar.flows is not None and sidecar.flows.journal.size().events for sidecar in sidecars
    )
    unsent = any(row.state == "pending" for row in world.database.outbox.rows)
    due = at_once(world.database.corrections.depth())
    shut = not shards_open(world)
    return behind or waiting or unconfirmed or unsent or due > 0 or shut


def shards_open(world: World) -> bool:
    """Say whether every shard decides."""
    stages = world.state.stages
    return all(stages.state(shard).stage is Stage.OPEN for shard in range(SHARDS))


def drawn_limits(chance: random.Random) -> tuple[Limit, ...]:
    """Return a strict limit, one with a budget for outages, and one that only counts."""
    return (
        window("strict", chance.randrange(10, 80)),
        window("daily", 5, period=Period.DAY, on_exceed=OnExceed.ALLOW),
        window(
            "budget",
            chance.randrange(5, 40),
            meter=BYTES,
            on_outage=OnOutage.LOCAL_BUDGET,
            local_budget=chance.randrange(1, 6),
        ),
    )


def made_world(
    loop: VirtualLoop, chance: random.Random, limits: tuple[Limit, ...], start_us: int = START_US
) -> World:
    """Return servers without faults, and nothing in them; time begins at `start_us`."""
    clock = SimClock(loop, start_us)
    delays_s = (0.0002, chance.choice((0.001, 0.02)))
    return World(
        loop=loop,
        chance=chance,
        clock=clock,
        redis=Server(loop, chance, delays_s),
        state=RedisState(clock.like(0), SHARDS, opens_new=False),
        postgres=Server(loop, chance, delays_s),
        database=Database(clock, DESTINATIONS),
        destinations=tuple(
            SimDestination(name, Server(loop, chance, delays_s), chance) for name in DESTINATIONS
        ),
        catalog=CatalogInMemory(
            catalog(*limits),
            {
                TenantId(name): tenant(name, parent=TenantId(parent) if parent else None)
                for name, parent in TENANTS.items()
            },
        ),
    )
