"""The nemesis: one fault after the other, chosen by a seed, each undone before the next.

Owns what can befall an installation. Guarantees that the same seed strikes in the same order, and
that after `heal` all is as it was. Refuses to know what should survive.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from tallygate.testing.webhook import WebhookReceiver
from tests.chaos.book import now_us
from tests.chaos.disk import SmallDisk
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.ground import LOOK_TIMEOUT_S, Ground
from tests.faults.proxy import Proxy

LENGTH_S: Final = (0.3, 3.0)
"""How long a fault lasts: from below any patience to beyond all of them."""

GAP_S: Final = (0.5, 3.0)
"""Between two faults: some are met while the last one is still being recovered from."""

PROCESSES: Final[Mapping[str, int]] = {
    "kill serve": 4,
    "kill ingest": 4,
    "kill relay": 2,
    "kill control": 1,
    "terminate serve": 2,
    "terminate ingest": 1,
    "pause serve": 3,
    "pause ingest": 3,
    "pause relay": 2,
}
NETWORK: Final[Mapping[str, int]] = {
    "redis slow": 2,
    "redis jitter": 2,
    "redis silent": 3,
    "redis one-way": 3,
    "redis reset": 3,
    "redis crumbs": 1,
    "redis thin": 1,
    "redis refused": 2,
    "postgres silent": 2,
    "postgres reset": 2,
    "postgres slow": 1,
}
SERVERS: Final[Mapping[str, int]] = {
    "redis killed": 2,
    "redis paused": 2,
    "postgres killed": 2,
    "postgres sessions cut": 2,
    "destination fails": 3,
    "destination hangs": 1,
}
DISKS: Final[Mapping[str, int]] = {"disk full": 2}
LOSSES: Final[Mapping[str, int]] = {"redis emptied": 2, "redis failed over, late": 2}
"""After these, what Redis alone had is gone."""

LOSSLESS: Final[Mapping[str, int]] = {**PROCESSES, **NETWORK, **SERVERS}
EVERYTHING: Final[Mapping[str, int]] = {**LOSSLESS, **DISKS, **LOSSES}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault: when it began and ended, in us since the Unix epoch, and whom it met."""

    name: str
    victim: str
    began_us: int
    ended_us: int


