"""Entries of the audit log are written before anybody is answered, together where they can be."""

import asyncio
from collections.abc import Sequence

import pytest

from tallygate.domain.errors import BackendUnavailable, InvalidField, Overloaded
from tallygate.domain.trail import TrailEntry
from tallygate.flow import trail as module
from tallygate.flow.trail import SilentTrail, Trail
from tallygate.testing.trail import FakeTrailLog


class Observed(SilentTrail):
    """Counts what a trail tells."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.refusals = 0
        self.losses = 0

    def appended(self, entries: int, head: int) -> None:
        """Note an append."""
        self.batches.append(entries)

    def refused(self) -> None:
        """Count a refusal."""
        self.refusals += 1

    def unrecorded(self) -> None:
        """Count what could not be written."""
        self.losses += 1


def entry(action: str = "QueryUsage") -> TrailEntry:
    """Return an entry by ada."""
    return TrailEntry("ada", "control", action, "acme")


def outcomes(log: FakeTrailLog) -> list[tuple[str, str]]:
    """Return action and outcome of each row."""
    return [(row.entry.action, row.entry.outcome) for row in log.rows]


async def test_a_change_is_asked_for_before_it_is_made() -> None:
    """The log has that a change was asked for while it is made, and then what came of it."""
    log = FakeTrailLog()
    trail = Trail(log)
    async with trail.change(entry("ApplyPlan")):
        assert outcomes(log) == [("ApplyPlan", "asked")]
    assert outcomes(log) == [("ApplyPlan", "asked"), ("ApplyPlan", "done")]
    assert log.rows[0].entry.call_id == log.rows[1].entry.call_id != ""


async def test_a_change_that_cannot_be_recorded_is_not_made() -> None:
    """Where the log does not answer, the change does not begin."""
    log = FakeTrailLog(failure=BackendUnavailable())
    made = False
    with pytest.raises(BackendUnavailable):
        async with Trail(log).change(entry()):
            made = True
    assert not made
    assert log.rows == []


async def test_a_change_that_was_made_is_answered() -> None:
    """Where only what came of it cannot be written, the change stands, and that is told."""
    log, observed = FakeTrailLog(), Observed()
    async with Trail(log, observed).change(entry()):
        log.failure = BackendUnavailable()
    assert outcomes(log) == [("QueryUsage", "asked")]
    assert observed.losses == 1


async def test_a_read_is_not_answered_without_its_entry() -> None:
    """Where the log does not answer, neither does the read."""
    log = FakeTrailLog(failure=BackendUnavailable())
    with pytest.raises(BackendUnavailable):
        async with Trail(log).read(entry()):
            pass
    assert log.rows == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidField("secret text", field="x"), "refused: INVALID_FIELD"),
        (ValueError("secret text"), "failed"),
        (asyncio.CancelledError(), "failed"),
    ],
)
async def test_what_went_wrong_is_recorded(error: BaseException, outcome: str) -> None:
    """The reason of an error is recorded, and never its text."""
    log = FakeTrailLog()
    trail = Trail(log)
    with pytest.raises(type(error)):
        async with trail.read(entry()):
            raise error
    with pytest.raises(type(error)):
        async with trail.change(entry("ApplyPlan")):
            raise error
    await trail.close()
    assert outcomes(log) == [
        ("QueryUsage", outcome),
        ("ApplyPlan", "asked"),
        ("ApplyPlan", outcome),
    ]


async def test_what_comes_together_is_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One append is under way at a time, and takes what came meanwhile, up to its bound."""
    monkeypatch.setattr(module, "BATCH_MAX", 8)
    log, observed = FakeTrailLog(), Observed()
    trail = Trail(log, observed)
    await asyncio.gather(*(trail.write(entry(str(number))) for number in range(20)))
    assert observed.batches == [8, 8, 4]
    assert [row.entry.action for row in log.rows] == [str(number) for number in range(20)]


async def test_more_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound a call is refused, as it would be answered without an entry."""
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    log, observed = FakeTrailLog(), Observed()
    trail = Trail(log, observed)
    found = await asyncio.gather(*(trail.write(entry()) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in found if each is not None] == [Overloaded, Overloaded]
    assert (observed.refusals, len(log.rows)) == (2, 3)


async def test_who_has_gone_is_still_recorded() -> None:
    """A caller that is cancelled while its entry waits leaves the entry behind."""
    log = FakeTrailLog()
    trail = Trail(log)
    waiting = asyncio.create_task(trail.write(entry()))
    await asyncio.sleep(0)
    waiting.cancel()
    await trail.close()
    assert outcomes(log) == [("QueryUsage", "done")]


async def test_an_end_waits_for_no_log_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log does not answer, a process ends all the same, and tells what it leaves."""
    monkeypatch.setattr(module, "CLOSE_S", 0.0)
    monkeypatch.setattr(module, "BATCH_MAX", 1)

    class Hanging(FakeTrailLog):
        """Never answers."""

        async def append(self, entries: Sequence[TrailEntry]) -> int:
            """Wait for ever."""
            never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            return await never

    observed = Observed()
    trail = Trail(Hanging(), observed)
    waiting = [asyncio.create_task(trail.write(entry())) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    await trail.close()
    assert observed.losses == 2
