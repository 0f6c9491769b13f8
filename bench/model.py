"""What one process, one Redis and one ingester carry, told from what a call costs each of them.

Guarantees: a server is taken to be full at 0.7 of a processor, where queues begin to grow; figures
are processor time of the same run, under load. Refuses to know: networks, disks and failover.
"""

import math
from collections.abc import Sequence

from bench import targets
from bench.figures import INGEST, RECORDS, Closed, Measured
from tallygate.commands.output import Cell

FULL = 0.7
COLUMNS = (
    f"at {FULL:g} of a processor",
    "one sidecar process, /s",
    "one Redis, /s",
    "sidecars that fill one Redis",
    "ingesters that keep up with one Redis",
)


def rows(found: Measured) -> list[Sequence[Cell]]:
    """Return what can be carried, by kind of call; nothing for what was not measured."""
    kinds = {
        name: found.busy[name]
        for name in (targets.sidecar("exact", "native"), targets.sidecar("leased", "native"))
        if name in found.busy
    }
    if RECORDS in found.batches:
        kinds[RECORDS] = found.batches[RECORDS]
    return [_row(name, each, found) for name, each in kinds.items()]


def _row(name: str, each: Closed, found: Measured) -> tuple[Cell, ...]:
    sidecar, redis = _full(each.cpu_us.median), _full(each.redis_us.median)
    ingest = found.single.get(INGEST)
    drained = "" if ingest is None else f"{math.ceil(redis / ingest.median):,}"
    return name, f"{sidecar:,.0f}", f"{redis:,.0f}", f"{redis / sidecar:,.0f}", drained


def _full(us: float) -> float:
    return FULL * 1e6 / us if us else math.inf
