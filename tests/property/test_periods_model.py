"""Periods in Postgres are what they are in memory, whatever happens to them in whichever order.

The fake follows the domain's rules event by event, and hashes in Python; Postgres adds rollups up
and hashes in SQL. Both are driven alike, and compared to the digest.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tallygate.domain.errors import TallygateError
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, TenantId
from tallygate.domain.period import PeriodState
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, Billing, BillingKind, Calendar
from tallygate.ports.period import BillingPeriod, PeriodQuery
from tests.periods.world import (
    ACME,
    CALLS,
    EXACT,
    LEAST,
    MID_OCTOBER,
    OCTOBER,
    PEAK,
    REQUESTS,
    PeriodWorld,
    period_world,
    tenant,
)

STEPS = 60
METERS = (REQUESTS, PEAK, LEAST, CALLS, EXACT)
OTHER = TenantId("other")
WEEKLY = Calendar("Europe/Berlin", OCTOBER, billing=Billing(BillingKind.EVERY, 7 * DAY_US))


@dataclass(slots=True)
class Pair:
    """Two worlds that are driven alike."""

    real: PeriodWorld
    fake: PeriodWorld
    chance: random.Random
    stored: list[UsageEvent]
    now_us: int = MID_OCTOBER

    async def step(self) -> None:
        """Do one thing, at random, to both."""
        match self.chance.randrange(10):
            case 0 | 1 | 2 | 3 | 4:
                await self._store()
            case 5 | 6 | 7:
                self.now_us += self.chance.choice((HOUR_US, DAY_US, 3 * DAY_US, 9 * DAY_US))
                for on in (self.real, self.fake):
                    await on.run(self.now_us)
            case _:
                await self._order()

    async def _store(self) -> None:
        batch = [self._event() for _ in range(self.chance.randrange(1, 12))]
        if self.stored and self.chance.random() < 0.3:
            batch.append(self.chance.choice(self.stored))
        found = [await on.store(*batch) for on in (self.real, self.fake)]
        assert found[0].late == found[1].late
        self.stored += batch

    def _event(self) -> UsageEvent:
        back = self.chance.choice((1, DAY_US, 8 * DAY_US, 34 * DAY_US))
        at_us = self.now_us - self.chance.randrange(back)
        if self.chance.random() < 0.3:
            at_us -= at_us % DAY_US
        meter = self.chance.choice(METERS)
        fields = {"tenant_id": self.chance.choice((ACME, OTHER))}
        taken = [
            each
            for each in self.stored
            if each.meter == meter and each.tenant_id == fields["tenant_id"] and not each.refund_of
        ]
        if taken and self.chance.random() < 0.2:
            event = self.chance.choice(taken)
            refund = {"refund_of": EventId(event.event_id)}
            return self.real.event(event.event_time_us, -1, meter, **fields, **refund)
        return self.real.event(at_us, self.chance.randrange(1, 50), meter, **fields)

    async def _order(self) -> None:
        periods = await self.fake.reader.periods(PeriodQuery(limit=1_000))
        if not periods:
            return
        period = self.chance.choice(periods)
        reopens = period.state is PeriodState.CLOSED and self.chance.random() < 0.5
        outcomes = []
        for on in (self.real, self.fake):
            asked = on.asked(period.start_us, period.tenant_id)
            try:
                if reopens:
                    await on.desk.reopen(asked, self.now_us + DAY_US)
                else:
                    await on.desk.ask_close(asked, accept_missing=False)
                outcomes.append("done")
            except TallygateError as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1]

    async def compare(self) -> int:
        """Hold every period and revision of one against the other; return how many there are."""
        every = PeriodQuery(limit=1_000)
        periods = await self.real.reader.periods(every)
        assert periods == await self.fake.reader.periods(every)
        for period in periods:
            assert await self._told(self.real, period) == await self._told(self.fake, period)
        return sum(period.revision for period in periods)

    async def _told(self, on: PeriodWorld, period: BillingPeriod) -> Sequence[object]:
        place = (period.tenant_id, period.start_us)
        found: list[object] = [await on.reader.revisions(*place)]
        for number in range(1, period.revision + 1):
            found += await on.reader.totals(*place, number)
        late = await on.reader.adjustments(*place, period.revision)
        return [*found, sorted(late, key=str)]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_postgres_follows_the_rules(postgres_dsn: str, seed: int) -> None:
    """Sixty steps of storing, refunding, repeating, closing and reopening differ in nothing."""
    async with period_world(postgres_dsn) as real, period_world(None) as fake:
        pair = Pair(real, fake, random.Random(seed), [])
        for on in (real, fake):
            await on.declare([tenant(), tenant(WEEKLY, OTHER)])
            on.clock.us = pair.now_us
        for _ in range(STEPS):
            await pair.step()
        for _ in range(3):
            pair.now_us += 40 * DAY_US + MINUTE_US
            for on in (real, fake):
                await on.run(pair.now_us)
        assert await pair.compare() > 10
