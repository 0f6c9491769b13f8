"""What an installation needs by its load: memory, disk, log, processors. Pure arithmetic.

Owns how figures of one event become those of a day. Guarantees: every figure that goes in was
measured by `bench/sizing.py`, or is a setting's default. Refuses to know: how they are measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400
HOUR_S: Final = 3_600
OPERATION_TTL_S: Final = 900
FULL: Final = 0.7
"""Of a processor, from where queues begin to grow."""

GB: Final = 10**9
MB: Final = 10**6
# The same table for everybody; for other loads the command takes them.
RATES: Final = (10, 100, 1_000, 5_000, 20_000)
TENANTS: Final = 10_000
OUTAGE_S: Final = HOUR_S


@dataclass(frozen=True, slots=True)
class Unit:
    """What one event, one tenant or one operation takes: bytes, and us of a processor."""

    redis_tenant: float
    redis_operation: float
    redis_entry: float
    postgres_event: float
    postgres_message: float
    postgres_log: float
    rollup_minute: float
    journal_event: float
    serve_us: float
    redis_us: float
    ingest_us: float
    postgres_us: float


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of an installation. `minutes` are pairs of tenant and meter busy per minute."""

    per_s: float
    tenants: int = TENANTS
    outage_s: float = OUTAGE_S
    messages: bool = True

    @property
    def minutes(self) -> float:
        """Rows of the finest rollup that a day adds."""
        # Each event falls to some tenant by chance: so many of them have at least one in a minute.
        per_minute = self.per_s * 60
        return DAY_S / 60 * self.tenants * -math.expm1(-per_minute / self.tenants)


def needs(unit: Unit, load: Load) -> Mapping[str, float]:
    """Return what a load takes: bytes, or processors where the name says so."""
    events = load.per_s * DAY_S
    message = unit.postgres_message if load.messages else 0.0
    return {
        "Redis, at rest": (
            load.tenants * unit.redis_tenant + load.per_s * OPERATION_TTL_S * unit.redis_operation
        ),
        "Redis, in an outage of Postgres": load.per_s * load.outage_s * unit.redis_entry,
        "ledger, a day": (
            events * (unit.postgres_event + message) + load.minutes * unit.rollup_minute
        ),
        "write-ahead log, a day": events * unit.postgres_log,
        "journals, in the same outage": load.per_s * load.outage_s * unit.journal_event,
        "processors: serve": load.per_s * unit.serve_us / 1e6 / FULL,
        "processors: Redis": load.per_s * unit.redis_us / 1e6 / FULL,
        "processors: ingest": load.per_s * unit.ingest_us / 1e6 / FULL,
        "processors: Postgres": load.per_s * unit.postgres_us / 1e6 / FULL,
    }


def table(unit: Unit, loads: Sequence[Load]) -> list[tuple[str, ...]]:
    """Return the needs of several loads side by side, the first row being the loads."""
    found = [needs(unit, load) for load in loads]
    return [
        ("events a second", *(f"{load.per_s:,.0f}" for load in loads)),
        *((name, *(_shown(name, each[name]) for each in found)) for name in found[0]),
    ]


def _shown(name: str, value: float) -> str:
    if name.startswith("processors"):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    if value < GB:
        return f"{max(value / MB, 0.1):,.1f} MB" if value < 10 * MB else f"{value / MB:,.0f} MB"
    return f"{value / GB:,.1f} GB" if value < 100 * GB else f"{value / GB:,.0f} GB"
