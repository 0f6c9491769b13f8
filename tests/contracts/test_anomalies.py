"""What every `AnomalyStore` and `UsageHistory` promises, of the fake and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest

from tallygate.adapters.postgres.anomalies import PostgresAnomalies
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.anomaly import (
    Basis,
    Direction,
    Expected,
    Finding,
    Fit,
    Series,
    Tally,
    Track,
    Used,
)
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import HOUR_US
from tallygate.ports import LedgerBatch
from tallygate.ports.anomaly import Advanced, AnomalyBacklog, Discovered, SeriesKey
from tallygate.testing.anomaly import FakeAnomalies
from tallygate.testing.ledger import FakeLedger
from tests.servers import connection
from tests.usage_events import NOON_US, event

NOON = NOON_US // HOUR_US
NOWHERE = SeriesKey(TenantId(""), MeterName(""))
ACME = SeriesKey(TenantId("acme"), MeterName("requests"))
BYTES = SeriesKey(TenantId("acme"), MeterName("bytes"))
OTHER = SeriesKey(TenantId("other"), MeterName("requests"))


@dataclass(frozen=True, slots=True)
class Subject:
    """A store of anomalies beside a ledger."""

    store: FakeAnomalies | PostgresAnomalies
    ledger: FakeLedger | PostgresLedger
    dsn: str | None = None

    async def use(self, *events: UsageEvent) -> None:
        """Store usage."""
        await self.ledger.persist(LedgerBatch(events))

    async def want(self) -> None:
        """Have a destination want to be told."""
        if isinstance(self.ledger, FakeLedger):
            self.ledger.wanted.add("usage.anomaly")
            return
        assert self.dsn is not None
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.destination (name, kind, url, types)"
                " values ('hook', 'webhook', 'http://127.0.0.1', '{usage.anomaly}')"
            )

    async def messages(self) -> int:
        """Return how many messages there are."""
        if isinstance(self.store, FakeAnomalies):
            return len(self.store.messages)
        assert self.dsn is not None
        async with connection(self.dsn) as admin:
            return int(
                await admin.fetchval(
                    "select count(*) from tallygate.outbox where type = 'usage.anomaly'"
                )
            )


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the store's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of store, empty."""
    if dsn is None:
        fake = FakeLedger()
        yield Subject(FakeAnomalies(fake), fake)
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresAnomalies(postgres), PostgresLedger(postgres), dsn)
    await postgres.close()


def used(number: int, key: SeriesKey = ACME, hours: int = 0, amount: int = 1) -> UsageEvent:
    """Return usage so many hours from noon."""
    return event(
        number,
        tenant_id=key.tenant_id,
        meter=key.meter,
        amount=amount,
        event_time_us=NOON_US + hours * HOUR_US,
    )


def finding(hour: int = NOON, **fields: object) -> Finding:
    """Return a finding of an hour."""
    expected = Expected(Basis.SEASONAL, Fraction(2**70, 3), Fraction(7, 2), Fraction(5), -3, 2**70)
    found = Finding(hour, Used(2**75, 12), expected, Direction.HIGH)
    return replace(found, **fields)  # type: ignore[arg-type]  # fields by name


async def save(subject: Subject, advanced: Advanced, tell_from_hour: int = 0) -> int:
    """Save one series in a transaction of its own."""
    async with subject.store.due(advanced.series.next_hour, 10, 10) as due:
        return await due.save([advanced], tell_from_hour)


async def test_usage_is_discovered_in_pages(subject: Subject) -> None:
    """Tenants and meters come in order, each once, with when their usage began and ended."""
    await subject.use(used(1), used(2, hours=-50), used(3, hours=9), used(4, BYTES), used(5, OTHER))
    first = await subject.store.discover(NOWHERE, 2, NOON_US - HOUR_US)
    assert first == [
        Discovered(BYTES, known=False, first_us=NOON_US, last_us=NOON_US),
        Discovered(ACME, known=False, first_us=NOON_US, last_us=NOON_US + 9 * HOUR_US),
    ]
    assert await subject.store.begin({ACME: NOON}) == 1
    (last,) = await subject.store.discover(ACME, 2, NOON_US + HOUR_US)
    assert last == Discovered(OTHER, known=False, first_us=None, last_us=NOON_US)
    assert [each.known for each in await subject.store.discover(BYTES, 1, 0)] == [True]
    assert await subject.store.discover(OTHER, 2, 0) == []


async def test_a_series_begins_once(subject: Subject) -> None:
    """What is known is not begun again; the backlog is that of who is furthest behind."""
    assert await subject.store.backlog() == AnomalyBacklog(0, 0)
    assert await subject.store.begin({ACME: NOON, OTHER: NOON + 3}) == 2
    assert await subject.store.begin({ACME: NOON - 9, BYTES: NOON + 1}) == 1
    assert await subject.store.begin({}) == 0
    assert await subject.store.backlog() == AnomalyBacklog(3, NOON)


async def test_series_are_lent_with_their_usage(subject: Subject) -> None:
    """Those furthest behind come first, with the hours of their own stretch and no others."""
    await subject.use(
        *(used(number + 10, hours=number) for number in range(-2, 9)),
        used(30, OTHER, hours=1, amount=7),
        event(31, amount=-1, refund_of=EventId("event-10"), event_time_us=NOON_US),
    )
    await subject.store.begin({ACME: NOON, OTHER: NOON - 1, BYTES: NOON + 5})
    async with subject.store.due(NOON + 5, 10, 3) as due:
        assert [each.key for each in due.series] == [OTHER, ACME]
        assert due.series[0].usage == {NOON + 1: Used(7, 1)}
        assert due.series[1].usage == {
            NOON: Used(0, 1),
            NOON + 1: Used(1, 1),
            NOON + 2: Used(1, 1),
        }
        assert due.series[1].series == Series(NOON)
    async with subject.store.due(NOON + 5, 1, 3) as due:
        assert [each.key for each in due.series] == [OTHER]


