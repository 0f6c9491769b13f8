"""`make game-day`: fault after fault on a running installation, until each is seen and is over.

`python -m tests.operating.game_day [--only NAME] [--at [NAME=]HOST:PORT ...] [--keep]`. Without
`--at` it starts an installation of its own, under load, and strikes by itself; with the ops
addresses of yours it says what to do, and watches. Guarantees that it waits for metrics and for
nothing else. Refuses to know how a fault is done.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.chaos.kept import keep_larger
from tests.operating.board import Board, named
from tests.operating.games import GAMES, Game, Sign
from tests.operating.hands import Hands, Told, ours
from tests.operating.load import loaded
from tests.operating.played import Played, table

LOOK_S: Final = 0.2
SEEN_S: Final = 120.0
WELL_S: Final = 180.0
BY_HAND_TIMES: Final = 10
"""People need longer than a script, and have to find out first."""


async def play(hands: Hands, game: Game, say: Callable[[str], None], times: int = 1) -> Played:
    """Strike, wait until it is seen, heal, wait until it is over."""
    say(f"{game.name}: {game.do}")
    say(f"  look at: {game.sign.says}")
    say(f"  it should ring: {game.alert}; read {game.look}")
    before = await hands.board()
    began = time.monotonic()
    if not await hands.strike(game):
        say("  cannot be done here: passed over")
        return Played(game, done=False)
    seen_s = await _until(hands, game.sign, before, began, SEEN_S * times)
    say("  not seen" if seen_s is None else f"  seen after {seen_s:.1f} s")
    healed = time.monotonic()
    await hands.heal(game)
    say(f"  healed; look at: {game.well.says}")
    well_s = await _until(hands, game.well, before, healed, WELL_S * times)
    say("  not over" if well_s is None else f"  over after {well_s:.1f} s")
    return Played(game, True, seen_s, well_s)


async def _until(
    hands: Hands, sign: Sign, before: Board, began: float, patience_s: float
) -> float | None:
    """Return how many seconds it took until a sign was seen, None if it never was."""
    while time.monotonic() - began < patience_s:
        if sign.seen(await hands.board(), before):
            return time.monotonic() - began
        await asyncio.sleep(LOOK_S)
    return None


async def game_day(
    hands: Hands, games: Sequence[Game], say: Callable[[str], None], times: int = 1
) -> list[Played]:
    """Play one after the other; one that is not over ends the day, as the next would add to it."""
    day: list[Played] = []
    for game in games:
        day.append(await play(hands, game, say, times))
        if day[-1].done and day[-1].well_s is None:
            break
    return day


async def on_ours(games: Sequence[Game], seed: int, per_s: float) -> tuple[list[Played], list[str]]:
    """Play on an installation of our own, under load, then hold all against the ledger."""
    with tempfile.TemporaryDirectory(prefix="tallygate-game-day-") as folder:
        async with ours(Path(folder), seed, per_s) as hands:
            async with loaded(hands.load) as books:
                day = await game_day(hands, games, _say)
            wrong = [] if any(each.wrong for each in day) else await hands.verdict()
            _say(f"{len(books.accepted):,} events were accepted meanwhile")
            return day, wrong


async def on_theirs(
    games: Sequence[Game], addresses: Sequence[str]
) -> tuple[list[Played], list[str]]:
    """Have people play on an installation of theirs."""
    hands = Told(named(addresses), _say)
    day = await game_day(hands, games, _say, BY_HAND_TIMES)
    return day, await hands.verdict()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run it as the command line says; exit 1 when something was not seen, or is not over."""
    parser = argparse.ArgumentParser(prog="python -m tests.operating.game_day", description=__doc__)
    parser.add_argument("--only", action="append", choices=[each.name for each in GAMES])
    parser.add_argument("--at", action="append", metavar="[NAME=]HOST:PORT", help="ops addresses")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-s", type=float, default=100.0)
    parser.add_argument("--keep", action="store_true", help="keep it for docs/guarantees.md")
    given = parser.parse_args()
    games = [each for each in GAMES if not given.only or each.name in given.only]
    run = on_theirs(games, given.at) if given.at else on_ours(games, given.seed, given.per_s)
    day, wrong = asyncio.run(run)
    wrong = [*(text for each in day for text in each.wrong), *wrong]
    _say(table(day))
    for text in wrong:
        _say(f"WRONG {text}")
    _say("The day is lost." if wrong else "All was seen, all is over, and all agrees.")
    if given.keep and not wrong:
        keep_larger("make game-day", table(day))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
