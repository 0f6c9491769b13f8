"""`python -m clients.builds`: build, test, pack and install every client, and play all cases.

Ends with status 1 where anything failed, or where a client that was asked for cannot be built here.
`--build-only` ends once there is what the cases need; `--cases` plays them, and no more.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from clients.builds.recipes import RECIPES, Recipe
from clients.builds.stages import Progress, StageFailed, run
from clients.conformance.cases import read
from clients.conformance.drivers import LANGUAGES
from clients.conformance.play import play_all
from clients.conformance.report import report
from clients.conformance.world import World, servers, world

SAMPLE_SAYS: Final = (
    r"go ahead, \d+ left",
    r"sent 12 bytes",
    r"delivered",
    r"counted 0",
    r"INVALID_FIELD: items\[0\]\.amount",
    r"GetQuota: OK",
)
"""What the README's program prints, line by line, in every language."""

AT_ONCE: Final = 2
"""Clients that are built at once: tools of most languages use more than one core by themselves."""

LANES: Final = 3
SAMPLE_TRIES: Final = 5


def main() -> int:
    """Do all that is asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clients.builds", description=__doc__)
    parser.add_argument("--lang", action="append", choices=[each.name for each in RECIPES])
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--cases", action="store_true", help="build, and play the cases alone")
    parser.add_argument("--all", action="store_true", help="fail where a client is not there")
    asked = parser.parse_args()
    wanted = [each for each in RECIPES if not asked.lang or each.name in asked.lang]
    absent = [each.name for each in wanted if not each.present]
    if absent and (asked.lang or asked.all):
        print(f"cannot be built here: {', '.join(absent)}", file=sys.stderr)
        return 1
    console = Console(width=max(120, Console().width))
    present = [each for each in wanted if each.present]
    extent = Extent(tested=not (asked.build_only or asked.cases), played=not asked.build_only)
    return asyncio.run(_all(present, console, extent))


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: clients' own tests, packages and samples; the cases."""

    tested: bool
    played: bool


async def _all(recipes: Sequence[Recipe], console: Console, extent: Extent) -> int:
    began, progress = time.monotonic(), Progress()
    gate = asyncio.Semaphore(AT_ONCE)
    built = await asyncio.gather(
        *(_built(each, progress, gate, tested=extent.tested) for each in recipes)
    )
    failed = 0
    if extent.played:
        ready = [each for each, whole in zip(recipes, built, strict=True) if whole]
        failed = await _beside(ready, progress, console, tested=extent.tested)
    _show(progress, recipes, console)
    for each in progress.faults:
        console.print(each, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{time.monotonic() - began:.1f} s in all", highlight=False)
    return 1 if failed or progress.faults or not recipes else 0


async def _built(
    recipe: Recipe, progress: Progress, gate: asyncio.Semaphore, *, tested: bool
) -> bool:
    """Build, test and pack a client; say whether it may go on."""
    async with gate:
        try:
            await progress.stage(recipe, "build", recipe.build)
            if tested:
                await progress.stage(recipe, "test", recipe.test)
                await progress.stage(recipe, "pack", recipe.pack)
        except StageFailed as error:
            progress.faults.append(f"{recipe.name}: {error}")
            return False
    return True


async def _beside(
    recipes: Sequence[Recipe], progress: Progress, console: Console, *, tested: bool
) -> int:
    """Play the cases and run the samples beside one sidecar; return how many cases failed."""
    names = {each.name for each in recipes} | ({"asyncio"} & set(LANGUAGES))
    if "python" not in names:
        names.discard("asyncio")
    languages = [each for each in LANGUAGES.values() if each.name in names and each.present]
    async with servers() as (redis_url, dsn), world(redis_url, dsn) as made:
        began = time.monotonic()
        outcomes = await play_all(made, languages, read(), LANES)
        progress.seconds["all", "cases"] = time.monotonic() - began
        for each in recipes if tested else ():
            try:
                await _sample(each, made, progress)
            except StageFailed as error:
                progress.faults.append(f"{each.name}: {error}")
    return report(outcomes, console)


async def _sample(recipe: Recipe, made: World, progress: Progress) -> None:
    """Install a client into an empty project, and run the README's program there."""
    target = {"TALLYGATE_TARGET": made.address}
    began = time.monotonic()
    for command in recipe.beside:
        await run(command, recipe.folder, target)
    progress.seconds[recipe.name, "beside"] = time.monotonic() - began
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tg-sample-") as folder:
        commands, sample = recipe.install(Path(folder))
        for command in commands:
            await run(command, Path(folder))
        said = (await _said(sample, Path(folder), target)).splitlines()
    progress.seconds[recipe.name, "sample"] = time.monotonic() - began
    matched = [re.fullmatch(*pair) for pair in zip(SAMPLE_SAYS, said, strict=False)]
    if len(said) != len(SAMPLE_SAYS) or not all(matched):
        raise StageFailed("the README's program said something else:\n" + "\n".join(said))


async def _said(sample: tuple[str, ...], folder: Path, target: dict[str, str]) -> str:
    """Run a sample, which has the client's usual deadline of a second.

    The first call of a runtime that has just started may take longer on a machine full of builds.
    """
    for _ in range(SAMPLE_TRIES - 1):
        try:
            return await run(sample, folder, target)
        except StageFailed as error:
            if not re.search(r"(?i)deadline", str(error)):
                raise
    return await run(sample, folder, target)


def _show(progress: Progress, recipes: Sequence[Recipe], console: Console) -> None:
    stages = list(dict.fromkeys(stage for _, stage in progress.seconds))
    table = Table("seconds", *stages, box=None)
    for name in [*(each.name for each in recipes), "all"]:
        cells = [
            "unchanged"
            if (name, stage) in progress.cached
            else f"{progress.seconds[name, stage]:.1f}"
            if (name, stage) in progress.seconds
            else ""
            for stage in stages
        ]
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