@dataclass(slots=True)
class Nemesis:
    """Strikes until it is told to end. `weights` says which faults there are, and how often.

    `forgotten_us` are instants at which Redis lost what it knew; in `behind_us` are the spans in
    which a replica that then took over had heard nothing. Where it `spares`, the last of each kind
    of process is never killed, so that its memory can be judged at the end.
    """

    ground: Ground
    fleet: Fleet
    receiver: WebhookReceiver
    seed: int
    weights: Mapping[str, int] = field(default_factory=lambda: EVERYTHING)
    disks: Mapping[str, SmallDisk] = field(default_factory=dict)
    spares: bool = True
    gap_s: tuple[float, float] = GAP_S
    strikes: list[Strike] = field(default_factory=list)
    forgotten_us: list[int] = field(default_factory=list)
    behind_us: list[tuple[int, int]] = field(default_factory=list)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    @property
    def counts(self) -> Counter[str]:
        """How often each fault has struck."""
        return Counter(each.name for each in self.strikes)

    async def run(self, until: asyncio.Event, *, strikes_max: int = 10**6) -> None:
        """Strike, wait a little, and strike again."""
        while not until.is_set() and len(self.strikes) < strikes_max:
            [name] = self.chance.choices([*self.weights], [*self.weights.values()])
            await self.strike(name)
            await self._lasting(*self.gap_s)

    async def strike(self, name: str) -> Strike:
        """Have one fault befall the installation, and undo it."""
        began_us = now_us()
        kind, _, what = name.partition(" ")
        match kind:
            case "kill" | "terminate" | "pause":
                victim = await self._process(kind, what)
            case _ if name in NETWORK:
                victim = await self._network(kind, what)
            case _:
                deeds: Mapping[str, Callable[[], Awaitable[str]]] = {
                    "redis killed": self._redis_killed,
                    "redis paused": self._redis_paused,
                    "redis emptied": self._redis_emptied,
                    "redis failed over, late": self._redis_failed_over,
                    "postgres killed": self._postgres_killed,
                    "postgres sessions cut": self._postgres_cut,
                    "destination fails": self._destination_fails,
                    "destination hangs": self._destination_hangs,
                    "disk full": self._disk_full,
                }
                victim = await deeds[name]()
        strike = Strike(name, victim, began_us, now_us())
        self.strikes.append(strike)
        return strike

    async def heal(self) -> None:
        """End whatever still goes on, and have every process run."""
        self.ground.heal()
        for disk in self.disks.values():
            disk.clear()
        for worker in self.fleet.workers.values():
            if worker.paused:
                worker.send(signal.SIGCONT)
            if not worker.wanted:
                await worker.start()

    async def _process(self, deed: str, prefix: str) -> str:
        them = self.fleet.named(prefix)
        if self.spares and deed != "pause" and len(them) > 1:
            them = them[:-1]
        worker: Worker = self.chance.choice(them)
        if deed == "pause":
            if worker.send(signal.SIGSTOP):
                await self._lasting(*LENGTH_S)
                worker.send(signal.SIGCONT)
            return worker.name
        await (worker.kill() if deed == "kill" else worker.terminate())
        await self._lasting(0, 1)
        await worker.start()
        await worker.ready()
        return worker.name

    async def _network(self, kind: str, what: str) -> str:
        name = kind
        proxy: Proxy = self.ground.to_postgres
        if kind == "redis":
            name = self.chance.choice(sorted(self.ground.to_redis))
            proxy = self.ground.to_redis[name]
        match what:
            case "slow":
                proxy.late_s = 0.005 + 0.1 * self.chance.random()
            case "jitter":
                proxy.jitter_s = 0.4 * self.chance.random()
            case "silent":
                proxy.open.clear()
            case "one-way":
                proxy.answering.clear()
            case "crumbs":
                proxy.crumb = self.chance.randint(1, 7)
            case "thin":
                proxy.bytes_per_s = 20_000
            case "refused":
                proxy.refusing = True
                proxy.reset()
            case _:
                proxy.reset()
        if what != "reset":
            await self._lasting(*LENGTH_S)
        if what in {"silent", "one-way"} and self.chance.random() < 0.5:
            # Else what was held up arrives now, late.
            proxy.reset()
        proxy.heal()
        return name

    async def _redis_killed(self) -> str:
        server = self.ground.redis.primary.server
        await server.kill()
        await self._lasting(*LENGTH_S)
        await server.start()
        return "primary"

    async def _redis_paused(self) -> str:
        pid = self.ground.redis.primary.server.pid
        os.kill(pid, signal.SIGSTOP)
        await self._lasting(*LENGTH_S)
        os.kill(pid, signal.SIGCONT)
        return "primary"

    async def _redis_emptied(self) -> str:
        client = self.ground.redis.client()
        try:
            self.forgotten_us.append(now_us())
            await client.flushall()
            self.forgotten_us.append(now_us())
        finally:
            await client.aclose()
        return "primary"

    async def _redis_failed_over(self) -> str:
        pair = self.ground.redis
        pair.link.open.clear()
        pair.link.answering.clear()
        began_us = now_us()
        await self._lasting(0.2, 2.0)
        await pair.depose()
        # Whatever was answered since the link was cut is not known to the replica.
        self.behind_us.append((began_us, now_us()))
        self.forgotten_us.extend(range(began_us, now_us(), 100_000))
        await self._lasting(*LENGTH_S)
        await pair.return_deposed()
        return "primary"

    async def _postgres_killed(self) -> str:
        await self.ground.postgres.kill()
        await self._lasting(*LENGTH_S)
        await self.ground.postgres.start()
        return "postgres"

    async def _postgres_cut(self) -> str:
        admin = await asyncpg.connect(self.ground.near_dsn, timeout=LOOK_TIMEOUT_S)
        try:
            cut = await admin.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
        finally:
            await admin.close()
        return f"{cut} sessions"

    async def _destination_fails(self) -> str:
        count = self.chance.randint(1, 20)
        self.receiver.fail_next(self.chance.choice([500, 503, 429]), count=count)
        return f"{count} calls"

    async def _destination_hangs(self) -> str:
        self.receiver.hang_next()
        return "1 call"

    async def _disk_full(self) -> str:
        name = self.chance.choice(sorted(self.disks))
        self.disks[name].fill()
        await self._lasting(*LENGTH_S)
        self.disks[name].clear()
        return name

    async def _lasting(self, least_s: float, most_s: float) -> None:
        until = time.monotonic() + self.chance.uniform(least_s, most_s)
        await asyncio.sleep(until - time.monotonic())
