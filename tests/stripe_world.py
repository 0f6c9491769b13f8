"""A ledger, a planner, a sender and a Stripe in one place, on one clock that tests move.

Owns the wiring of all of it for tests. Guarantees that time passes only by `pass_s`.
Refuses to know what is tested.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.adapters.stripe.api import StripeUsage
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.domain.catalog import Aggregation, Catalog, Destination, Meter, Tenant
from tallygate.domain.ids import EventId, MeterName, PlanName, TenantId
from tallygate.domain.stripe_sync import StripeAccount, StripeSync, Way
from tallygate.domain.window import DAY_US, HOUR_US, SECOND_US
from tallygate.flow.stripe_gate import Gate
from tallygate.flow.stripe_plan import PlanParts, StripePlanner
from tallygate.flow.stripe_send import SendOptions, SendParts, StripeSender
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.testing.catalog import FakeCatalogStore
from tallygate_fake_stripe import Behaviour, FakeStripe, VirtualClock
from tests.servers import connection
from tests.usage_events import event

DESTINATION: Final = "stripe"
METER: Final = MeterName("requests")
EVENT: Final = "api_requests"
TENANT: Final = TenantId("acme")
CUSTOMER: Final = "cus_acme"
# Noon of 1 January 2026, UTC.
START_S: Final = 1_767_268_800
START_US: Final = START_S * SECOND_US
MIDNIGHT_US: Final = START_US - START_US % DAY_US
SYNC: Final = StripeSync(Way.METER_EVENTS, event_name=EVENT, since_us=MIDNIGHT_US)


class WorldClock:
    """The fake Stripe's clock, as ours."""

    def __init__(self, virtual: VirtualClock) -> None:
        self.virtual = virtual
        self.ahead_us = 0

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self.virtual.now_us() + self.ahead_us

    def monotonic(self) -> float:
        """Return the machine's seconds: rounds are bounded in real time."""
        return time.monotonic()


class NoPace:
    """Turns for whoever asks."""

    async def take(self) -> float:
        """Return at once."""
        return 0.0


@dataclass
class Told:
    """What planner and sender told of themselves."""

    planned_: list[tuple[str, int]] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    stale_: int = 0

    def planned(self, _: str, kind: str, count: int) -> None:
        """Keep it."""
        self.planned_.append((kind, count))

    def answered(self, _: str, outcome: str, count: int) -> None:
        """Keep it."""
        self.outcomes += [outcome] * count

    def waited(self, _: str, seconds: float) -> None:
        """Nobody waits here."""

    def held(self, _: str, reason: str) -> None:
        """Keep what is new."""
        if self.reasons[-1:] != [reason]:
            self.reasons.append(reason)

    def stale_notes(self, _: str, count: int) -> None:
        """Count it."""
        self.stale_ += count


