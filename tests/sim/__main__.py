"""Many runs, one after the other: `python -m tests.sim [--first N] [--seeds N] [--losses]`.

Owns the loop over seeds and its summary. Refuses to know what a run is.
"""

import argparse
import sys
import time
from collections import Counter

from tests.sim.plan import LOSING
from tests.sim.run import simulate


def main() -> int:
    """Run the seeds asked for; print what they met, and each that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--losses", action="store_true", help="Redis loses data, again and again")
    asked = parser.parse_args()
    met: Counter[str] = Counter()
    failed: list[int] = []
    began_s = time.monotonic()
    for seed in range(asked.first, asked.first + asked.seeds):
        found = simulate(seed, LOSING if asked.losses else None)
        met.update(found.counts)
        met.update(f"call {call.answer}" for call in found.history.calls)
        if found.faults:
            failed.append(seed)
            sys.stdout.write(found.report() + "\n")
    minutes = (time.monotonic() - began_s) / 60
    last = asked.first + asked.seeds - 1
    sys.stdout.write(
        f"seeds {asked.first} to {last}: {asked.seeds / minutes:.0f} runs a minute,"
        f" {len(failed)} failed: {failed}\n{dict(sorted(met.items()))}\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
