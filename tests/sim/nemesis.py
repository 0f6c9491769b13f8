"""Does the faults of a plan, and undoes them.

Owns how each fault is done. Guarantees: after `heal` nothing is wrong and every process runs.
Refuses to know why.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tests.sim.loop import Process
from tests.sim.parts import Life, Sidecar, Worker, World
from tests.sim.plan import STEP_US_MAX, Fault, Planned

# How soon what was killed is started again, as a supervisor does.
RESTART_S: Final = 0.3

Host = Sidecar | Worker


class Trace(Protocol):
    """Where steps are written down."""

    def __call__(self, line: str) -> None:
        """Write a line, with the time."""


class Nemesis:
    """Befalls a world."""

    def __init__(
        self,
        world: World,
        sidecars: Sequence[Sidecar],
        ingesters: Sequence[Worker],
        relays: Sequence[Worker],
        trace: Trace,
    ) -> None:
        self._world = world
        self._hosts: dict[str, Sequence[Host]] = {
            "sidecar": sidecars,
            "ingester": ingesters,
            "relay": relays,
        }
        self._trace = trace
        self._sidecars = sidecars
        self.sidecars_killed = 0
        self.powers_lost = 0
        self._ahead_max_us = 0
        # From when on Redis' data are lost, and when that happened.
        self.losses: list[tuple[int, int]] = []
        self.disks_failed = 0

    async def run(self, plan: Sequence[Planned]) -> None:
        """Do what is planned, at its time, and undo it at its time."""
        async with asyncio.TaskGroup() as group:
            for each in plan:
                group.create_task(self._befall(each))

    def heal(self) -> None:
        """End every fault, and start what is dead."""
        world = self._world
        world.redis.faults.heal()
        world.redis.release()
        world.postgres.faults.heal()
        world.postgres.release()
        # By a clock that was set back, entries left pending are young until it has caught up.
        world.state.clock.ahead_us = self._ahead_max_us
        for destination in world.destinations:
            destination.heal()
        for sidecar in self._sidecars:
            sidecar.disk.heal()
        for hosts in self._hosts.values():
            for host in hosts:
                life = host.life
                if life is not None and life.process.alive:
                    life.process.kill_at = None
                    life.process.go_on()
                else:
                    host.start()

    async def _befall(self, planned: Planned) -> None:
        await asyncio.sleep(planned.at_s)
        self._trace(f"fault: {planned}")
        kind, _, what = planned.fault.value.partition(" ")
        if kind in self._hosts:
            hosts = self._hosts[kind]
            await self._befall_host(hosts[planned.target % len(hosts)], what, planned)
        elif planned.fault is Fault.CLOCK_STEPPED:
            clock = self._world.state.clock
            clock.ahead_us += round((planned.badness - 0.3) * 2 * STEP_US_MAX)
            self._ahead_max_us = max(self._ahead_max_us, clock.ahead_us)
        elif planned.fault is Fault.GROUP_LOST:
            self._world.state.streams.lose_group()
        elif planned.fault is Fault.REDIS_FLUSHED:
            self._world.state.flush()
            self.losses.append((self._world.clock.now_us(),) * 2)
        elif planned.fault is Fault.REDIS_RESTORED:
            await self._lag_and_promote(planned)
        else:
            undo = self._begin(planned)
            await asyncio.sleep(planned.for_s)
            undo()
            self._trace(f"over: {planned.fault}")

    def _begin(self, planned: Planned) -> Callable[[], None]:
        """Begin a fault of a server; return what ends it."""
        redis, postgres = self._world.redis, self._world.postgres
        match planned.fault:
            case Fault.REDIS_DOWN:
                redis.faults.down = True
                return lambda: setattr(redis.faults, "down", False)
            case Fault.REDIS_STALLED:
                redis.faults.stalled = True
                return redis.release
            case Fault.REDIS_LOSSY:
                redis.faults.lost_requests = redis.faults.lost_replies = planned.badness / 2
                return redis.faults.heal_losses
            case Fault.REDIS_CUT:
                every = [host.name for hosts in self._hosts.values() for host in hosts]
                who = every[planned.target % len(every)]
                redis.faults.cut_off.add(who)
                return lambda: redis.faults.cut_off.discard(who)
            case Fault.POSTGRES_DOWN:
                postgres.faults.down = True
                return lambda: setattr(postgres.faults, "down", False)
            case Fault.POSTGRES_LOSSY:
                postgres.faults.lost_requests = postgres.faults.lost_replies = planned.badness / 2
                return postgres.faults.heal_losses
            case Fault.DISK_FULL | Fault.DISK_FAILING:
                sidecars = self._sidecars
                disk = sidecars[planned.target % len(sidecars)].disk
                self.disks_failed += 1
                setattr(disk, "full" if planned.fault is Fault.DISK_FULL else "failing", True)
                return disk.heal
            case _:
                assert planned.fault is Fault.DESTINATION_FAILING
                found = self._world.destinations
                destination = found[planned.target % len(found)]
                destination.refused = destination.failed_after = planned.badness / 2
                destination.hung = planned.badness / 4
                return destination.heal

    async def _lag_and_promote(self, planned: Planned) -> None:
        state, clock = self._world.state, self._world.clock
        copied_us, lagging = clock.now_us(), state.copy()
        await asyncio.sleep(planned.for_s)
        state.become(lagging)
        self.losses.append((copied_us, clock.now_us()))
        self._trace("over: the copy has taken over")

    async def _befall_host(self, host: Host, what: str, planned: Planned) -> None:
        life = host.life
        if life is None or not life.process.alive:
            return
        process = life.process
        if what == "stopped":
            process.stop()
            await asyncio.sleep(planned.for_s)
            process.go_on()
            return
        process.kill_at = process.steps + planned.steps
        await self._dead(process, planned.for_s)
        self._trace(f"{host.name} died at its step {process.steps}")
        self.sidecars_killed += host in self._sidecars
        if planned.fault is Fault.POWER_LOST:
            assert isinstance(host, Sidecar)
            host.disk.lose_power()
            self.powers_lost += 1
        await asyncio.sleep(RESTART_S)
        # Another fault may have had it started, or killed again, meanwhile.
        if host.life is life:
            host.start()

    async def _dead(self, process: Process, for_s: float) -> None:
        try:
            async with asyncio.timeout(for_s):
                while process.alive:
                    await asyncio.sleep(for_s / 8)
        except TimeoutError:
            # It had no more to do than that.
            process.kill()


__all__ = ["Life", "Nemesis"]
