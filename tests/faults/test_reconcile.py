"""On a live system every step agrees with the ledger to the unit, and one unit off is found."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.adapters.postgres.audit_usage import PostgresAuditSnapshots
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.corrections import PostgresCorrections
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.rebuild_ledger import PostgresRebuildLedger
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads
from tallygate.adapters.redis.counter_reads import RedisCounterReads
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.domain.ids import SourceId, TenantId, shard_of
from tallygate.domain.reconcile import Absent, Drift, Figure, Reconciled, Step, Verdict
from tallygate.flow.apply import Apply, ApplyOptions
from tallygate.flow.correct import Correct, CorrectOptions, CorrectParts
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts
from tallygate.flow.reconcile_counters import PARENT, YOUNG, CounterFigures
from tallygate.flow.verify_counters import CounterAudit, CounterParts
from tallygate.ports.repair import Outcome
from tallygate.wiring.declared import Declarations
from tallygate.wiring.repairing import repairs_of
from tests.builders import SHARDS
from tests.faults.test_verify_counters import EVERY, TENANTS, System, no_wait
from tests.faults.world import SystemClock
from tests.live import document, live, monthly
from tests.servers import connection

LONE = TenantId("lone")


@dataclass(frozen=True, slots=True)
class Books:
    """A sidecar under load, an ingester, and what reconciles them."""

    system: System
    reconcile: Reconcile
    dsn: str

    async def of(self, *tenants: str) -> list[Reconciled]:
        """Reconcile tenants' current and last periods."""
        asked = [TenantId(each) for each in tenants or ("lone",)]
        return await self.reconcile.of(await self.reconcile.periods(asked))


@pytest.fixture
async def books(redis_url: str, postgres_dsn: str) -> AsyncIterator[Books]:
    """A family of two tenants and a third, with a monthly limit, which is their billing period."""
    text = document(plans={"every": {"limits": list(EVERY)}}, tenants=TENANTS)
    postgres = Postgres(postgres_dsn)
    store = PostgresCatalogStore(postgres)
    await Apply(store, YamlCatalogDocuments(), SystemClock()).document(text, ApplyOptions())
    async with live(redis_url, text) as on:
        declared = Declarations(store, None)
        parts = CounterParts(
            reads=RedisCounterReads(on.redis, SHARDS),
            stages=RedisCounterStages(on.redis, SHARDS),
            snapshots=PostgresAuditSnapshots(postgres),
            declared=declared,
            clock=SystemClock(),
            shards=SHARDS,
        )
        sources = (
            CounterFigures(parts, store),
            LedgerFigures(PostgresReconcileReads(postgres), declared, SystemClock()),
        )
        reconcile = Reconcile(ReconcileParts(sources, declared, SystemClock(), no_wait))
        system = System(on, on.redis, postgres, CounterAudit(parts))
        yield Books(system, reconcile, postgres_dsn)
    await postgres.close()


def figure(result: Reconciled, step: Step) -> Figure | Absent:
    """Return what a step has."""
    (found,) = [each.figure for each in result.readings if each.step is step]
    return found


def units(results: Sequence[Reconciled], step: Step) -> list[int]:
    """Return the units that a step has of each pair."""
    figures = [figure(each, step) for each in results]
    return [int(each.units) for each in figures if isinstance(each, Figure)]


async def test_all_that_is_in_flight_is_said(books: Books) -> None:
    """Nothing ingested, some, all: counter and ledger agree but for what is on its way."""
    await books.system.use(60)
    (result,) = await books.of()
    assert (result.verdict, units([result], Step.LEDGER)) == (Verdict.IN_FLIGHT, [0])
    assert units([result], Step.COUNTER)[0] > 0
    await books.system.ingest()
    (result,) = await books.of()
    assert result.verdict is Verdict.IN_FLIGHT
    await books.system.drain()
    (result,) = await books.of()
    assert result.verdict is Verdict.EXACT
    assert units([result], Step.COUNTER) == units([result], Step.LEDGER)
    assert units([result], Step.ROLLUP) == units([result], Step.LEDGER)


