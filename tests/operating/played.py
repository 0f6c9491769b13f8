"""What a game day came to, and its table. Refuses to know how it is played."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.operating.games import Game


@dataclass(frozen=True, slots=True)
class Played:
    """One fault: whether it was done, and after how many seconds it was seen, and over."""

    game: Game
    done: bool = True
    seen_s: float | None = None
    well_s: float | None = None

    @property
    def wrong(self) -> list[str]:
        """What was not as it should be."""
        if not self.done:
            return []
        found = {"was not seen": self.seen_s is None, "is not over": self.well_s is None}
        return [f"{self.game.name} {text}" for text, so in found.items() if so]


def table(day: Sequence[Played]) -> str:
    """Return the day as text."""
    lines = [f"{'fault':14}{'seen after':>12}{'over after':>12}  what should ring"]
    for each in day:
        if each.done:
            figures = f"{_s(each.seen_s):>12}{_s(each.well_s):>12}"
        else:
            figures = f"{'not done':>24}"
        lines.append(f"{each.game.name:14}{figures}  {each.game.alert}")
    return "\n".join(lines)


def _s(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
