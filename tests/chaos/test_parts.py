"""The harness itself: a disk that fills, lines through figures, a nemesis that repeats itself."""

from pathlib import Path
from typing import cast

import pytest

from tallygate.testing.webhook import WebhookReceiver
from tests.chaos.disk import SmallDisk
from tests.chaos.fleet import Fleet
from tests.chaos.gauges import GROWTH_FILES_MAX, JUDGED_S, Sample, grown, slope
from tests.chaos.ground import Ground
from tests.chaos.nemesis import EVERYTHING, Nemesis

MB = 2**20


def samples(rise_mb_per_minute: float, files: int = 0) -> list[Sample]:
    """Return ten minutes of a process, one sample a second."""
    return [
        Sample(at, round((90 + rise_mb_per_minute * at / 60) * MB), 20 + files * at // 600)
        for at in range(600)
    ]


@pytest.mark.parametrize("rise", [0.0, 0.2, 3.0])
def test_a_slope_is_what_it_rises_by(rise: float) -> None:
    """The line through the figures rises as they do."""
    assert slope("serve-0", samples(rise)).mb_per_minute == pytest.approx(rise, abs=0.01)


def test_what_grows_is_told() -> None:
    """More memory, or more files, each minute is told of a long life and not of a short one."""
    steady = slope("steady", samples(0.1))
    leaks, opens = slope("leaks", samples(2.0)), slope("opens", samples(0.0, files=40))
    assert [each.split()[0] for each in grown([steady, leaks, opens])] == ["leaks", "opens"]
    assert GROWTH_FILES_MAX < 40 / 2
    short = slope("short", samples(2.0)[: int(JUDGED_S / 2)])
    assert [*grown([short])] == []


def test_the_same_seed_strikes_in_the_same_order() -> None:
    """Of two nemeses of one seed, each chooses as the other does."""

    def choices(seed: int) -> list[str]:
        nothing = (cast(Ground, None), cast(Fleet, None), cast(WebhookReceiver, None))
        nemesis = Nemesis(*nothing, seed)
        return nemesis.chance.choices([*EVERYTHING], [*EVERYTHING.values()], k=50)

    assert choices(3) == choices(3)
    assert choices(3) != choices(4)


def test_a_cleared_disk_has_what_it_had(tmp_path: Path) -> None:
    """Clearing takes away the ballast alone."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "ballast").write_text("x")
    disk = SmallDisk(tmp_path)
    disk.clear()
    disk.clear()
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