async def test_under_load_nothing_drifts(books: Books) -> None:
    """While calls and ingest go on, no look finds a drift, though figures are read in turn."""
    system = books.system

    async def load() -> None:
        while not system.stopped:
            await system.call()
            await system.ingest()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(load())
        for _ in range(4):
            before = system.number
            while system.number < before + 15:
                await asyncio.sleep(0)
            found = await books.of("lone", "team", "org")
            assert {each.verdict for each in found} <= {Verdict.EXACT, Verdict.IN_FLIGHT}
        system.stopped = True
        await task


@pytest.mark.parametrize("off", [1, -1])
async def test_a_unit_in_a_counter_is_found(books: Books, off: int) -> None:
    """The counter is named, with the correction that makes it whole; nobody else is."""
    system = books.system
    await system.use(40)
    at, amount, mark = (await system.stored("lone", "monthly/month")).split(":")
    await system.plant("lone", "monthly/month", f"{at}:{int(amount) + off}:{mark}")
    (result,) = await books.of()
    assert result.verdict is Verdict.DRIFT
    assert result.drifts == (Drift(Step.COUNTER, "", result.drifts[0].units),)
    assert [(each.remedy.value, int(each.units)) for each in result.repairs] == [
        ("counter correction", -off)
    ]
    await system.drain()
    assert [each.units for each in (await books.of())[0].drifts] == [off]


async def test_a_unit_in_a_rollup_is_found(books: Books) -> None:
    """Of a minute that is off by one, the rollup is named, and counter and ledger are not."""
    await books.system.use(40)
    await books.system.drain()
    async with connection(books.dsn) as admin:
        await admin.execute(
            "update tallygate.usage_minute set sum = sum + 1 where (tenant_id, bucket) ="
            " (select tenant_id, bucket from tallygate.usage_minute where tenant_id = 'lone'"
            " limit 1)"
        )
    (result,) = await books.of()
    assert [(each.step, int(each.units)) for each in result.drifts] == [(Step.ROLLUP, 1)]
    assert [each.remedy.value for each in result.repairs] == ["rollup recompute"]


async def test_what_a_reset_has_forgotten_stands_aside(books: Books) -> None:
    """After a reset the counter has what was used since, and that is no drift."""
    system = books.system
    await system.use(40)
    await system.drain()
    at, amount, mark = (await system.stored("lone", "monthly/month")).split(":")
    # What reservations hold stays.
    held = int(amount) - units(await books.of(), Step.COUNTER)[0]
    async with connection(books.dsn) as admin:
        await admin.execute(
            "insert into tallygate.limit_reset (tenant_id, operation_id, limit_id, scope,"
            " used_before, used_after, reason, actor, reset_at)"
            " values ('lone', 'op', 'monthly', '', 1, 0, 'a test', 'somebody', clock_timestamp())"
        )
    await system.plant("lone", "monthly/month", f"{at}:{held}:{mark}")
    (result,) = await books.of()
    counter = figure(result, Step.COUNTER)
    assert isinstance(counter, Figure)
    assert (result.verdict, int(counter.units)) == (Verdict.EXACT, 0)
    assert counter.aside == units([result], Step.LEDGER)[0] > 0


async def test_a_parents_counter_is_not_its_own_usage(books: Books) -> None:
    """Of who has tenants below it the counter is left out, and said to be."""
    await books.system.use(40)
    await books.system.drain()
    for result in await books.of("org"):
        assert (figure(result, Step.COUNTER), result.verdict) == (PARENT, Verdict.EXACT)
    (team,) = await books.of("team")
    assert units([team], Step.COUNTER) == units([team], Step.LEDGER)


async def test_a_limit_younger_than_the_period_is_left_out(books: Books) -> None:
    """A limit that came in the middle of the period has not counted all of it."""
    text = document(plans={"every": {"limits": [EVERY[1]]}}, tenants=TENANTS)
    await books.system.apply(text)
    await books.system.use(40)
    await books.system.apply(document(plans={"every": {"limits": list(EVERY)}}, tenants=TENANTS))
    await books.system.use(5)
    await books.system.drain()
    (result,) = await books.of()
    assert (figure(result, Step.COUNTER), result.verdict) == (YOUNG, Verdict.EXACT)


