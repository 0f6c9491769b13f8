"""What a check costs as the processes behind one port grow: theirs, and their Redis'.

Guarantees: as many calls are in flight whatever there is of processes; points take turns with their
curve's first, and a point's cost is the median of its turns; a group's cost is that of all its
processes, the one that watches too. Refuses to know: what is fast enough.
"""

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench import load, targets
from bench.processes import Child, cpu_s, family_s
from tallygate.commands.output import Cell, Sheet

PROCESSES: Final = (1, 2, 4)
# The kernel divides connections, not calls: with fewer of them, some processes would have none.
CONNECTIONS: Final = 32
STREAMS: Final = 4
TURNS: Final = 5
CALLS: Final = 3_000
US: Final = 1e6
COLUMNS: Final = ("transport", "processes", "CPU us", "ratio", "Redis us", "ratio of Redis'")


async def sheet() -> Sheet | None:
    """Measure each transport's curve; None where h2load is missing."""
    if not load.available():
        sys.stderr.write("bench: h2load is missing, and with it the curve over processes\n")
        return None
    rows: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        async with targets.redis(Path(name) / "redis") as redis:
            for transport in targets.TRANSPORTS:
                rows += _curve(Path(name), transport, redis.url, redis.pid)
    return Sheet(f"a check, {CONNECTIONS * STREAMS} in flight", COLUMNS, rows)


def _curve(folder: Path, transport: str, url: str, redis_pid: int) -> list[tuple[Cell, ...]]:
    costs: dict[int, list[tuple[float, float]]] = {count: [] for count in PROCESSES}
    with ExitStack() as stack:
        groups = {}
        for count in PROCESSES:
            home = folder / f"{transport}-{count}"
            set_up = targets.serving(home, url, mode="exact", transport=transport)
            set_up |= {"TALLYGATE_PROCESSES": str(count)}
            groups[count] = stack.enter_context(targets.sidecar_running(set_up))
        for turn in range(TURNS + 1):
            for count, group in groups.items():
                cost = _called(group, redis_pid)
                # The first turn warms every process up.
                if turn:
                    costs[count].append(cost)
    return _rows(transport, costs)


def _called(group: Child, redis_pid: int) -> tuple[float, float]:
    """Call; return the processor time of a check in us: the group's, and Redis'."""
    group_s, redis_s = family_s(group.pid), cpu_s(redis_pid)
    message = targets.check("tenant-1").SerializeToString()
    result = load.run(
        *(group.port, targets.CHECK, message), calls=CALLS, clients=CONNECTIONS, streams=STREAMS
    )
    if not result.answered:
        raise RuntimeError("some calls ended with a status alone, and cost less than a decision")
    each = US / CALLS
    return (family_s(group.pid) - group_s) * each, (cpu_s(redis_pid) - redis_s) * each


def _rows(transport: str, costs: dict[int, list[tuple[float, float]]]) -> list[tuple[Cell, ...]]:
    points = {
        count: [statistics.median(part) for part in zip(*found, strict=True)]
        for count, found in costs.items()
    }
    first = points[PROCESSES[0]]
    return [
        (
            transport,
            count,
            f"{own:.0f}",
            f"{own / first[0]:.2f}",
            f"{redis:.1f}",
            f"{redis / first[1]:.2f}",
        )
        for count, (own, redis) in points.items()
    ]
