"""`python -m tests.chaos SECONDS SEED [lossless]`: a soak, its outcome printed."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.chaos.nemesis import EVERYTHING, LOSSLESS
from tests.chaos.soak import Plan, soak


def main(seconds: float, seed: int, which: str = "") -> int:
    weights = LOSSLESS if which == "lossless" else EVERYTHING
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        outcome = asyncio.run(soak(Path(folder), Plan(seed, seconds, weights=weights)))
    for name in (
        "tries",
        "failures",
        "strikes",
        "events",
        "messages",
        "drained_s",
        "unexpected",
        "ended",
    ):
        print(name, getattr(outcome, name))
    for each in outcome.slopes:
        print(each)
    for fault in outcome.faults[:60]:
        print("WRONG", fault[:400])
    print(len(outcome.faults), "wrong")
    return bool(outcome.faults)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