async def test_what_was_learned_is_kept(subject: Subject) -> None:
    """Numbers of any size come back as they were, and so do hours that were looked at."""
    await subject.use(used(1, hours=-2), used(2))
    await subject.store.begin({ACME: NOON})
    tally = Track(7, Tally(168, 167, 3, -(2**100), 2**200), Tally.of(5, 1))
    fit = Track(8, Fit(2**90, -1, 3, 4), Fit())
    series = Series(NOON + 1, (Used(4, 2), Used(-1, 0), Used()), tally, fit, fit)
    changed = {0: tally, 167: Track(1, Tally(), Tally())}
    assert await save(subject, Advanced(ACME, series, changed, ())) == 0
    await save(subject, Advanced(ACME, series, {3: tally, 0: changed[167]}, ()))
    async with subject.store.due(NOON + 2, 10, 10) as due:
        (found,) = due.series
    assert found.series == series
    assert found.season == {0: changed[167], 3: tally, 167: changed[167]}
    # From the first hour that was looked at once on.
    assert found.usage == {NOON - 2: Used(1, 1), NOON: Used(1, 1)}


async def test_an_anomaly_is_noted_and_told_once(subject: Subject) -> None:
    """The same hour comes again in vain, in one run or later; one long past is not told."""
    await subject.want()
    await subject.store.begin({ACME: NOON})
    both = (finding(), finding(late=True), finding(NOON - 9))
    series = Series(NOON + 1)
    assert await save(subject, Advanced(ACME, series, {}, both), NOON - 5) == 2
    assert await save(subject, Advanced(ACME, series, {}, both), NOON - 5) == 0
    assert await subject.messages() == 1
    told = await subject.store.told(ACME.tenant_id, None, 0, NOON_US + 1)
    assert told == {(ACME.meter, NOON), (ACME.meter, NOON - 9)}
    assert await subject.store.told(ACME.tenant_id, ACME.meter, 0, NOON_US) == {
        (ACME.meter, NOON - 9)
    }
    assert await subject.store.told(ACME.tenant_id, BYTES.meter, 0, NOON_US + 1) == set()


async def test_nobody_is_told_who_does_not_want_to_be(subject: Subject) -> None:
    """Without a destination an anomaly is noted, and no message is written."""
    await subject.store.begin({ACME: NOON})
    assert await save(subject, Advanced(ACME, Series(NOON + 1), {}, (finding(),))) == 1
    assert await subject.messages() == 0


async def test_what_fails_is_not_kept(subject: Subject) -> None:
    """A run that breaks off leaves the series due as they were."""
    await subject.store.begin({ACME: NOON})
    series = Series(NOON + 1)

    async def breaks() -> None:
        async with subject.store.due(NOON + 1, 10, 10) as due:
            await due.save([Advanced(due.series[0].key, series, {}, ())], 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await breaks()
    async with subject.store.due(NOON + 1, 10, 10) as due:
        assert [each.series for each in due.series] == [Series(NOON)]


async def test_a_silent_series_is_forgotten(subject: Subject) -> None:
    """It is gone with its hours of the week, and can begin again."""
    await subject.store.begin({ACME: NOON})
    silent = Track(2, Tally(168), Tally(168))
    series = Series(NOON + 1, rolling=silent)
    assert series.forgotten
    await save(subject, Advanced(ACME, series, {5: silent}, ()))
    assert await subject.store.backlog() == AnomalyBacklog(0, 0)
    await subject.store.begin({ACME: NOON})
    async with subject.store.due(NOON + 1, 10, 10) as due:
        assert due.series[0].season == {}


async def test_two_who_look_share_the_series(subject: Subject) -> None:
    """What one has been lent, another finds done or does not find."""
    await subject.store.begin({ACME: NOON, OTHER: NOON, BYTES: NOON})

    async def look() -> list[SeriesKey]:
        async with subject.store.due(NOON + 1, 2, 10) as due:
            mine = [each.key for each in due.series]
            await asyncio.sleep(0)
            await due.save([Advanced(key, Series(NOON + 1), {}, ()) for key in mine], 0)
            return mine

    rounds = await asyncio.gather(look(), look(), look())
    keys = [key for each in rounds for key in each] + await look()
    assert sorted(keys) == [BYTES, ACME, OTHER]


async def test_history_is_read_meter_after_meter(subject: Subject) -> None:
    """Hours with usage come in order, of one meter or of all, within the stretch alone."""
    await subject.use(used(1, hours=2), used(2, amount=5), used(3, BYTES), used(4, OTHER))
    rows = subject.store.hours(ACME.tenant_id, None, NOON_US, NOON_US + 2 * HOUR_US)
    assert [each async for each in rows] == [
        (BYTES.meter, NOON, Used(1, 1)),
        (ACME.meter, NOON, Used(5, 1)),
    ]
    rows = subject.store.hours(ACME.tenant_id, ACME.meter, 0, NOON_US + 3 * HOUR_US)
    assert [hour async for _, hour, _ in rows] == [NOON, NOON + 2]
