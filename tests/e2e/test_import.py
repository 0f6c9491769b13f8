"""`tallygate import access-log` into a running `tallygate dev`: counted once, whatever happens."""

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import access_logs
from tests.e2e.calls import Ledger
from tests.e2e.processes import Finished, Server, rows_of, site, started, tallygate
from tests.servers import eventually

LINES = 1_500
SETTLE_S = 20.0
BAD_LINES = [
    "this is not a line of an access log",
    '10.0.0.1 - - [99/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 12',
    '10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 twelve',
]


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `dev`, its control's address, and a folder for the importer's own files."""

    server: Server
    control: str
    folder: Path

    async def load(self, log: Path, *flags: str) -> Finished:
        """Import a log."""
        return await tallygate(*self.command(log, *flags))

    def command(self, log: Path, *flags: str) -> list[object]:
        """Return the words of an import."""
        where = ["--grpc-address", self.server.address, "--data-dir", self.folder]
        return ["import", "access-log", log, *where, "--json", *flags]

    async def usage(self) -> dict[str, tuple[int, int]]:
        """Return events and sum by meter, as `usage` shows them."""
        finished = await tallygate("usage", "--json", "--control-address", self.control)
        assert finished.code == 0, finished.err
        return access_logs.totals_of(finished.json())

    async def settled(self, events: int) -> None:
        """Wait until nothing awaits the ledger, and so many events were persisted."""

        async def idle() -> bool:
            metric = self.server.metric
            return (
                await metric("tallygate_events_persisted_total") >= events
                and await metric("tallygate_ingest_lag_seconds") == 0
                and await metric("tallygate_completeness_ratio") == 1
            )

        await eventually(idle, SETTLE_S, what=f"{events} events in the ledger")

    @property
    def progress(self) -> Path:
        """The one progress file."""
        (found,) = (self.folder / "imports").glob("*.json")
        return found

    def confirmed_lines(self) -> int:
        """Return how many lines the progress file says are confirmed, 0 where there is none."""
        found = [*(self.folder / "imports").glob("*.json")]
        return int(json.loads(found[0].read_text())["lines"]) if found else 0


@pytest.fixture
async def dev(tmp_path: Path, redis_url: str, postgres_dsn: str) -> AsyncIterator[Dev]:
    """A `dev` on the suite's servers, so that a test can read the ledger itself."""
    async with site(
        tmp_path, redis_url=redis_url, postgres_dsn=postgres_dsn, counter_rebuild="none"
    ) as place:
        server, control = await place.dev()
        yield Dev(server, control, tmp_path / "importer")


@pytest.mark.slow
async def test_embedded_servers_keep_an_import(tmp_path: Path) -> None:
    """What was imported into `dev` on its own servers is there after a crash and a new start."""
    lines = access_logs.sample(LINES)
    expected = access_logs.counted(lines)
    log = access_logs.write(tmp_path / "access.log", lines)
    async with site(tmp_path) as place:
        server, control = await place.dev()
        dev = Dev(server, control, tmp_path / "importer")
        finished = await dev.load(log, "--shift-to-now")
        assert finished.code == 0, finished.err
        await dev.settled(expected.events)
        await server.process.kill()
        server, control = await place.dev()
        dev = Dev(server, control, tmp_path / "importer")
        assert await dev.usage() == expected.totals()
        assert await server.terminate() == 0


@pytest.mark.slow
async def test_counts_every_line_once(dev: Dev, tmp_path: Path) -> None:
    """Usage is what an independent count finds, also after a second run and one that forgot."""
    lines = access_logs.sample(LINES)
    expected = access_logs.counted(lines)
    log = access_logs.write(tmp_path / "access.log", lines)
    first = (await dev.load(log, "--shift-to-now")).figures("import")
    assert first["lines read"] == LINES
    assert first["events accepted"] == expected.events
    assert first["events known already"] == first["lines rejected"] == 0
    await dev.settled(expected.events)
    assert await dev.usage() == expected.totals()

    again = (await dev.load(log, "--shift-to-now")).figures("import")
    assert (again["lines read"], again["lines imported before"]) == (0, LINES)

    # Without its progress file a run shifts by another now, and names the same events.
    dev.progress.unlink()
    forgot = await dev.load(log, "--shift-to-now")
    figures = forgot.figures("import")
    assert forgot.code == 0
    assert (figures["events accepted"], figures["events known already"]) == (0, expected.events)
    await dev.settled(expected.events)
    assert await dev.usage() == expected.totals()
    finished = await tallygate(
        "usage", "--json", "--rows", 10_000, "--control-address", dev.control
    )
    tenants = {row["tenant"] for row in rows_of(finished, "usage")}
    assert len(tenants) == expected.clients


