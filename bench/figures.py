"""Figures as they were measured, with their spread, and what they are held against.

Guarantees: a figure is the median of repeats that took turns with all others; its spread is the
least and the greatest of them. A ratio is of two medians of the same run. What could not be
measured is said so and never counts as met.
Refuses to know: how anything is measured.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import targets


@dataclass(frozen=True, slots=True)
class Figure:
    """What repeats of one measurement gave, in `unit`."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def told(self) -> str:
        """Write it with its spread."""
        middle = f"{short(self.median)} {self.unit}"
        if len(self.values) == 1:
            return middle
        return f"{middle} ({short(min(self.values))} to {short(max(self.values))})"


def short(value: float) -> str:
    """Write a number with three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Closed:
    """Load by callers that wait: speed, mean time, and processor time per check.

    That of the server, of its Redis and of the callers; the rest is the kernel's and neighbours'.
    """

    per_second: Figure
    mean_ms: Figure
    cpu_us: Figure
    redis_us: Figure
    client_us: Figure

    def busy_share(self, processors: int) -> float:
        """Return how much of the machine's processor time all three took together."""
        each_us = self.cpu_us.median + self.redis_us.median + self.client_us.median
        return each_us * self.per_second.median / (processors * 1e6)


@dataclass(frozen=True, slots=True)
class Paced:
    """Latencies at a fixed rate, in ms; those of all repeats together, and of p99 each."""

    rate: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    p99s_ms: tuple[float, ...]
    failed: int
    calls: int
    woken_late_p99_ms: float
    cpu_us: float


@dataclass(slots=True)
class Measured:
    """Everything one run found. `doubts` are what a reader must know before believing it."""

    processors: int = 1
    machine: dict[str, str] = field(default_factory=dict)
    busy: dict[str, Closed] = field(default_factory=dict)
    lone: dict[str, Closed] = field(default_factory=dict)
    batches: dict[str, Closed] = field(default_factory=dict)
    paced: dict[str, list[Paced]] = field(default_factory=dict)
    tenants: dict[int, Figure] = field(default_factory=dict)
    limits: dict[int, Figure] = field(default_factory=dict)
    single: dict[str, Figure] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget beside what was measured; `value` is None where it could not be."""

    budget: str
    unit: str
    value: float | None
    target: float
    stretch: float | None
    at_least: bool

    @property
    def says(self) -> str:
        """Say whether it is met."""
        if self.value is None:
            return "not measured"
        if self.stretch is not None and self._reaches(self.stretch):
            return "stretch met"
        return "met" if self._reaches(self.target) else "missed"

    def _reaches(self, bound: float) -> bool:
        assert self.value is not None
        return self.value >= bound if self.at_least else self.value <= bound

    def bound(self, value: float | None) -> str:
        """Write a target with its direction."""
        if value is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {short(value)} {self.unit}"


# Names of single figures.
INGEST = "ledger ingest, one ingester"
LAG = "accept to ledger, p99 at 5,000 events/s"
IDLE = "resident memory of serve, idle"
HOT = "resident memory of serve, 10,000 tenants hot"
CHECKS, LEASED_CHECKS = "batch of 100 checks", "batch of 100 leased checks"
RECORDS = "batch of 100 RecordUsage at JOURNAL"
PEER_CHECKS = "gubernator, batch of 100 checks"


def verdicts(measured: Measured) -> list[Verdict]:
    """Hold a run against every budget."""
    busy = {name: each.per_second.median for name, each in measured.busy.items()}
    lone = {name: each.mean_ms.median for name, each in measured.lone.items()}
    peer, peer_lone = _best_peer(busy, lone)
    exact, leased = targets.sidecar("exact", "native"), targets.sidecar("leased", "native")
    on_grpcio = targets.sidecar("exact", "grpcio")
    batch = {name: each.per_second.median for name, each in measured.batches.items()}
    single = {name: each.median for name, each in measured.single.items()}
    tenants, limits = _growth(measured.tenants), _growth(measured.limits)
    rows: list[tuple[str, str, float | None, float, float | None, bool]] = [
        ("exact, native / ratelimit", "x", _ratio(busy.get(exact), peer), 0.8, 1.2, True),
        ("leased, native / ratelimit", "x", _ratio(busy.get(leased), peer), 2, 3, True),
        *_by_processes(busy, peer),
        (
            "one at a time, leased / ratelimit",
            "x",
            _ratio(lone.get(leased), peer_lone),
            0.5,
            0.3,
            False,
        ),
        (
            "exact on grpc.aio / empty handler",
            "x",
            _ratio(busy.get(on_grpcio), busy.get(targets.EMPTY)),
            0.75,
            0.9,
            True,
        ),
        ("batch of 100 checks, decisions/s", "/s", batch.get(CHECKS), 66_000, 150_000, True),
        ("batch of 100 RecordUsage, JOURNAL", "/s", batch.get(RECORDS), 20_000, 50_000, True),
        ("ledger ingest, one ingester", "/s", single.get(INGEST), 20_000, 40_000, True),
        ("accept to ledger, p99 at 5,000/s", "ms", single.get(LAG), 500, 150, False),
        ("resident memory, idle", "MB", single.get(IDLE), 90, 60, False),
        ("resident memory, 10,000 tenants hot", "MB", single.get(HOT), 150, 100, False),
        ("cost per check, 100 to 100,000 tenants", "x", tenants, 1.15, None, False),
        ("cost per check, 1 to 16 limits", "x", limits, 3, 2, False),
    ]
    return [Verdict(*row) for row in rows]


def _by_processes(
    busy: Mapping[str, float], peer: float | None
) -> list[tuple[str, str, float | None, float, float | None, bool]]:
    """Return the same budgets for as many processes as there are processors, as peers use them."""
    return [
        (f"{name} / ratelimit", "x", _ratio(busy[name], peer), target, stretch, True)
        for mode, target, stretch in (("exact", 0.8, 1.2), ("leased", 2.0, 3.0))
        for name in busy
        if name.startswith(f"{targets.sidecar(mode, 'native')}, ")
    ]


def _best_peer(
    busy: Mapping[str, float], lone: Mapping[str, float]
) -> tuple[float | None, float | None]:
    """Return ratelimit's best speed and time, as set up as it likes best for each."""
    names = (targets.RATELIMIT, targets.RATELIMIT_WINDOW)
    speeds = [busy[name] for name in names if name in busy]
    times = [lone[name] for name in names if name in lone]
    return max(speeds, default=None), min(times, default=None)


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _growth(curve: Mapping[int, Figure]) -> float | None:
    """Return what the last point of a curve costs beside the first."""
    if len(curve) < 2:
        return None
    return curve[max(curve)].median / curve[min(curve)].median
