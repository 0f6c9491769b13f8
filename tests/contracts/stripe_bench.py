"""Stores of intents and sends, as their contracts are tested on them, and builders of both."""

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.stripe_intent import (
    Intent,
    IntentKind,
    IntentPlace,
    SendState,
    identity,
)
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.ports import LedgerBatch
from tallygate.ports.stripe_store import (
    Claimed,
    Cut,
    GapQuery,
    SendResult,
    Source,
    StripeIntents,
    StripeSends,
    StripeUpkeep,
)
from tallygate.testing.stripe_rows import LateUse
from tallygate.testing.stripe_store import FakeStripeStore
from tests.servers import connection
from tests.usage_events import event

TENANT = TenantId("acme")
METER = MeterName("requests")
CUSTOMER = "cus_1"
# Midnight of 1 January 2026, UTC.
DAY = 20_454 * DAY_US
NOW_US = DAY + DAY_US


class Bench(Protocol):
    """A store under test, and what its contract needs beside it."""

    intents: StripeIntents
    sends: StripeSends
    upkeep: StripeUpkeep

    async def use(self, units: int, at_us: int) -> None:
        """Have usage there."""
        ...

    async def put_off(
        self, number: int, units: int, at_us: int, came_us: int, allocated_us: int
    ) -> None:
        """Have the usage of that number, which came then, be billed by a period that begins."""
        ...

    async def add_periods(self, *bounds_us: int) -> None:
        """Have the tenant have periods from each bound to the next."""
        ...

    async def end_leases(self) -> None:
        """Let every lease run out."""
        ...


class FakeBench:
    """The fake, with a clock of its own."""

    def __init__(self) -> None:
        self.now_us = 0
        self.fake = FakeStripeStore(lambda: self.now_us)
        self.intents: StripeIntents = self.fake
        self.sends: StripeSends = self.fake
        self.upkeep: StripeUpkeep = self.fake

    async def use(self, units: int, at_us: int) -> None:
        """Have usage there."""
        self.fake.used.append((TENANT, at_us, units))

    async def put_off(
        self, number: int, units: int, at_us: int, came_us: int, allocated_us: int
    ) -> None:
        """Have usage be billed by a later period."""
        self.fake.late.append(LateUse(TENANT, at_us, units, came_us, allocated_us, DAY))

    async def add_periods(self, *bounds_us: int) -> None:
        """Have the tenant have periods from each bound to the next."""
        self.fake.periods[TENANT] = [Window(*each) for each in pairwise(bounds_us)]

    async def end_leases(self) -> None:
        """Let every lease run out."""
        self.now_us += DAY_US


class PostgresBench:
    """Postgres; leases run out by moving their ends into the past."""

    def __init__(self, postgres: Postgres, dsn: str) -> None:
        store = PostgresStripeSends(postgres)
        self.intents: StripeIntents = PostgresStripeIntents(postgres)
        self.sends: StripeSends = store
        self.upkeep: StripeUpkeep = store
        self.ledger, self.dsn, self.number = PostgresLedger(postgres), dsn, 0

    async def use(self, units: int, at_us: int) -> None:
        """Have the ledger hold usage."""
        self.number += 1
        refund = {"refund_of": "x"} if units < 0 else {}
        used = event(self.number, meter=METER, amount=units, event_time_us=at_us, **refund)
        await self.ledger.persist(LedgerBatch((used,)))

    async def put_off(
        self, number: int, units: int, at_us: int, came_us: int, allocated_us: int
    ) -> None:
        """Have usage be billed by a later period; the event's own receipt is what it came by."""
        async with connection(self.dsn) as admin:
            await admin.execute("set session_replication_role = replica")
            await admin.execute(
                "update tallygate.usage_event set received_at = tallygate.instant($1)"
                " where event_id = $2",
                *(came_us, f"event-{number}"),
            )
            await admin.execute(
                "insert into tallygate.late_event (tenant_id, event_id, meter, amount, event_time,"
                " refund_of, closed_start, closed_revision, placed, allocated_start,"
                " allocated_revision) values ($1, $2, $3, $4, tallygate.instant($5), '',"
                " tallygate.instant($6), 1, 'next_period', tallygate.instant($7), 1)",
                *(TENANT, f"event-{number}", METER, units, at_us, DAY, allocated_us),
            )

    async def add_periods(self, *bounds_us: int) -> None:
        """Have the tenant have periods from each bound to the next."""
        async with connection(self.dsn) as admin:
            await admin.executemany(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, created_at)"
                " values ($1, tallygate.instant($2), tallygate.instant($3), now())",
                [(TENANT, *each) for each in pairwise(bounds_us)],
            )

    async def end_leases(self) -> None:
        """Let every lease run out."""
        async with connection(self.dsn) as admin:
            await admin.execute("update tallygate.stripe_lane set leased_until = now()")


@pytest.fixture(params=["fake", "postgres"])
async def bench(request: pytest.FixtureRequest, postgres_dsn: str) -> AsyncIterator[Bench]:
    """Each store in turn."""
    postgres = Postgres(postgres_dsn)
    yield FakeBench() if request.param == "fake" else PostgresBench(postgres, postgres_dsn)
    await postgres.close()


def asked(**fields: object) -> GapQuery:
    """Return a question about the tenant's day, with other fields replaced."""
    cut = Cut(TENANT, CUSTOMER, DAY, DAY + 31 * DAY_US, DAY, NOW_US)
    values = GapQuery("stripe", METER, Aggregation.SUM, Source.MINUTE, HOUR_US, NOW_US, (cut,))
    return replace(values, **fields)  # type: ignore[arg-type]  # by name


def intent(hour: int = 0, seq: int = 1, customer: str = CUSTOMER, **fields: object) -> Intent:
    """Return an intent of an hour of the day, with other fields replaced."""
    start_us = DAY + hour * HOUR_US
    place = IntentPlace(
        *(TENANT, customer, METER, "{}", start_us, start_us + HOUR_US, DAY, DAY + 31 * DAY_US)
    )
    quantity = fields.get("quantity", 5)
    identifier, key = identity((hour, seq, customer, quantity))
    made = Intent(
        *("stripe", place, seq, IntentKind.DELTA, 5, str(quantity), "calls", start_us),
        *(identifier, key),
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # by name


async def claim(bench: Bench, now_us: int = NOW_US, **limits: int) -> list[tuple[Claimed, ...]]:
    """Claim and return the lanes; the token is with the bench."""
    values = {"lanes": 10, "per_lane": 10, "lease_ms": 60_000, **limits}
    found = await bench.sends.claim("stripe", now_us, **values)
    TOKENS.append(found.token)
    return list(found.lanes)


TOKENS: list[str] = []


async def finish(bench: Bench, *results: SendResult, again: tuple[Intent, ...] = ()) -> int:
    """Note results under the last claim, and give it back."""
    token = TOKENS[-1]
    ours = await bench.sends.finish(token, results, again)
    await bench.sends.release(token)
    return ours


def done(claimed: Claimed, state: SendState = SendState.DELIVERED, **fields: object) -> SendResult:
    """Return a result."""
    return replace(SendResult(claimed.intent_id, state, NOW_US), **fields)  # type: ignore[arg-type]
