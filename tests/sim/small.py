"""A small world for one story: one sidecar, one ingester, one relay, no chance but a fixed seed.

Owns how a story is told to its end: drained, read, judged. Refuses to know the story.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tallygate.domain.catalog import Limit
from tests.oracle.facts import History, Rest
from tests.oracle.invariants import faults
from tests.sim import evidence
from tests.sim.calls import Caller
from tests.sim.destination import SECRET
from tests.sim.journaling import virtual_time
from tests.sim.loop import VirtualLoop
from tests.sim.parts import Sidecar, Worker, World, begin_ingest, begin_relay
from tests.sim.plan import STEP_US_MAX
from tests.sim.run import LOOK_S, START_US, drawn_limits, lags, made_world, shards_open
from tests.sim.workload import TENANTS

DRAIN_MAX_S: Final = 60.0


@dataclass(slots=True)
class Small:
    """The world of a story, and who asks in it."""

    world: World
    sidecar: Sidecar
    ingester: Worker
    relay: Worker
    caller: Caller
    limits: tuple[Limit, ...]

    def start(self) -> None:
        """Start what does not run."""
        for host in (self.sidecar, self.ingester, self.relay):
            if not host.alive:
                host.start()

    async def drained(self) -> float | None:
        """Wait until nothing lags; return how long it took, None where it never does."""
        began_s = self.world.loop.time()
        while self.world.loop.time() - began_s < DRAIN_MAX_S:
            if not lags(self.world, [self.sidecar]):
                return self.world.loop.time() - began_s
            await asyncio.sleep(LOOK_S)
        return None

    async def drained_or_dead(self, host: Sidecar | Worker) -> None:
        """Wait until nothing lags, or the process has died."""
        began_s = self.world.loop.time()
        while host.alive and lags(self.world, [self.sidecar]):
            assert self.world.loop.time() - began_s < DRAIN_MAX_S
            await asyncio.sleep(LOOK_S)

    async def history(self) -> History:
        """Drain, let what is held expire, and return all that the oracle asks for."""
        world, record = self.world, self.caller.record
        self.start()
        await self.sidecar.ready()
        drained_s = await self.drained()
        world.state.clock.ahead_us += STEP_US_MAX
        reading = evidence.counters(
            self.sidecar, self.limits, record, evidence.Moment(world.state.clock.now_us())
        )
        rest = Rest(
            ledger=tuple(evidence.rows(world)),
            counters=tuple([each async for each in reading]),
            lanes=tuple(evidence.lanes(world)),
            wanted=tuple(evidence.wanted(world)),
            taken=tuple(evidence.taken(world)),
            drained_s=drained_s,
            drain_max_s=DRAIN_MAX_S,
        )
        return History(tuple(record), rest, TENANTS, (SECRET,), tuple(world.told.lines))


Story = Callable[[Small], Awaitable[None]]


def told(
    story: Story, limits: tuple[Limit, ...] | None = None, start_us: int = START_US
) -> History:
    """Tell a story in a world of its own; return what came of it, after the oracle's judgement."""
    loop, chance = VirtualLoop(), random.Random(1)
    limits = drawn_limits(chance) if limits is None else limits
    world = made_world(loop, chance, limits, start_us)
    sidecar = Sidecar(world, "s0")
    small = Small(
        world,
        sidecar,
        Worker(world, "i0", begin_ingest),
        Worker(world, "r0", begin_relay),
        Caller(world.clock, chance, [sidecar]),
        limits,
    )

    async def whole() -> History:
        small.start()
        await small.sidecar.ready()
        while not shards_open(world):
            await asyncio.sleep(LOOK_S)
        await story(small)
        return await small.history()

    with virtual_time(world.clock):
        history = loop.run(whole())
    wrong = [*faults(history), *loop.unheard]
    assert not wrong, "\n".join(wrong)
    return history
