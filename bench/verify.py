"""`make bench-verify`: how long it takes to hold a whole installation against its ledger.

Guarantees: what is timed is the product's own step on real Redis and Postgres, with counters that
were made from the same ledger; one that differs ends the run.
Refuses to know: load that goes on beside it.
"""

import argparse
import asyncio
import resource
import time

from bench.rebuild import SHARDS, Declared, filled
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.audit_usage import PostgresAuditSnapshots
from tallygate.adapters.redis.counter_reads import RedisCounterReads
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.commands.output import Sheet, show
from tallygate.flow.verify import Verify, VerifyParts
from tallygate.flow.verify_counters import CounterAudit, CounterParts


async def main(tenants: int, each: int) -> None:
    """Measure, then print one table."""
    async with filled(tenants, each) as there:
        await there.rebuild()
        counters = CounterAudit(
            CounterParts(
                reads=RedisCounterReads(there.client, SHARDS),
                stages=RedisCounterStages(there.client, SHARDS),
                snapshots=PostgresAuditSnapshots(there.postgres),
                declared=Declared(),
                clock=SystemClock(),
                shards=SHARDS,
            )
        )
        ledger = PostgresLedgerAudit(there.postgres)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        books = await Verify(VerifyParts(ledger)).run()
        between = time.perf_counter()
        counted = await counters.compare(None, lambda _: None)
        ended = time.perf_counter()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert books.clean, books.differences[:3]
        assert not counted.differences, counted.differences[:3]
    rows = [
        (f"rollups, keys, messages of {tenants * each:,} events", f"{between - started:.2f} s"),
        (f"{counted.compared:,} counters of {tenants:,} tenants", f"{ended - between:.2f} s"),
        ("memory that it took beyond what was there", f"{(after - before) / 1024:.0f} MiB"),
    ]
    show([Sheet("verify", ("what", "figure"), rows)], as_json=False)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--tenants", type=int, default=10_000)
    asked.add_argument("--events", type=int, default=10, help="of each tenant")
    options = asked.parse_args()
    asyncio.run(main(options.tenants, options.events))
