"""Counts scenes: each round by round, and of every count the least.

Guarantees: a round in which something came in between, a window that turned or an answer that came
in two parts, raises no figure. Refuses to judge.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from tests.guard.counting import Counts, bytecodes, calls
from tests.guard.scenes import Disturbed, Scene

WARM_ROUNDS: Final = 2
ROUNDS: Final = 3
TRIES: Final = 20
"""Of a round that is not what it should be: a lease may end at any time."""

# What the harness itself asks Redis, and what a connection does when it is opened.
_OWN_COMMANDS: Final = frozenset({"info", "hello", "client|setinfo", "client|setname", "select"})
_SCRIPTS: Final = frozenset({"evalsha", "eval"})

Figures = dict[str, float]
Meter = Callable[[Figures], AbstractAsyncContextManager[None]]
"""Puts what it counts while its block runs into figures."""


@dataclass(slots=True)
class Measured:
    """What a piece of a scene's work costs, by the counts' names; `where` is of a whole round."""

    figures: Figures = field(default_factory=dict)
    where: Counts = field(default_factory=Counts)
    pieces: int = 0

    def table(self) -> str:
        """Return where the bytecodes of a piece of work went."""
        return self.where.table(self.pieces)


async def measured(scene: Scene, rounds: int = ROUNDS) -> Measured:
    """Return what a scene costs. Raises `Disturbed` when it cannot be had undisturbed."""
    found = Measured()

    @asynccontextmanager
    async def counting_bytecodes(into: Figures) -> AsyncIterator[None]:
        counts = Counts()
        with bytecodes(counts):
            yield
        into["bytecodes"] = counts.bytecodes
        if not found.where.by_code or counts.bytecodes < found.where.bytecodes:
            found.where = counts

    meters: list[Meter] = [counting_bytecodes, _calls]
    if scene.redis is not None:
        meters.append(await _redis_meter(scene.redis))
    for _ in range(WARM_ROUNDS):
        await _round(scene, lambda _: nullcontext())
    for meter in meters:
        for _ in range(rounds):
            figures, found.pieces = await _round(scene, meter)
            for name, each in figures.items():
                one = each / found.pieces
                found.figures[name] = min(one, found.figures.get(name, one))
    return found


async def _round(scene: Scene, meter: Meter) -> tuple[Figures, int]:
    for left in reversed(range(TRIES)):
        if scene.before is not None:
            await scene.before()
        figures: Figures = {}
        try:
            async with meter(figures):
                pieces = await scene.work()
        except Disturbed:
            if not left:
                raise
            continue
        return figures, pieces
    raise AssertionError("there is at least one try")


@asynccontextmanager
async def _calls(into: Figures) -> AsyncIterator[None]:
    counts = Counts()
    with calls(counts):
        yield
    into |= counts.calls()


async def _redis_meter(redis: Redis) -> Meter:
    """Return what counts commands and bytes, less those of looking at the counts."""

    @asynccontextmanager
    async def looking(into: Figures) -> AsyncIterator[None]:
        commands = await _commands(redis)
        # Innermost, as its reply is of the same length each time.
        bytes_ = await _bytes(redis)
        yield
        into |= _less(await _bytes(redis), bytes_)
        into |= _less(await _commands(redis), commands)

    looks: Figures = {}
    async with looking(looks):
        pass

    @asynccontextmanager
    async def meter(into: Figures) -> AsyncIterator[None]:
        async with looking(into):
            yield
        into |= _less(into, looks)

    return meter


async def _bytes(redis: Redis) -> Figures:
    stats = await redis.info("stats")
    return {
        "bytes to Redis": stats["total_net_input_bytes"],
        "bytes from Redis": stats["total_net_output_bytes"],
    }


async def _commands(redis: Redis) -> Figures:
    ran = {
        name.removeprefix("cmdstat_"): each["calls"]
        for name, each in (await redis.info("commandstats")).items()
        if name.removeprefix("cmdstat_") not in _OWN_COMMANDS
    }
    scripts = sum(each for name, each in ran.items() if name in _SCRIPTS)
    return {"Redis scripts": scripts, "Redis commands": sum(ran.values()) - scripts}


def _less(figures: Figures, others: Mapping[str, float]) -> Figures:
    return {name: each - others[name] for name, each in figures.items()}
