"""The parts of rehearsals and game days: reading metrics, signs, verdicts, books, pages."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, pages
from tests.operating import played, rehearsal
from tests.operating.archive import fetching
from tests.operating.board import Board, named, samples_of
from tests.operating.disasters import DISASTERS
from tests.operating.game_day import game_day, play
from tests.operating.games import GAMES, Game
from tests.operating.games import table as games_table
from tests.operating.load import Books, Sold
from tests.operating.played import Played
from tests.operating.rehearsal import EQUAL, Plan, Rehearsed
from tests.operating.rehearse import passed

QUIET = """\
tallygate_breaker_state 0.0
tallygate_degraded_decisions_total{action="granted"} 2.0
tallygate_outage_backlog_operations 0.0
tallygate_redis_epoch_changes_total 1.0
tallygate_quota_shards_shut{waits_for="journals"} 0.0
tallygate_ingest_lag_seconds 0.1
tallygate_journal_oldest_seconds 0.2
tallygate_journal_pending_operations 0.0
tallygate_journal_state 0.0
tallygate_journal_failures_total{reason="full"} 0.0
tallygate_deliveries_total{destination="billing",outcome="retried"} 4.0
tallygate_outbox_age_seconds{destination="billing"} 0.3
tallygate_outbox_parked{destination="billing"} 0.0
tallygate_certificate_expiry_timestamp_seconds{file="tls.crt"} 9e9
tallygate_stripe_open{destination="stripe",state="rejected"} 0.0
"""
STRUCK = {
    "ingest": [("oldest_seconds 0.2", "oldest_seconds 5")],
    "serve": [],
    "redis": [("breaker_state 0", "breaker_state 2"), ('granted"} 2', 'granted"} 7')],
    "emptied": [("changes_total 1", "changes_total 17"), ('journals"} 0', 'journals"} 9')],
    "postgres": [("lag_seconds 0.1", "lag_seconds 4")],
    "journal": [("journal_state 0", "journal_state 1"), ('full"} 0', 'full"} 1')],
    "destination": [('retried"} 4', 'retried"} 9'), ('billing"} 0.3', 'billing"} 7')],
    "certificate": [('crt"} 9e9', 'crt"} 9e8')],
    "stripe": [('rejected"} 0', 'rejected"} 2')],
}  # fmt: skip
SILENT = {"ingest": "ingest-0", "serve": "serve-0"}


def looked(name: str = "") -> Board:
    """Return what is to be read while a fault lasts, or while none does."""
    text = QUIET
    for quiet, struck in STRUCK.get(name, []):
        assert quiet in text
        text = text.replace(quiet, struck)
    silent = frozenset({SILENT[name]} if name in SILENT else ())
    return Board({"serve-1": samples_of(text)}, silent)


@dataclass
class Rehearsing:
    """Hands that do what they are told; a fault is over as soon as it is undone, if it ever is."""

    able: bool = True
    heals: bool = True
    now: str = ""
    done: list[str] = field(default_factory=list)

    async def board(self) -> Board:
        """Return what is to be read now."""
        return looked(self.now)

    async def strike(self, game: Game) -> bool:
        """Do it."""
        self.now = game.name if self.able else ""
        self.done.append(game.name)
        return self.able

    async def heal(self, game: Game) -> None:
        """Undo it."""
        self.now = "" if self.heals else self.now

    async def verdict(self) -> list[str]:
        """Find nothing."""
        return []


@pytest.mark.parametrize("game", GAMES, ids=lambda each: each.name)
def test_a_fault_has_signs(game: Game) -> None:
    """Its sign is seen while it lasts and not before; it is over afterwards, and not meanwhile."""
    assert game.sign.seen(looked(game.name), looked())
    assert not game.sign.seen(looked(), looked())
    assert game.well.seen(looked(), looked())
    assert not game.well.seen(looked(game.name), looked())
    assert game.look in pages()


async def test_a_day_is_played() -> None:
    """Each fault is done once, in order, and told with what was seen."""
    said: list[str] = []
    hands = Rehearsing()
    day = await game_day(hands, GAMES, said.append)
    assert hands.done == [each.name for each in GAMES]
    assert [text for each in day for text in each.wrong] == []
    assert any("read docs/runbooks/TallygateRedisAway.md" in line for line in said)
    assert "never" not in played.table(day)


async def test_what_cannot_be_done_is_passed_over() -> None:
    """Where it cannot be done it is neither seen nor missed."""
    result = await play(Rehearsing(able=False), GAMES[0], lambda _: None)
    assert (result.done, result.wrong) == (False, [])
    assert "not done" in played.table([result])


async def test_a_day_ends_where_a_fault_does_not() -> None:
    """What is never over is told, and nothing is done on top of it."""
    hands = Rehearsing(heals=False)
    day = await game_day(hands, GAMES, lambda _: None, times=0)
    assert hands.done == ["ingest"]
    assert day[0].wrong == ["ingest was not seen", "ingest is not over"]


def test_a_silent_process_is_not_a_quiet_one() -> None:
    """While a process does not answer, nothing is said to be over."""
    quiet = looked()
    one_silent = Board(quiet.samples, frozenset({"ingest-0"}))
    for game in GAMES:
        assert not game.well.seen(one_silent, quiet)
        assert not game.well.seen(Board(), quiet)


def test_metrics_are_read() -> None:
    """Values are found by their labels, added up, and the worst of them is."""
    board = Board({"a": samples_of('x{s="1"} 2\nx{s="2"} 3\n'), "b": samples_of('x{s="1"} 5\n')})
    assert board.total("x") == 10
    assert board.total("x", s="1") == 7
    assert board.most("x", s="2") == 3
    assert (board.total("y"), board.most("y"), board.values("y")) == (0, 0, [])
    assert named(["ingest-1=h:1", "h:2"]) == {"ingest-1": "h:1", "h:2": "h:2"}


def rehearsed(name: str = "redis", **figures: object) -> Rehearsed:
    """Return the outcome of a disaster, well unless figures say otherwise."""
    [disaster] = [each for each in DISASTERS if each.name == name]
    result = Rehearsed(disaster, accepted=10, verify=EQUAL)
    for key, value in figures.items():
        setattr(result, key, value)
    return result


def test_each_broken_promise_is_told() -> None:
    """Lost where none may be, missing in the end, odd, passed limits, a ledger that differs."""
    assert rehearsed().wrong == []
    assert rehearsed("region", lost=4, lost_strict=9, passed=9).wrong == []
    assert len(rehearsed("region", lost=4, lost_strict=2, passed=3).wrong) == 1
    assert len(rehearsed(lost=1).wrong) == 1
    assert len(rehearsed("region", lost=1, left=1).wrong) == 1
    assert len(rehearsed(odd=1, passed=1, verify="counter").wrong) == 3


def test_books_add_up() -> None:
    """Units are by tenant; a limit is passed by what is above it; waits are those since."""
    books = Books({"a": Sold("strict-1", 100, 1, 1), "b": Sold("strict-1", 60, 2, 2)})
    books.waits = [(0.0, 9.0), (10.0, 12.0)]
    assert books.granted() == Counter({"strict-1": 160})
    assert passed(books) == 10
    assert books.longest_wait_s(9.5) == 2.0
    assert books.longest_wait_s(20.0) == 0.0


def test_a_rehearsal_is_kept(tmp_path: Path) -> None:
    """Each disaster has the row and the steps of its own last run, in the page's order."""
    file = tmp_path / "kept.json"
    plan = Plan(7, 200.0, DISASTERS)
    rehearsal.keep(plan, [rehearsed("region", lost=3, lost_s=0.25), rehearsed(lost=9)], file)
    rehearsal.keep(plan, [rehearsed(steps=[("start it", 1.5)])], file)
    text = rehearsal.page(rehearsal.read(file))
    assert "| Redis, all of it | none | 10 | 0 |  |" in text
    assert "| 10 | 3, of the last 0.2 s | all |" in text
    assert "| Redis, all of it | start it | 1.5 |" in text
    assert text.index("Redis, all of it") < text.index("Redis, Postgres and all")
    assert "7, 200/s" in text
    assert rehearsal.read(tmp_path / "none.json") == []


