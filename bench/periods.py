"""`python -m bench.periods`: how long a large period takes to close, and late events to be placed.

Guarantees: events are stored, sealed, hashed, folded and computed anew by the product's own code on
a real Postgres that syncs; a period that does not come out as it was frozen ends the run.
Refuses to know: load that goes on beside it.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import migrate
from tallygate.adapters.postgres.period_folds import PostgresPeriodFolds
from tallygate.adapters.postgres.period_ledger import PostgresPeriodLedger
from tallygate.adapters.postgres.period_reader import PostgresPeriodReader
from tallygate.adapters.postgres.pool import Postgres
from tallygate.commands.output import Sheet, show
from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName
from tallygate.domain.period import GRACE_US, PeriodState
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.ports import CatalogChange, LedgerBatch
from tests.periods.world import ACME, NOVEMBER, OCTOBER, SetArrivals, VirtualClock
from tests.usage_events import event

BATCH: Final = 5_000
LATE: Final = 10_000
LATE_BATCH: Final = 1_000
PLAIN: Final = (
    Meter(MeterName("requests")),
    Meter(MeterName("calls"), Aggregation.COUNT),
    Meter(MeterName("peak"), Aggregation.MAX),
)
FOLDED: Final = (
    Meter(MeterName("seats"), Aggregation.LATEST),
    Meter(MeterName("latency"), Aggregation.PERCENTILE),
    Meter(MeterName("disk"), Aggregation.TIME_WEIGHTED),
    Meter(MeterName("grouped"), group_by=("path",)),
)


class RealClock(VirtualClock):
    """A calendar that is set, and seconds that pass."""

    def monotonic(self) -> float:
        """Return the machine's seconds."""
        return time.monotonic()


def events(
    first: int, number: int, meters: tuple[Meter, ...], from_us: int
) -> Iterator[UsageEvent]:
    """Iterate over so many events, a minute's or so of each batch after the other."""
    step_us = (NOVEMBER - OCTOBER) // max(number, 1)
    for at in range(number):
        yield event(
            first + at,
            event_id=EventId(f"e{first + at:09}"),
            meter=meters[at % len(meters)].name,
            amount=1 + at % 7,
            event_time_us=from_us + at * step_us,
            received_at_us=from_us + at * step_us,
        )


async def store(ledger: PostgresLedger, found: Iterator[UsageEvent], batch: int) -> float:
    """Store events, so many in a transaction; return the seconds that storing took."""
    took_s = 0.0
    rows: list[UsageEvent] = []
    for each in found:
        rows.append(each)
        if len(rows) == batch:
            began_s = time.monotonic()
            await ledger.persist(LedgerBatch(tuple(rows)))
            took_s += time.monotonic() - began_s
            rows.clear()
    if rows:
        began_s = time.monotonic()
        await ledger.persist(LedgerBatch(tuple(rows)))
        took_s += time.monotonic() - began_s
    return took_s


async def measured(dsn: str, number: int, meters: tuple[Meter, ...]) -> list[tuple[str, str]]:
    """Store, close, compute anew, and come late; return what there is to say."""
    postgres, clock = Postgres(dsn), RealClock(OCTOBER)
    ledger, catalogs = PostgresLedger(postgres), PostgresCatalogStore(postgres)
    periods, reader = PostgresPeriodLedger(postgres), PostgresPeriodReader(postgres)
    folds = PostgresPeriodFolds(postgres)
    catalog = Catalog(meters={each.name: each for each in meters})
    await catalogs.write(CatalogChange(catalog, (), "", OCTOBER - 1), 0)
    parts = ClosingParts(periods, reader, catalogs, SetArrivals(), clock, folds)
    closing = ClosePeriods(parts, ClosingOptions("bench", correction_delay_s=0.0))
    stored_s = await store(ledger, events(0, number, meters, OCTOBER), BATCH)
    clock.us = OCTOBER
    await closing.run_once()
    clock.us = NOVEMBER + GRACE_US
    began_s = time.monotonic()
    state = PeriodState.OPEN
    while state is not PeriodState.CLOSED:
        await closing.run_once()
        period = await reader.period(ACME, OCTOBER)
        assert period is not None
        assert period.held is None, period
        state = period.state
    closed_s = time.monotonic() - began_s
    began_s = time.monotonic()
    found = [each async for each in VerifyPeriods(reader, periods, folds).run(ACME, OCTOBER)]
    verified_s = time.monotonic() - began_s
    assert [(each.differs, each.events) for each in found] == [((), number)], found
    # One of two came too late for what is closed.
    late = (
        each
        for pair in zip(
            events(number, LATE // 2, meters, OCTOBER),
            events(number + LATE, LATE // 2, meters, NOVEMBER),
            strict=True,
        )
        for each in pair
    )
    late_s = await store(ledger, late, LATE_BATCH)
    async with postgres.connection() as connection:
        placed = await connection.fetchval("select count(*) from tallygate.late_event")
    assert placed == LATE // 2, placed
    await postgres.close()
    return [
        ("events, meters", f"{number:,} of {', '.join(each.name for each in meters)}"),
        ("stored", f"{number / stored_s:,.0f} events/s, in {stored_s:.0f} s"),
        ("sealed, hashed, folded and closed", f"{closed_s:.1f} s"),
        ("computed anew from the ledger, the same", f"{verified_s:.1f} s"),
        (f"{LATE:,} late events stored, {placed:,} placed", f"{late_s:.2f} s"),
    ]


async def main(number: int, meters: tuple[Meter, ...]) -> None:
    """Measure, then print one table."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedPostgres(Path(folder)) as server:
            await migrate(server.dsn)
            rows = await measured(server.dsn, number, meters)
    show([Sheet("periods", ("what", "figure"), rows)], as_json=False)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--events", type=int, default=500_000)
    asked.add_argument("--folded", action="store_true", help="meters that take more than figures")
    options = asked.parse_args()
    asyncio.run(main(options.events, FOLDED if options.folded else PLAIN))
