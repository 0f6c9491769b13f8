"""`make bench-sizing`: bytes and processor time of an event at each place, and what loads need.

Measured on servers of its own: Postgres with the product's own ingester, with and without a
destination; Redis by its own counting; the journal's file. Processor time of calls is taken from
the newest kept run of `make bench-peers`. Guarantees: with `--keep` the page has what this run has
measured, and nothing else. Refuses to know: arithmetic, which is in `bench/needs.py`.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg

from bench import lag, ledger_cost, redis_cost, scripts
from bench.needs import OUTAGE_S, RATES, TENANTS, Load, Unit, table
from tallygate.adapters.journal.files import DiskFiles
from tallygate.adapters.journal.journal import JournalOptions, open_journal
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.ids import SourceId
from tallygate.ports.journal import Entry, EntryKind
from tests.journal.parts import Heard

ROOT: Final = Path(__file__).parents[1]
KEPT: Final = ROOT / "bench" / "results" / "sizing.json"
PAGE: Final = ROOT / "docs" / "operating" / "sizing.md"
BEGIN, END = "<!-- sizing:begin -->", "<!-- sizing:end -->"
EVENTS: Final = 60_000
SYNC_S: Final = 60.0
DESTINATION: Final = (
    "insert into tallygate.destination (name, kind, url, types)"
    " values ('bench', 'webhook', 'http://127.0.0.1', array['usage.batch'])"
)
MINUTES: Final = (
    "select pg_total_relation_size('tallygate.usage_minute')"
    " / greatest(1, (select count(*) from tallygate.usage_minute))::float"
)


async def ledger(folder: Path, events: int) -> dict[str, float]:
    """Return what an event takes of Postgres, with a destination and without."""
    found: dict[str, float] = {}
    async with ledger_cost.servers(folder) as on:
        spent = await lag.emptied(on, events=events)
        sizes = await on.sizes()
        kept = ("events", "indexes of events", "keys of events", "index of keys")
        found["postgres_event"] = sum(sizes.get(name, 0) for name in kept) / events
        before = sizes.get("outbox and deliveries", 0)
        found["ingest_us"] = spent.own_s / events * 1e6
        admin = await asyncpg.connect(on.dsn)
        try:
            found["rollup_minute"] = await admin.fetchval(MINUTES)
            await admin.execute(DESTINATION)
        finally:
            await admin.close()
        told = await lag.emptied(on, events=events, first=50_000_000)
        after = (await on.sizes()).get("outbox and deliveries", 0)
        found["postgres_message"] = (after - before) / events
        found["postgres_us"] = told.postgres_s / events * 1e6
        found["postgres_log"] = told.wal_bytes / events
    return found


async def redis() -> dict[str, float]:
    """Return what Redis keeps of a tenant, an operation and a stream's entry."""
    async with redis_cost.server("--appendonly", "no") as costs:
        rows = {str(what): size for what, size in await scripts.stored(costs)}
    return {
        "redis_tenant": _bytes(rows, "a tenant, limits: 2"),
        "redis_operation": _bytes(rows, "a remembered operation, limits: 2"),
        # Under little load, where each entry is a call's: the most that one takes.
        "redis_entry": _bytes(rows, "an event in the stream, 1 at once"),
    }


def _bytes(rows: Mapping[str, Cell], what: str) -> float:
    size = rows[what]
    assert isinstance(size, int)
    return float(size)


async def journal(folder: Path, events: int) -> float:
    """Return the bytes that an event takes on a sidecar's disk until the ledger has it."""
    source = SourceId("bench.epoch")
    options = JournalOptions(10**9)
    async with AsyncExitStack() as stack:
        kept = await open_journal(DiskFiles(folder), options, Heard())
        stack.push_async_callback(kept.close)
        mark = 0
        for number in range(1, events + 1):
            entry = Entry(EntryKind.PLACED, lag.operation(number), number, source, number)
            mark = kept.append(entry)
            if number % 1_000 == 0:
                assert await kept.reached(mark, SYNC_S, synced=True)
        assert await kept.reached(mark, SYNC_S, synced=True)
    return _size(folder) / events


def _size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def calls() -> dict[str, float]:
    """Return the processor time of a call, of the newest kept run of `make bench-peers`."""
    newest = max(KEPT.parent.glob("20*.json"))
    busy = json.loads(newest.read_text())["busy"]["exact, native"]
    return {
        "serve_us": statistics.median(busy["cpu_us"]["values"]),
        "redis_us": statistics.median(busy["redis_us"]["values"]),
    }


async def measured(events: int) -> Unit:
    """Measure everything."""
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as name:
        folder = Path(name)
        places = {**await ledger(folder / "ledger", events), **await redis(), **calls()}
        places["journal_event"] = await journal(folder / "journal", events // 2)
    return Unit(**{each.name: round(places[each.name], 1) for each in fields(Unit)})


NAMES: Final = {
    "redis_tenant": "Redis: a tenant's counters, two limits, B",
    "redis_operation": "Redis: an operation that is remembered, with its share of the index, B",
    "redis_entry": "Redis: an event that waits in a stream, B",
    "postgres_event": "Postgres: an event, its key, their indexes, B",
    "postgres_message": "Postgres: its part of a message, for a destination of `usage.batch`, B",
    "postgres_log": "Postgres: write-ahead log, with such a destination, B",
    "rollup_minute": "Postgres: a row of the minutes' rollup, with its index, B",
    "journal_event": "journal: an event until the ledger has it, B",
    "serve_us": "processor time of `serve`, native transport, us",
    "redis_us": "processor time of Redis, us",
    "ingest_us": "processor time of `ingest`, us",
    "postgres_us": "processor time of Postgres, with such a destination, us",
}


def rendered(unit: Unit, taken: str) -> str:
    """Return the page's part: what one takes, and what loads need."""
    rows = [(NAMES[name], f"{value:,.1f}") for name, value in asdict(unit).items()]
    first, *others = table(unit, [Load(rate) for rate in RATES])
    return "\n".join(
        [
            f"Measured {taken} by `make bench-sizing`, {os.cpu_count()} cores:",
            "",
            *_markdown(("one of it", "takes"), rows),
            "",
            *_markdown(first, others),
        ]
    )


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def on_page(page: str, text: str) -> str:
    """Return the page with a text between its markers."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def kept() -> tuple[Unit, str]:
    """Return what is kept of the last run, and when it was."""
    found = json.loads(KEPT.read_text())
    return Unit(**found["unit"]), found["taken"]


def keep(unit: Unit) -> None:
    """Keep a run, and write it on the page."""
    taken = f"{datetime.now(UTC):%Y-%m-%d}"
    KEPT.write_text(json.dumps({"taken": taken, "unit": asdict(unit)}, indent=1) + "\n")
    PAGE.write_text(on_page(PAGE.read_text(), rendered(unit, taken)))


def main() -> None:
    """Measure, or take what is kept; then show what loads need."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--keep", action="store_true", help="keep it, and write the page")
    parser.add_argument("--per-s", type=float, action="append", help="measure nothing: a load")
    parser.add_argument("--tenants", type=int, default=TENANTS)
    parser.add_argument("--outage-s", type=float, default=OUTAGE_S)
    given = parser.parse_args()
    if given.per_s:
        unit, _ = kept()
        loads = [Load(rate, given.tenants, given.outage_s) for rate in given.per_s]
    else:
        unit = asyncio.run(measured(given.events))
        loads = [Load(rate) for rate in RATES]
        if given.keep:
            keep(unit)
    first, *others = table(unit, loads)
    show([Sheet("needs", first, others)], as_json=False)


if __name__ == "__main__":
    main()