async def test_resumes_after_a_kill(dev: Dev, tmp_path: Path, postgres_dsn: str) -> None:
    """An import killed between two confirmations goes on from the last; the sums are the same."""
    lines = access_logs.sample(LINES)
    expected = access_logs.counted(lines)
    log = access_logs.write(tmp_path / "access.log", lines)
    async with started(*dev.command(log, "--shift-to-now")) as process:
        await eventually(dev.confirmed_lines, SETTLE_S, what="a first confirmation")
        process.send(signal.SIGKILL)
        assert await process.ended() == -signal.SIGKILL
    confirmed = dev.confirmed_lines()
    assert 0 < confirmed < LINES
    resumed = await dev.load(log, "--shift-to-now")
    figures = resumed.figures("import")
    assert figures["lines imported before"] == confirmed
    assert figures["lines read"] + figures["lines imported before"] == LINES
    await dev.settled(expected.events)
    assert await dev.usage() == expected.totals()
    assert await Ledger(postgres_dsn).count() == expected.events


async def test_grows_with_its_log(dev: Dev, tmp_path: Path) -> None:
    """Lines that were added to a log since are imported alone, by the same shift."""
    lines = access_logs.sample(60)
    log = access_logs.write(tmp_path / "access.log", lines[:40])
    await dev.load(log, "--shift-to-now")
    access_logs.write(log, lines)
    figures = (await dev.load(log, "--shift-to-now")).figures("import")
    assert (figures["lines imported before"], figures["lines read"]) == (40, 20)
    expected = access_logs.counted(lines)
    await dev.settled(expected.events)
    assert await dev.usage() == expected.totals()


async def test_lists_lines_that_are_not_usage(dev: Dev, tmp_path: Path) -> None:
    """Lines that are not NCSA are listed by number with a reason; the others are counted."""
    good = access_logs.sample(10)
    log = access_logs.write(tmp_path / "access.log", [*good[:5], *BAD_LINES, *good[5:]])
    finished = await dev.load(log, "--shift-to-now")
    assert finished.code == 0
    rejected = {row["line"]: row["reason"] for row in rows_of(finished, "rejected")}
    assert [*rejected] == [6, 7, 8]
    assert "NCSA" in rejected[6]
    assert "time" in rejected[7]
    assert "NCSA" in rejected[8]
    assert finished.figures("import")["lines rejected"] == len(BAD_LINES)
    expected = access_logs.counted(good)
    await dev.settled(expected.events)
    assert await dev.usage() == expected.totals()


async def test_old_lines_become_dead_letters(dev: Dev, tmp_path: Path, postgres_dsn: str) -> None:
    """Without a shift, lines of 2015 are refused with the reason, and kept as dead letters."""
    lines = access_logs.sample(8)
    expected = access_logs.counted(lines)
    log = access_logs.write(tmp_path / "access.log", lines)
    finished = await dev.load(log)
    assert finished.code == 0
    reasons = [row["reason"].partition(":")[0] for row in rows_of(finished, "rejected")]
    assert {*reasons} == {"EVENT_TIME_TOO_OLD"}
    assert finished.figures("import")["events accepted"] == 0
    ledger = Ledger(postgres_dsn)

    async def kept() -> bool:
        return (await ledger.dead_letters()).get("EVENT_TIME_TOO_OLD") == expected.events

    await eventually(kept, SETTLE_S, what="dead letters")
    assert await dev.usage() == {}


async def test_counts_a_rejected_line_once(dev: Dev, tmp_path: Path) -> None:
    """`lines rejected` counts lines, and lists each once, though a line makes two events."""
    lines = access_logs.sample(8)
    log = access_logs.write(tmp_path / "access.log", lines)
    finished = await dev.load(log)
    assert finished.figures("import")["lines rejected"] == len(lines)
    listed = Counter(row["line"] for row in rows_of(finished, "rejected"))
    assert listed == Counter(range(1, len(lines) + 1))
