"""What one sidecar and its Redis need as tenants and limits grow: memory, and time per check.

Guarantees: points of a curve are measured in turns on one sidecar that has met all of its tenants
before; the cost is processor time of the sidecar and of Redis, which neighbours do not change
much. Refuses to know: budgets.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import figures, rounds, targets
from bench.figures import Figure, Measured
from bench.rounds import Pace
from bench.targets import Target
from tallygate.adapters.embedded import EmbeddedRedis

HOT_TENANTS = 10_000
TENANTS = (100, 1_000, 10_000, 100_000)
BATCH = targets.BATCH_SIZE
CALLS_PER_S = 8_000
SEED = 5
WIDE = f"resident memory of serve, {TENANTS[-1]:,} tenants"


def measure(
    folder: Path, redis: EmbeddedRedis, transport: str, pace: Pace, found: Measured
) -> None:
    """Measure memory, idle and hot, and the cost of a check by tenants and by limits."""
    set_up = targets.serving(folder / "growth", redis.url, mode="exact", transport=transport)
    with targets.sidecar_running(set_up) as server:
        target = Target(server, targets.CHECK, b"", redis.pid, ours=True)
        found.single[figures.IDLE] = Figure("MB", (server.rss_mb(),))
        rounds.say(f"{HOT_TENANTS:,} tenants")
        _touch(target, 0, HOT_TENANTS, found.doubts)
        _touch(target, 0, HOT_TENANTS, found.doubts)
        found.single[figures.HOT] = Figure("MB", (server.rss_mb(),))
        rounds.say(f"{TENANTS[-1]:,} tenants")
        _touch(target, HOT_TENANTS, TENANTS[-1], found.doubts)
        found.single[WIDE] = Figure("MB", (server.rss_mb(),))
        by_tenants = {count: _messages(count, pace) for count in TENANTS}
        found.tenants = _curve(target, by_tenants, pace, found.doubts)
        rounds.say("cost by limits")
        by_limits = {
            count: [targets.check("tenant-0", meter).SerializeToString()]
            for count, meter in targets.LIMITS_OF.items()
        }
        found.limits = _curve(target, by_limits, pace, found.doubts)


def _touch(target: Target, first: int, last: int, doubts: list[str]) -> None:
    """Have each tenant call once, a hundred of them in a batch."""
    batches = [
        targets.check_batch(f"tenant-{start // BATCH}") for start in range(first, last, BATCH)
    ]
    asked = rounds.asking(target, targets.BATCH_CHECK, b"")
    rounds.cost_us(asked, batches, len(batches), doubts, in_flight_max=1)


def _messages(tenants: int, pace: Pace) -> list[bytes]:
    # Not for secrets: the same seed makes the same calls in every run.
    chance = random.Random(SEED)
    calls = int(CALLS_PER_S * pace.seconds)
    names = (f"tenant-{chance.randrange(tenants):02d}" for _ in range(calls))
    return [targets.check(name).SerializeToString() for name in names]


def _curve(
    target: Target, points: Mapping[int, Sequence[bytes]], pace: Pace, doubts: list[str]
) -> dict[int, Figure]:
    costs: dict[int, list[float]] = {point: [] for point in points}
    calls = int(CALLS_PER_S * pace.seconds)
    for messages in points.values():
        rounds.cost_us(target, messages, calls // 2, doubts)
    for number in range(pace.rounds):
        for point, messages in rounds.turned(list(points.items()), number):
            costs[point].append(rounds.cost_us(target, messages, calls, doubts))
    return {point: Figure("us", tuple(each)) for point, each in costs.items()}