def test_the_page_is_what_is_kept() -> None:
    """The page has every disaster, and of each what its last run came to, which was right."""
    kept = rehearsal.read()
    assert [each.disaster for each in kept] == [*DISASTERS]
    assert [text for each in kept for text in each.wrong] == []
    assert rehearsal.PAGE.read_text() == rehearsal.page(kept)


def test_the_steps_are_those_of_the_page() -> None:
    """The log is fetched by the command that the page shows."""
    page = pages()["docs/operating/disaster-recovery.md"]
    assert f"restore_command = '{fetching(Path('/archive/wal'))}'" in page


def test_the_games_are_those_of_the_page() -> None:
    """The table of faults is the one that is played."""
    page = pages()["docs/operating/game-day.md"]
    shown = page.partition("<!-- games:begin -->")[2].partition("<!-- games:end -->")[0]
    assert shown.strip() == "\n".join(games_table())


def test_what_rings_is_a_rule() -> None:
    """Each alert that a fault should ring is one of the chart's."""
    files = sorted((ROOT / "helm" / "tallygate" / "files" / "rules").glob("*.yaml"))
    rules = [
        rule for file in files for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]  # fmt: skip
    assert {each.alert for each in GAMES} <= {rule.get("alert") for rule in rules}


def test_outcomes_are_shown() -> None:
    """Seconds, or that it never was."""
    text = played.table([Played(GAMES[0], seen_s=1.25), Played(GAMES[1], True, 1.0, 2.0)])
    assert "never" in text.splitlines()[1]
    assert "2.0 s" in text.splitlines()[2]
