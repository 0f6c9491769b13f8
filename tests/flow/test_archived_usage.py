"""What is worked out of events refuses months whose events were dropped, and rollups stay."""

import pytest

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.compared_usage import PostgresComparedUsage
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.period_usage import PostgresPeriodUsage
from tallygate.adapters.postgres.reconcile import PostgresReconcileReads
from tallygate.adapters.postgres.usage_replay import PostgresMeterEvents
from tallygate.domain.catalog import Aggregation, Catalog, Meter, Tenant
from tallygate.domain.errors import RollupsIncomplete
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Selection
from tallygate.domain.reconcile import Figure, Step, Verdict
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Calendar, Period, Window, window_at
from tallygate.domain.windows import Sessions
from tallygate.flow.reconcile import LedgerFigures, Reconcile, ReconcileParts
from tallygate.flow.remake import KeepRollups
from tallygate.flow.usage_windows import UsageAsk, UsageWindows
from tallygate.ports import CatalogChange
from tallygate.ports.billing import UsageAsked
from tallygate.ports.compare import OurUsage
from tallygate.ports.export import EventsArchived
from tallygate.ports.reconcile import PeriodAsked
from tests.flow.retention_parts import OLD_US, YOUNG_US, Parts, parts
from tests.usage_events import event

__all__ = ["parts"]

ACME, REQUESTS, SEATS = TenantId("acme"), MeterName("requests"), MeterName("seats")
OLD = Window(OLD_US - OLD_US % MINUTE_US, OLD_US - OLD_US % MINUTE_US + HOUR_US)
FEBRUARY = window_at(Period.MONTH, Calendar(), OLD_US)


async def declare(parts: Parts, *meters: Meter) -> KeepRollups:
    """Have meters in effect; return what keeps their rollups."""
    store = PostgresCatalogStore(parts.postgres)
    catalog = Catalog(meters={each.name: each for each in meters})
    await store.write(CatalogChange(catalog), (await store.newest()).version)
    return KeepRollups(PostgresRollups(parts.postgres), store, parts)


async def drop(parts: Parts) -> None:
    """Archive and drop what is old."""
    await parts.archived()
    assert [each.refused for each in await parts.dropped()] == ["", ""]


async def test_what_reads_events_refuses(parts: Parts) -> None:
    """Sessions, prices for some events, and a comparison by id: typed, with the archive's name."""
    await declare(parts, Meter(REQUESTS))
    await drop(parts)
    events, store = PostgresMeterEvents(parts.postgres), PostgresCatalogStore(parts.postgres)
    usage = UsageWindows(PostgresPeriodUsage(parts.postgres), events, store, parts)
    with pytest.raises(EventsArchived, match="2024-02 in "):
        await usage.page(UsageAsk(ACME, REQUESTS, OLD, Sessions(HOUR_US)), 10)
    billed = PostgresBilledUsage(parts.postgres)
    for aggregation, per, window in (
        (Aggregation.SUM, "region", OLD),
        (Aggregation.UNIQUE, "", OLD),
        (Aggregation.SUM, "", Window(OLD.start_us + 1, OLD.end_us)),
    ):
        of = Selection(REQUESTS, aggregation, per=per, unique_by="user")
        asked = UsageAsked(0, of, window)
        with pytest.raises(EventsArchived):
            await billed.billed(ACME, [asked])
    asked_of = OurUsage(FEBRUARY.start_us, FEBRUARY.end_us)
    with pytest.raises(EventsArchived):
        [each async for each in PostgresComparedUsage(parts.postgres).events(asked_of)]
    # What rollups say they say for ever, and of young months all goes on.
    page = await usage.page(UsageAsk(ACME, REQUESTS, OLD), 10)
    assert [each.quantity for each in page.rows] == [5]
    young = Window(YOUNG_US, YOUNG_US + HOUR_US)
    page = await usage.page(UsageAsk(ACME, REQUESTS, young, Sessions(HOUR_US)), 10)
    assert [each.quantity for each in page.rows] == [1]


async def test_rollups_of_groups_outlive_their_events(parts: Parts) -> None:
    """Verification leaves out what it cannot hold them against; to make them anew is refused."""
    seats = Meter(SEATS, Aggregation.UNIQUE, unique_by="user", group_by=("region",))
    keep = await declare(parts, seats)
    await keep.run_once()
    await parts.persist(
        event(10, meter=SEATS, event_time_us=OLD_US, dimensions={"user": "a", "region": "eu"}),
        event(11, meter=SEATS, event_time_us=OLD_US + 1, dimensions={"user": "b", "region": "eu"}),
        event(12, meter=SEATS, event_time_us=YOUNG_US, dimensions={"user": "c", "region": "us"}),
    )
    assert (await parts.verify()).clean
    await drop(parts)
    assert (await parts.verify()).clean
    with pytest.raises(EventsArchived):
        await keep.rebuild(SEATS, Window(FEBRUARY.start_us, FEBRUARY.start_us + 30 * DAY_US))
    await keep.rebuild(SEATS)
    assert (await parts.verify()).clean
    usage = PostgresPeriodUsage(parts.postgres)
    (found,) = await usage.of_windows(ACME, seats, [FEBRUARY])
    assert found.quantity == 2


async def test_a_shape_that_came_too_late_is_refused(parts: Parts) -> None:
    """Groups that were declared after a month was dropped lack it, and never pass for whole."""
    await drop(parts)
    grouped = Meter(REQUESTS, group_by=("region",))
    keep = await declare(parts, grouped)
    while (await keep.run_once()).more:
        pass
    usage = PostgresPeriodUsage(parts.postgres)
    october = window_at(Period.MONTH, Calendar(), YOUNG_US)
    found = await usage.of_windows(ACME, grouped, [october], ["region"])
    assert [each.quantity for each in found] == [1]
    with pytest.raises(RollupsIncomplete):
        await usage.of_windows(ACME, grouped, [FEBRUARY], ["region"])


async def test_reconciliation_counts_the_archive(parts: Parts) -> None:
    """A whole month agrees with its rollup by its archive; one unit off is found."""
    store = PostgresCatalogStore(parts.postgres)
    await declare(parts, Meter(REQUESTS))
    await drop(parts)
    reads = PostgresReconcileReads(parts.postgres)
    reconcile = Reconcile(
        ReconcileParts([LedgerFigures(reads, store, parts)], store, parts, no_wait)
    )
    asked = [PeriodAsked(Tenant(ACME, PlanName("p")), FEBRUARY)]
    (result,) = await reconcile.of(asked)
    figures = [each.figure for each in result.readings]
    assert result.verdict is Verdict.EXACT
    assert [int(each.units) for each in figures if isinstance(each, Figure)] == [5, 5]
    await parts.execute(
        "update tallygate.usage_minute set sum = sum + 1 where bucket = '2024-02-15T12:00Z'"
    )
    (result,) = await reconcile.of(asked)
    assert [(each.step, int(each.units)) for each in result.drifts] == [(Step.ROLLUP, 1)]


async def no_wait(_seconds: float) -> None:
    """Go on at once."""