@dataclass
class StripeWorld:
    """All of it. `key` is the API key of now."""

    postgres: Postgres
    dsn: str
    stripe: FakeStripe
    clock: WorldClock
    catalogs: FakeCatalogStore
    told: Told = field(default_factory=Told)
    key: str = "sk_test_tallygate"
    clients: list[Client] = field(default_factory=list)
    numbers: int = 0

    def __post_init__(self) -> None:
        """Put planner and sender together."""
        self.intents = PostgresStripeIntents(self.postgres)
        self.sends = PostgresStripeSends(self.postgres)
        self.gate = Gate(self.clock, NoPace(), chance=lambda: 0.0)
        self.planner = self.new_planner()
        self.sender = self.new_sender()

    def client(self) -> Client:
        """Return a client of its own, closed with the world."""
        made = Client(lambda: self.key, ClientOptions(url=self.stripe.url))
        self.clients.append(made)
        return made

    def new_planner(self) -> StripePlanner:
        """Return a planner that remembers nothing."""
        return StripePlanner(
            DESTINATION, PlanParts(self.intents, self.catalogs, self.clock, self.told)
        )

    def new_sender(self, gate: Gate | None = None, **options: object) -> StripeSender:
        """Return a sender as another process would have it."""
        usage = StripeUsage(self.client(), self.clock)
        parts = SendParts(self.sends, usage, gate or self.gate, self.clock, self.told)
        usual = SendOptions(chance=lambda: 0.0)
        values = replace(usual, **options)  # type: ignore[arg-type]  # by name
        return StripeSender(DESTINATION, parts, values)

    async def use(
        self, amount: int, at_us: int, tenant: TenantId = TENANT, **fields: object
    ) -> EventId:
        """Have the ledger hold usage."""
        self.numbers += 1
        used = event(
            self.numbers,
            tenant_id=tenant,
            meter=METER,
            amount=amount,
            event_time_us=at_us,
            **{"received_at_us": at_us, **fields},
        )
        await PostgresLedger(self.postgres).persist(LedgerBatch((used,)))
        return used.event_id

    async def plan(self) -> int:
        """Plan until all tenants were looked at; return how many intents are new."""
        intended = 0
        while True:
            counts = await self.planner.run_once()
            intended += counts.intended
            if counts.last:
                return intended

    async def send(self, rounds: int = 1) -> None:
        """Send what is due, in so many rounds."""
        for _ in range(rounds):
            await self.sender.run_once()

    async def sync(self) -> None:
        """Plan, and send what is due."""
        await self.plan()
        await self.send()

    async def live(self, customers: Sequence[str]) -> None:
        """Go on in live mode, with a meter and customers there."""
        self.key = "sk_live_tallygate"
        for each in customers:
            self.stripe.add_customer(each, livemode=True)
        await self.make_meter()

    async def make_meter(self, **meter: object) -> None:
        """Make the meter in the mode of the key."""
        await (
            self.client()
            .stripe()
            .v1.billing.meters.create_async(
                {
                    "event_name": EVENT,
                    "display_name": "Requests",
                    "default_aggregation": {"formula": "sum"},
                    **meter,  # type: ignore[typeddict-item]  # by name
                },
                {"api_key": self.key},
            )
        )

    def pass_s(self, seconds: float) -> None:
        """Let time pass, for us and for Stripe."""
        self.clock.virtual.advance(seconds)

    def total(self, customer: str = CUSTOMER, event_name: str = EVENT) -> Decimal:
        """Return what Stripe has of a customer, of all time."""
        end_s = self.clock.now_us() // SECOND_US + 86_400
        return self.stripe.total(event_name, customer, 0, end_s - end_s % 60)

    async def states(self) -> dict[str, int]:
        """Return how many sends are in which state."""
        async with connection(self.dsn) as admin:
            rows = await admin.fetch(
                "select state, count(*) from tallygate.stripe_send group by state"
            )
        return {row["state"]: row["count"] for row in rows}

    async def rows(self, columns: str) -> list[tuple[object, ...]]:
        """Return columns of all intents with their sends, in order."""
        async with connection(self.dsn) as admin:
            rows = await admin.fetch(
                f"select {columns} from tallygate.stripe_intent join tallygate.stripe_send"
                " using (intent_id, destination, customer, meter, period_start)"
                " order by intent_id"
            )
        return [tuple(row) for row in rows]

    async def declare(
        self,
        sync: StripeSync = SYNC,
        tenants: Sequence[Tenant] = (),
        account: StripeAccount | None = None,
        aggregation: Aggregation = Aggregation.SUM,
    ) -> None:
        """Apply a catalog with one meter that goes to Stripe."""
        newest = await self.catalogs.newest()
        tenants = tenants or (Tenant(TENANT, PlanName("p"), stripe_customer_id=CUSTOMER),)
        change = CatalogChange(
            document="",
            catalog=Catalog(
                meters={METER: Meter(METER, aggregation, stripe=sync)},
                destinations=(
                    Destination(
                        DESTINATION,
                        "stripe",
                        self.stripe.url,
                        (),
                        stripe=account or StripeAccount(),
                    ),
                ),
            ),
            tenants=tuple(tenants),
            effective_at_us=0,
        )
        await self.catalogs.write(change, newest.version)


@asynccontextmanager
async def stripe_world(
    dsn: str, behaviour: Behaviour | None = None, **meter: object
) -> AsyncIterator[StripeWorld]:
    """Lend a world with one tenant, whose customer Stripe knows, and a meter there."""
    virtual = VirtualClock(START_S)
    postgres = Postgres(dsn)
    async with FakeStripe(virtual, behaviour=behaviour, customers=[CUSTOMER]) as stripe:
        world = StripeWorld(postgres, dsn, stripe, WorldClock(virtual), FakeCatalogStore())
        await world.declare()
        await world.make_meter(**meter)
        try:
            yield world
        finally:
            for each in world.clients:
                await each.close()
            await postgres.close()


HOUR_S: Final = HOUR_US // SECOND_US
