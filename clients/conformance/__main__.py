"""`python -m clients.conformance`: every case with every client that is built here.

Ends with status 1 where a case failed, or where a client that was asked for is not built.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from clients.conformance.cases import Case, read
from clients.conformance.drivers import LANGUAGES, Language
from clients.conformance.play import Outcome, play_all
from clients.conformance.report import report
from clients.conformance.world import servers, world

LANES = 3
"""Drivers per client: cases mostly wait, each for another fault's time."""


def main() -> int:
    """Play the cases that are asked for; return the exit status."""
    asked = _arguments()
    cases = [each for each in read() if _wanted(each.name, asked.only)]
    if asked.list:
        for each in cases:
            print(f"{each.name:34}{each.says}")
        return 0
    languages = [LANGUAGES[name] for name in asked.lang or LANGUAGES]
    absent = [each.name for each in languages if not each.present]
    if absent and (asked.lang or asked.all):
        print(f"not built here: {', '.join(absent)}", file=sys.stderr)
        return 1
    languages = [each for each in languages if each.present]
    if not languages or not cases:
        print("nothing to play", file=sys.stderr)
        return 1
    began = time.monotonic()
    outcomes = asyncio.run(_play(languages, cases, asked.lanes))
    console = Console(width=max(120, Console().width))
    failed = report(outcomes, console)
    console.print(f"{time.monotonic() - began:.1f} s in all", highlight=False)
    return 1 if failed else 0


async def _play(languages: Sequence[Language], cases: Sequence[Case], lanes: int) -> list[Outcome]:
    async with servers() as (redis_url, dsn), world(redis_url, dsn) as made:
        return await play_all(made, languages, cases, lanes)


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(re.search(each, name) for each in only)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m clients.conformance", description=__doc__)
    parser.add_argument("--lang", action="append", choices=sorted(LANGUAGES), help="again for more")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--all", action="store_true", help="fail where a client is not built")
    parser.add_argument("--lanes", type=int, default=LANES, help="cases at once per client")
    parser.add_argument("--list", action="store_true", help="name the cases, and play none")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
