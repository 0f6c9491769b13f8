"""`make guard`: what each kind of call costs, beside its baseline; `--where` shows it by function.

Guarantees: exit code 1 when a figure is too far from its baseline. Refuses to measure time: for
that there is `make bench`.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.guard.baseline import Costs, Verdict, record, recorded, verdicts
from tests.guard.measure import Measured, measured
from tests.guard.scenes import all_scenes


async def measure(folder: Path, only: str = "") -> dict[str, Measured]:
    """Return what each scene costs whose name contains `only`."""
    async with all_scenes(folder) as scenes:
        return {scene.name: await measured(scene) for scene in scenes if only in scene.name}


def main() -> int:
    """Measure, and print, record or show as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.guard", description=__doc__)
    parser.add_argument("--record", action="store_true", help="make these figures the baselines")
    parser.add_argument(
        "--where", default=None, metavar="SCENE", help="show the bytecodes of scenes by function"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallygate-guard-") as folder:
        found = asyncio.run(measure(Path(folder), given.where or ""))
    if given.where is not None:
        for name, each in found.items():
            sys.stdout.write(f"{name}\n{each.table()}\n\n")
        return 0 if found else 1
    costs: Costs = {name: each.figures for name, each in found.items()}
    if given.record:
        record(costs)
    held = list(verdicts(costs, recorded()))
    sys.stdout.write(page(held))
    wrong = [each for each in held if each.state != "ok"]
    sys.stdout.writelines(f"{each}\n" for each in wrong)
    return bool(wrong)


def page(held: list[Verdict]) -> str:
    """Return all figures as a table."""
    lines = [f"{'scene':<28} {'count':<17} {'now':>10} {'baseline':>10} {'ratio':>6}"]
    scene = ""
    for each in held:
        was = "" if each.was is None else f"{each.was:,.2f}"
        name = "" if each.scene == scene else each.scene
        scene = each.scene
        mark = "" if each.state == "ok" else f"  {each.state}"
        lines.append(
            f"{name:<28} {each.count:<17} {each.now:>10,.2f} {was:>10} {each.ratio:>6.2f}{mark}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
