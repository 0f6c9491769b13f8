"""`make bench`: every budget of the design measured in one run, beside an empty handler and peers.

Guarantees: every ratio is of two figures from this run, whose repeats took turns; that calls were
really decided is checked against the sidecar's own counters.
Refuses to know: what is fast enough; `bench/figures.py` has the budgets.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from subprocess import SubprocessError

from bench import figures, growth, ledger_cost, load, report, rounds, targets
from bench.figures import Figure, Measured
from bench.lag import emptied, steady
from bench.peers import installed
from bench.peers.running import gubernator_message
from bench.rounds import BATCHES, BUSY, LONE, Pace
from bench.targets import Field
from tallygate import __version__
from tallygate.domain.errors import TallygateError

RATES = (1_000, 5_000, 10_000)
INGEST_ROUNDS = 3
INGEST_EVENTS = 60_000
LAG_RATE, LAG_SECONDS = 5_000, 8
QUICK = 10
FAILURES = (RuntimeError, AssertionError, OSError, SubprocessError, TallygateError)


async def measured(pace: Pace, quick: int) -> Measured:
    """Measure everything; `quick` divides what is counted and not timed."""
    found = Measured()
    transports = _transports(found)
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        async with targets.everything(folder, transports) as field:
            found.machine, found.processors = _machine(field), len(os.sched_getaffinity(0))
            with _kept_going(found, "load"):
                await asyncio.to_thread(_under_load, field, transports, pace, found)
        async with targets.redis(folder / "growth-redis") as server:
            with _kept_going(found, "growth"):
                await asyncio.to_thread(growth.measure, folder, server, transports[0], pace, found)
        with _kept_going(found, "ingest"):
            await _ingested(folder, quick, found)
    return found


@contextmanager
def _kept_going(found: Measured, stage: str) -> Iterator[None]:
    """Have a stage that fails cost its own figures and no others."""
    try:
        yield
    except FAILURES as error:
        found.doubts.append(f"{stage} ended early: {error!r}")


def _transports(found: Measured) -> tuple[str, ...]:
    if _native():
        return targets.TRANSPORTS
    found.doubts.append("the native transport is not installed: it was not measured")
    return ("grpcio",)


def _native() -> bool:
    return find_spec("pygrpc_native") is not None


def _under_load(field: Field, transports: tuple[str, ...], pace: Pace, found: Measured) -> None:
    rounds.say("4 connections of 32 calls")
    found.busy = rounds.closed(field.targets, BUSY, pace, found.doubts)
    rounds.say("one call at a time")
    found.lone = rounds.closed(field.targets, LONE, pace, found.doubts)
    rounds.say("batches of 100")
    exact = field.targets[targets.sidecar("exact", transports[0])]
    leased = field.targets[targets.sidecar("leased", transports[0])]
    checks = targets.check_batch()
    batches = {
        figures.CHECKS: rounds.asking(exact, targets.BATCH_CHECK, checks),
        figures.LEASED_CHECKS: rounds.asking(leased, targets.BATCH_CHECK, checks),
        figures.RECORDS: rounds.asking(exact, targets.BATCH_RECORD, targets.record_batch()),
    }
    if targets.GUBERNATOR in field.targets:
        peer = field.targets[targets.GUBERNATOR]
        batches[figures.PEER_CHECKS] = rounds.asking(
            peer, peer.method, gubernator_message(targets.BATCH_SIZE)
        )
    found.batches = rounds.closed(batches, BATCHES, pace, found.doubts)
    rounds.say("latency at fixed rates")
    asked = field.having(
        targets.EMPTY,
        targets.RATELIMIT,
        targets.GUBERNATOR,
        *(targets.sidecar(mode, each) for each in transports for mode in ("exact", "leased")),
    )
    found.paced = rounds.paced(asked, RATES, pace, lambda name: found.busy[name].per_second.median)


async def _ingested(folder: Path, quick: int, found: Measured) -> None:
    rounds.say("ingest")
    async with ledger_cost.servers(folder / "ledger") as on:
        events = INGEST_EVENTS // quick
        spent = [
            await emptied(on, events=events, first=number * events)
            for number in range(INGEST_ROUNDS)
        ]
        found.single[figures.INGEST] = Figure("/s", tuple(events / each.seconds for each in spent))
        found.single["the same, processor time of the ingester"] = Figure(
            "us", tuple(each.own_s / events * 1e6 for each in spent)
        )
        found.single["the same, processor time of Postgres"] = Figure(
            "us", tuple(each.postgres_s / events * 1e6 for each in spent)
        )
        found.single["the same, write-ahead log per event"] = Figure(
            "B", tuple(each.wal_bytes / events for each in spent)
        )
        rounds.say("from acceptance to the ledger")
        met = await steady(on, per_s=LAG_RATE // quick, seconds=LAG_SECONDS)
        found.single[figures.LAG] = Figure("ms", (met.at_ms(0.99),))
        found.single["the same, p50"] = Figure("ms", (met.at_ms(0.5),))


def _machine(field: Field) -> dict[str, str]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processors": f"{len(os.sched_getaffinity(0))} x {model[0] if model else 'unknown'}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "tallygate": __version__,
        "Redis": f"{field.redis_version}, append-only file synced every second, Unix socket",
        "native transport": f"pygrpc-native {version('pygrpc-native')}" if _native() else "none",
        "ratelimit": installed.RATELIMIT_VERSION,
        "gubernator": installed.GUBERNATOR_VERSION,
    }


def main() -> None:
    """Measure, print one table, and keep it where that is asked for."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--quick", action="store_true", help="a short run, to try it out")
    asked.add_argument("--keep", action="store_true", help="write bench/results and docs")
    options = asked.parse_args()
    if not load.available():
        sys.exit("bench: h2load is missing; Debian has it in nghttp2-client")
    pace = Pace(rounds=2, seconds=0.2, warm_up_s=0.1) if options.quick else Pace()
    found = asyncio.run(measured(pace, QUICK if options.quick else 1))
    if options.quick:
        found.doubts.append("a quick run: too short to compare, and a tenth of the events")
    report.show(found)
    if options.keep:
        report.keep(found)


if __name__ == "__main__":
    main()
