"""Repeats that take turns: each round measures every target once, in another order.

Guarantees: what is compared was measured within seconds of each other, several times; calls of
ours are compared with the sidecar's own count, and what differs becomes a doubt.
Refuses to know: budgets.
"""

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bench import load, open_loop
from bench.figures import Closed, Figure, Paced
from bench.processes import POLL_S, cpu_s
from bench.targets import Target

T = TypeVar("T")

US = 1e6
CALLS_MIN = 200
# Of what a target can do, the rates at which latency is asked: beyond it any queue grows.
LOAD_MAX = 0.8
CLOSED_LOOP_S = 120.0
LEASED = "tallygate_lease_grants_total"
LEASED_SHARE_MIN = 0.95
# Sidecars count at the end of a turn, not call by call.
COUNTED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how long: seconds of each run, and repeats."""

    rounds: int = 3
    seconds: float = 1.5
    warm_up_s: float = 0.7


@dataclass(frozen=True, slots=True)
class Shape:
    """Connections, calls at once on each, and checks that one call holds."""

    clients: int
    streams: int
    size: int = 1

    @property
    def calls_min(self) -> int:
        """The fewest calls of a run that says anything."""
        return max(CALLS_MIN // self.size, self.clients * self.streams)


BUSY = Shape(4, 32)
LONE = Shape(1, 1)
BATCHES = Shape(4, 4, 100)


@dataclass(frozen=True, slots=True)
class _Run:
    per_second: float
    mean_ms: float
    cpu_us: float
    redis_us: float
    client_us: float


def closed(
    targets: Mapping[str, Target], shape: Shape, pace: Pace, doubts: list[str]
) -> dict[str, Closed]:
    """Measure each target under as many calls at once as `shape` says."""
    runs: dict[str, list[_Run]] = {name: [] for name in targets}
    speeds = {name: _warmed(target, shape, pace.warm_up_s / 2) for name, target in targets.items()}
    for number in range(pace.rounds):
        for name, target in turned(list(targets.items()), number):
            each_s = speeds[name] / shape.size
            # Leases, caches and connections of one that has been idle for a round are cold.
            _loaded(target, shape, max(shape.calls_min, int(each_s * pace.warm_up_s / 2)))
            calls = max(shape.calls_min, int(each_s * pace.seconds))
            run = _run(name, target, shape, calls, doubts)
            speeds[name] = run.per_second
            runs[name].append(run)
    return {
        name: Closed(
            Figure("/s", tuple(run.per_second for run in each)),
            Figure("ms", tuple(run.mean_ms for run in each)),
            Figure("us", tuple(run.cpu_us for run in each)),
            Figure("us", tuple(run.redis_us for run in each)),
            Figure("us", tuple(run.client_us for run in each)),
        )
        for name, each in runs.items()
    }


def turned(items: Sequence[T], number: int) -> list[T]:
    """Return the items in the order of a round: each begins with another one."""
    place = number % len(items) if items else 0
    return [*items[place:], *items[:place]]


def _warmed(target: Target, shape: Shape, seconds: float) -> float:
    """Call for a while; return the checks per second of its second half."""
    calls, speed = shape.calls_min, 0.0
    for _ in range(2):
        speed = _loaded(target, shape, calls).per_second
        calls = max(calls, int(speed * seconds))
    return speed * shape.size


def _loaded(target: Target, shape: Shape, calls: int) -> load.Result:
    return load.run(
        target.server.port,
        target.method,
        target.message,
        calls=calls,
        clients=shape.clients,
        streams=shape.streams,
    )


def _run(name: str, target: Target, shape: Shape, calls: int, doubts: list[str]) -> _Run:
    allowed = _settled(target) if target.ours else 0
    leased = target.server.counter(LEASED) if target.ours else 0
    server_s = target.server.cpu_s()
    redis_s = cpu_s(target.redis_pid) if target.redis_pid else 0.0
    client_s = _children_s()
    result = _loaded(target, shape, calls)
    each = US / calls / shape.size
    run = _Run(
        result.per_second * shape.size,
        result.mean_ms,
        (target.server.cpu_s() - server_s) * each,
        (cpu_s(target.redis_pid) - redis_s) * each if target.redis_pid else 0.0,
        (_children_s() - client_s) * each,
    )
    if not result.answered:
        doubts.append(f"{name}: of {calls:,} calls some ended with a status and no message")
    if target.ours and "Record" not in target.method:
        checks = calls * shape.size
        decided = _counted(target, allowed + checks) - allowed
        if decided != checks:
            doubts.append(f"{name}: of {checks:,} checks {decided:,.0f} were allowed")
        share = (target.server.counter(LEASED) - leased) / checks
        if "leased" in name and share < LEASED_SHARE_MIN:
            doubts.append(f"{name}: {share:.0%} of {checks:,} checks were granted from leases")
    return run


def _settled(target: Target) -> float:
    """Return what the sidecar has allowed, once calls made before are counted."""
    allowed = -1.0
    while (now := target.server.allowed()) != allowed:
        allowed = now
        time.sleep(POLL_S)
    return allowed


def _counted(target: Target, expected: float) -> float:
    """Return what the sidecar has allowed, as soon as it says what is expected, or in the end."""
    deadline = time.monotonic() + COUNTED_WITHIN_S
    while (allowed := target.server.allowed()) < expected and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return allowed


def _children_s() -> float:
    """Return the processor time of children that have ended: of the callers, while servers run."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def paced(
    targets: Mapping[str, Target],
    rates: Sequence[int],
    pace: Pace,
    reach: Callable[[str], float],
) -> dict[str, list[Paced]]:
    """Measure latency at each rate that a target reaches, `reach` being its calls per second."""
    wanted = [(name, rate) for rate in rates for name in targets if rate <= LOAD_MAX * reach(name)]
    met: dict[tuple[str, int], list[open_loop.Met]] = {each: [] for each in wanted}
    spent: dict[tuple[str, int], float] = dict.fromkeys(wanted, 0.0)
    for number in range(pace.rounds):
        for name, rate in turned(wanted, number):
            target = targets[name]
            before = target.server.cpu_s()
            met[name, rate].append(_paced_once(target, rate, pace.seconds))
            spent[name, rate] += target.server.cpu_s() - before
    found: dict[str, list[Paced]] = {name: [] for name in targets}
    for (name, rate), parts in met.items():
        whole = open_loop.merged(parts)
        calls = len(whole.latencies_us)
        found[name].append(
            Paced(
                rate,
                p50_ms=whole.within_us(0.5) / 1e3,
                p99_ms=whole.within_us(0.99) / 1e3,
                p999_ms=whole.within_us(0.999) / 1e3,
                p99s_ms=tuple(part.within_us(0.99) / 1e3 for part in parts),
                failed=whole.failed + whole.unanswered,
                calls=calls,
                woken_late_p99_ms=open_loop.quantile(whole.late_us, 0.99) / 1e3,
                cpu_us=spent[name, rate] / calls * US,
            )
        )
    return found