async def test_counters_that_are_rebuilt_are_not_known(books: Books) -> None:
    """Nobody takes the silence of a shut shard for a proof."""
    await books.system.use(20)
    await books.system.drain()
    shard = shard_of(LONE, SHARDS)
    stages = RedisCounterStages(books.system.redis, SHARDS)
    await stages.renew(shard, await books.system.epoch(shard))
    (result,) = await books.of()
    assert result.verdict is Verdict.UNKNOWN


async def test_a_weekly_limit_counts_no_billing_period(books: Books) -> None:
    """Where no limit has the period's bounds, ledger and rollup are held against each other."""
    weekly = monthly(1_000, period="week")
    await books.system.apply(document(plans={"every": {"limits": [weekly]}}, tenants=TENANTS))
    await books.system.use(20)
    await books.system.drain()
    (result,) = await books.of()
    assert isinstance(figure(result, Step.COUNTER), Absent)
    assert result.verdict is Verdict.EXACT


@pytest.mark.parametrize("off", [3, -3])
async def test_a_counter_is_repaired_by_a_correction(books: Books, off: int) -> None:
    """What it is due is noted once and given to it; the next look finds everything exact."""
    system = books.system
    alone = document(plans={"every": {"limits": [EVERY[0]]}}, tenants=TENANTS)
    await system.apply(alone)
    await system.use(40)
    await system.drain()
    at, amount, mark = (await system.stored("lone", "monthly/month")).split(":")
    await system.plant("lone", "monthly/month", f"{at}:{int(amount) + off}:{mark}")
    shard = shard_of(LONE, SHARDS)
    async with connection(books.dsn) as admin:
        await admin.execute(
            "insert into tallygate.counter_epoch (shard, epoch) values ($1, $2)",
            *(shard, await system.epoch(shard)),
        )
    repairs = repairs_of(system.postgres, SystemClock(), SHARDS)
    for apply, outcome in (
        (False, Outcome.WOULD),
        (True, Outcome.DONE),
        # It waits: the same is not noted twice.
        (True, Outcome.WOULD),
    ):
        (done,) = await repairs.run(await books.of(), apply=apply)
        assert (done.repair.step, int(done.repair.units), done.outcome) == (
            *(Step.COUNTER, -off),
            outcome,
        )
    assert await corrected(system) == 1
    (result,) = await books.of()
    assert (result.verdict, units([result], Step.COUNTER)) == (
        Verdict.EXACT,
        units([result], Step.LEDGER),
    )


async def test_a_counter_among_others_is_for_people(books: Books) -> None:
    """A correction would reach the counters of all limits, of which one alone is off."""
    system = books.system
    await system.use(40)
    await system.drain()
    at, amount, mark = (await system.stored("lone", "monthly/month")).split(":")
    await system.plant("lone", "monthly/month", f"{at}:{int(amount) + 1}:{mark}")
    repairs = repairs_of(system.postgres, SystemClock(), SHARDS)
    (done,) = await repairs.run(await books.of(), apply=True)
    assert (done.repair.step, done.outcome) == (Step.COUNTER, Outcome.BY_HAND)


async def corrected(system: System) -> int:
    """Give counters what they are due; return how many corrections were finished."""
    parts = CorrectParts(
        PostgresCorrections(system.postgres),
        PostgresRebuildLedger(system.postgres),
        RedisCounterStages(system.redis, SHARDS),
        RedisUsageStream(system.redis, StreamOptions(SHARDS, "corrector")),
        RedisQuotaStore(
            system.redis, StoreOptions(SourceId("corrector"), SHARDS, 600_000, opens_new=False)
        ),
        Declarations(PostgresCatalogStore(system.postgres), None),
        SystemClock(),
    )
    options = CorrectOptions("one", SHARDS, memory_s=600)
    return (await Correct(parts, options).run_once()).finished
