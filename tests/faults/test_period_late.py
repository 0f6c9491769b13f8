"""Late events of a closed period, corrections, a replay of an archived day: through the streams.

An invoice's snapshot stays as it was made; what came late goes where its meter says, once.
"""

from typing import Final

from tallygate.adapters.postgres.usage_replay import PostgresUsageReplay
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId
from tallygate.domain.period import GRACE_US, Held, PeriodKey, PeriodState
from tallygate.domain.window import HOUR_US
from tallygate.flow.arrivals import StreamArrivals
from tallygate.flow.close_period import ClosePeriods, ClosingOptions, ClosingParts
from tallygate.flow.completeness import SilentCompleteness
from tallygate.flow.verify_periods import VerifyPeriods
from tallygate.ports.replay import ReplayQuery
from tallygate.wiring.auditing import completeness_of
from tests.faults.test_postgres_late import drain
from tests.faults.world import SHARDS, World, world
from tests.periods.world import (
    ACME,
    DECEMBER,
    EXACT,
    MID_NOVEMBER,
    MID_OCTOBER,
    NOVEMBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    at,
    period_world,
    tenant,
)
from tests.usage_events import NOON_US

EVENTS: Final = 60
FAR_US: Final = at("2190-10-15")
FAR_END_US: Final = at("2190-11-01")


async def append(on: World, events: list[UsageEvent], source: str) -> None:
    """Append events to the first stream, as a source of its own would that numbers them from 1."""
    encoder = ProtobufEventEncoder()
    for number, each in enumerate(events, 1):
        await on.client.xadd(
            keys.stream(0),
            {"t": str(NOON_US), "s": source, "e": "e2", f"u{number}+1": encoder.encode([each])},
        )


def on_streams(on: World, periods: PeriodWorld) -> ClosePeriods:
    """Return what closes periods by what has really arrived."""
    completeness = completeness_of(on.postgres, on.client, SHARDS, SilentCompleteness())
    arrivals = StreamArrivals(on.stream("periods"), completeness)
    parts = ClosingParts(
        periods.periods,
        periods.reader,
        periods.catalogs,
        arrivals,
        periods.clock,
        periods.folds,
    )
    return ClosePeriods(parts, ClosingOptions("one", correction_delay_s=0.0))


def october(periods: PeriodWorld) -> list[UsageEvent]:
    """Return a day's events of three meters."""
    return [
        periods.event(MID_OCTOBER + number * HOUR_US // 10, number, meter)
        for number in range(1, EVENTS // 3 + 1)
        for meter in (REQUESTS, EXACT, PEAK)
    ]


async def test_late_events_after_the_close(redis_url: str, postgres_dsn: str) -> None:
    """The policy is applied, the closed revision stands, and a replay in the end adds nothing."""
    async with world(redis_url, postgres_dsn) as on, period_world(postgres_dsn) as periods:
        periods.closing = on_streams(on, periods)
        await periods.declare([tenant()])
        first = october(periods)
        await append(on, first, "one.e1")
        await drain(on)
        await periods.run(NOVEMBER)
        assert (await periods.run(NOVEMBER + GRACE_US)).closed == 1
        snapshot = await periods.reader.totals(ACME, OCTOBER, 1)
        told = await periods.messages()
        total = sum(range(1, EVENTS // 3 + 1))
        assert await periods.bill(OCTOBER) == {REQUESTS: total, EXACT: total, PEAK: 20}

        late = [
            periods.event(MID_OCTOBER, 7),
            periods.event(MID_OCTOBER, 5, EXACT),
            periods.event(MID_OCTOBER, 26, PEAK),
            periods.event(MID_OCTOBER, -2, refund_of=EventId("event-000001")),
            periods.event(MID_OCTOBER, -1, EXACT, refund_of=EventId("event-000005")),
            periods.event(MID_NOVEMBER, 9),
        ]
        await append(on, late, "two.e1")
        await drain(on)
        assert (await periods.run(NOVEMBER + GRACE_US)).closed == 1
        corrected = {REQUESTS: total, EXACT: total + 5 - 1, PEAK: 20}
        assert await periods.bill(OCTOBER, 2) == corrected
        assert await periods.reader.totals(ACME, OCTOBER, 1) == snapshot
        assert (await periods.messages())[: len(told)] == told

        # The archived day, from the ledger, handed in anew by two sources; and once more, late.
        replay = PostgresUsageReplay(on.postgres).events(ReplayQuery())
        read = [each async for page in replay for each in page if each.event_time_us < NOVEMBER]
        assert len(read) == EVENTS + 5
        links = [await periods.desk.late(PeriodKey(ACME, OCTOBER))]
        for source in ("archive.e1", "archive.e2"):
            await append(on, read, source)
            await drain(on)
        links.append(await periods.desk.late(PeriodKey(ACME, OCTOBER)))
        assert links[0] == links[1]
        assert sum(each.events for each in links[0]) == 5
        assert (await periods.run(NOVEMBER + GRACE_US)).sealed == 0

        assert (await periods.run(DECEMBER + GRACE_US)).closed == 1
        assert await periods.bill(NOVEMBER) == {REQUESTS: 9 + 7 - 2, PEAK: 6}
        verification = VerifyPeriods(periods.reader, periods.periods, periods.folds)
        found = [each async for each in verification.run(None, None)]
        assert [each.revision.number for each in found] == [1, 2, 1]
        assert not [each for each in found if each.differs]


async def test_what_lies_in_a_stream_holds_a_period(redis_url: str, postgres_dsn: str) -> None:
    """An entry that was accepted before the grace was over is waited for, and then billed."""
    async with world(redis_url, postgres_dsn) as on, period_world(postgres_dsn) as periods:
        periods.closing = on_streams(on, periods)
        await periods.declare([tenant()])
        # The streams' clock is the machine's, so that what is appended was accepted before.
        await append(on, [periods.event(FAR_US, 5)], "one.e1")
        await drain(on)
        await periods.run(FAR_US)
        await periods.run(FAR_END_US)
        await append(on, [periods.event(FAR_US, 1_000)], "two.e1")
        assert (await periods.run(FAR_END_US + GRACE_US)).held == 1
        first = (await periods.all())[0]
        assert (first.state, first.held) == (PeriodState.GRACE, Held.INGEST_LAG)
        await drain(on)
        assert (await periods.run(FAR_END_US + GRACE_US)).closed == 1
        assert await periods.bill(first.start_us) == {REQUESTS: 1_005}


async def test_a_number_that_is_nowhere_holds_a_period(redis_url: str, postgres_dsn: str) -> None:
    """An entry that somebody deleted from its stream is not passed over."""
    async with world(redis_url, postgres_dsn) as on, period_world(postgres_dsn) as periods:
        periods.closing = on_streams(on, periods)
        await periods.declare([tenant()])
        await append(on, [periods.event(MID_OCTOBER, 5)] * 3, "one.e1")
        entries = await on.client.xrange(keys.stream(0))
        assert entries
        entry = entries[0][0]
        assert isinstance(entry, bytes)
        await on.client.xdel(keys.stream(0), entry)
        await drain(on)
        await periods.run(NOVEMBER)
        assert (await periods.run(NOVEMBER + GRACE_US)).held == 1
        (held, _) = await periods.all()
        # Of an epoch that no counters are of any more, journals may still have it.
        assert held.held is Held.AWAITED