def _paced_once(target: Target, rate: int, seconds: float) -> open_loop.Met:
    schedule = open_loop.Schedule(
        target.server.port, target.method, float(rate), max(CALLS_MIN, int(rate * seconds))
    )
    return open_loop.driven_apart(schedule, [target.message])


def cost_us(
    target: Target,
    messages: Sequence[bytes],
    calls: int,
    doubts: list[str],
    in_flight_max: int = BUSY.streams,
) -> float:
    """Return the processor time per call of a server and its Redis, in µs, at 4 x 32 calls."""
    schedule = open_loop.Schedule(
        target.server.port,
        target.method,
        US,
        calls,
        BUSY.clients,
        in_flight_max=in_flight_max,
        grace_s=CLOSED_LOOP_S,
    )
    before = target.server.cpu_s() + cpu_s(target.redis_pid)
    met = open_loop.driven_apart(schedule, messages)
    if met.failed or met.unanswered:
        doubts.append(f"of {calls:,} calls {met.failed} failed, {met.unanswered} got no answer")
    return (target.server.cpu_s() + cpu_s(target.redis_pid) - before) / calls * US


def asking(target: Target, method: str, message: bytes) -> Target:
    """Return a target that is asked something else."""
    return replace(target, method=method, message=message)


def say(what: str) -> None:
    """Tell what goes on, on stderr."""
    sys.stderr.write(f"bench: {what} …\n")
    sys.stderr.flush()
