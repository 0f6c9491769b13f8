"""Every seed on every Redis: the embedded and the system's server, and a cluster of one node.

Owns which servers, and that the first difference ends the run. Guarantees: a run that passes has
met every seed on every server; one that fails names server, seed and step, and exits with 1.
Refuses to know what a step is.

Run as `make nightly`, or `python -m tests.property.nightly [--seeds N] [--steps N] [--first N]`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tallygate.adapters.embedded import EmbeddedRedis
from tests.property.seeded import run as run_seed
from tests.servers import CLUSTER_OPTIONS, claim_slots, redis_binaries, run

# Nothing is read back after a restart here, and a log of 10,000 steps is much to write.
OPTIONS = ("--appendonly", "no")


@dataclass(frozen=True, slots=True)
class Job:
    """One seed on one server."""

    label: str
    binary: Path
    clustered: bool
    seed: int
    steps: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a job that met no difference reports."""

    outcomes: Counter[str]
    took_s: float


async def _serve(server: EmbeddedRedis, job: Job) -> None:
    await server.start()
    if job.clustered:
        await claim_slots(server)


def meet(job: Job) -> Agreed:
    """Run one job on a server of its own. Raises AssertionError, which names seed and step."""
    started = time.monotonic()
    options = (*OPTIONS, *CLUSTER_OPTIONS) if job.clustered else OPTIONS
    with tempfile.TemporaryDirectory(prefix="tallygate-nightly-") as folder:
        port = 0 if job.clustered else None
        server = EmbeddedRedis(folder, binary=job.binary, tcp_port=port, options=options)
        try:
            run(_serve(server, job))
            outcomes = run_seed(server.url, job.seed, job.steps)
        finally:
            run(server.stop())
    return Agreed(outcomes, time.monotonic() - started)


def jobs(seeds: Sequence[int], steps: int) -> list[Job]:
    """Return every seed on every server, seeds first, so that an early end has met all servers."""
    binaries = redis_binaries()
    newest = binaries[-1]
    servers = [(each.label, each.path, False) for each in binaries]
    servers.append((f"cluster of one, {newest.label}", newest.path, True))
    return [Job(*server, seed, steps) for seed in seeds for server in servers]


def _say(text: str) -> None:
    sys.stdout.write(time.strftime("%H:%M:%S ") + text + "\n")
    sys.stdout.flush()


def _followed(running: dict[Future[Agreed], Job]) -> Counter[str] | None:
    """Report each job as it ends; return what all met, or None after the first difference."""
    met: Counter[str] = Counter()
    for count, future in enumerate(as_completed(running), start=1):
        job = running[future]
        error = future.exception()
        if error is not None:
            notes = "; ".join(getattr(error, "__notes__", ()))
            _say(f"DIFFERENCE on {job.label}, seed {job.seed}: {notes}\n{error!r}")
            return None
        agreed = future.result()
        met += agreed.outcomes
        place = f"{count}/{len(running)}"
        _say(f"{place} {job.label}: seed {job.seed}, {job.steps} steps, {agreed.took_s:.0f} s")
    return met


def main() -> int:
    """Run the jobs, a few at a time, until all agree or one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=max(1, min(os.cpu_count() or 1, 8)))
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    work = jobs(seeds, asked.steps)
    _say(f"{len(work)} runs of {asked.steps} steps, {asked.at_once} at once")
    with ProcessPoolExecutor(asked.at_once) as pool:
        met = _followed({pool.submit(meet, job): job for job in work})
        if met is None:
            pool.shutdown(wait=False, cancel_futures=True)
            return 1
    for name, number in sorted(met.items()):
        sys.stdout.write(f"{number:10}  {name}\n")
    _say("no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
