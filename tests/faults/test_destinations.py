"""One of three destinations is slow or fails: the other two, of which one is Stripe, have theirs.

A relay as it is installed, on real HTTP: two webhooks and a Stripe account.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.stripe.client import Client, ClientOptions
from tallygate.domain.ids import TenantId
from tallygate.domain.window import HOUR_US, SECOND_US
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.settings_sources import load_settings
from tallygate.testing.webhook import WebhookReceiver
from tallygate.wiring import relays, stripe
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tallygate_fake_stripe import Behaviour, FakeStripe, Fault, FaultKind, UnknownCustomer
from tests.flow.relay_parts import SECRET
from tests.servers import eventually
from tests.sql.test_append_only import as_role
from tests.usage_events import event

EVENTS: Final = "/v1/billing/meter_events"
WEBHOOKS: Final = ("audit", "hook")
HEAL_S: Final = 60.0
KEY: Final = "sk_test_file"
CATALOG: Final = """\
version: 1
meters:
  requests:
    aggregation: sum
    stripe: {{way: meter_events, event_name: calls, since: 2026-01-01, window: minute, settle: 1s}}
plans:
  p: {{}}
tenants:
  acme: {{plan: p, stripe_customer_id: cus_acme}}
  other: {{plan: p, stripe_customer_id: cus_other}}
destinations:
  audit: {{kind: webhook, url: '{audit}', types: [usage.batch], secret: {{file: {folder}/hook}}}}
  hook: {{kind: webhook, url: '{hook}', types: [usage.batch], secret: {{file: {folder}/hook}}}}
  stripe: {{kind: stripe, url: '{stripe}', secret: {{file: {folder}/key}}}}
"""


@dataclass(slots=True)
class Three:
    """Three destinations, and a ledger whose usage they are told."""

    dsn: str
    folder: Path
    hooks: dict[str, WebhookReceiver]
    stripe: FakeStripe
    used: dict[str, int] = field(default_factory=dict)
    number: int = 0

    async def use(self, amount: int, tenant: str = "acme") -> None:
        """Have the ledger hold usage of an hour ago."""
        self.number += 1
        self.used[tenant] = self.used.get(tenant, 0) + amount
        at_us = time.time_ns() // 1000 - HOUR_US
        used = event(self.number, tenant_id=TenantId(tenant), amount=amount, event_time_us=at_us)
        postgres = Postgres(self.dsn)
        await PostgresLedger(postgres).persist(LedgerBatch((used,)))
        await postgres.close()

    async def apply(self) -> None:
        """Have a catalog applied that names all three."""
        urls = {name: each.url for name, each in self.hooks.items()}
        text = CATALOG.format(**urls, stripe=self.stripe.url, folder=self.folder)
        parsed = parse(text)
        postgres = Postgres(self.dsn)
        store = PostgresCatalogStore(postgres)
        await store.write(CatalogChange(parsed.catalog, parsed.tenants, text, 0), 0)
        await postgres.close()

    def has(self, name: str) -> bool:
        """Whether a destination has all usage, once."""
        if name == "stripe":
            return all(self.billed(tenant) == units for tenant, units in self.used.items())
        messages = {each.message_id: each.payload for each in self.hooks[name].accepted}
        told = [each for text in messages.values() for each in json.loads(text)["data"]["events"]]
        return len({each["event_id"] for each in told}) == len(told) == self.number

    def billed(self, tenant: str) -> Decimal:
        """Return what Stripe has of a tenant."""
        now_s = time.time_ns() // 1000 // SECOND_US
        return self.stripe.total("calls", f"cus_{tenant}", 0, now_s - now_s % 60)

    def break_(self, name: str, kind: FaultKind) -> None:
        """Have a destination fail, or not answer, whatever it is asked."""
        if name == "stripe":
            self.stripe.faults.add(Fault(kind, path=EVENTS))
        elif kind is FaultKind.HOLD:
            for _ in range(1_000):
                self.hooks[name].hang_next()
        else:
            self.hooks[name].fail_next(503, count=1_000)

    def heal(self, name: str) -> None:
        """Have it answer again."""
        if name == "stripe":
            for rule in [*self.stripe.faults]:
                rule.release()
            self.stripe.faults.clear()
        else:
            self.hooks[name]._failures.clear()


@pytest.fixture
async def three(
    postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Three]:
    """All of them well, with the catalog applied."""
    # Figures are made every quarter of a minute, which is long to wait for.
    monkeypatch.setattr(stripe, "MEASURE_MS", 100)
    monkeypatch.setattr(relays, "DESTINATIONS_MS", 100)
    (tmp_path / "hook").write_text(SECRET)
    (tmp_path / "key").write_text(KEY)
    behaviour = Behaviour(unknown_customer=UnknownCustomer.ACCEPT, rate_limited=False)
    async with (
        WebhookReceiver(SECRET) as audit,
        WebhookReceiver(SECRET) as hook,
        FakeStripe(behaviour=behaviour) as fake,
    ):
        found = Three(postgres_dsn, tmp_path, {"audit": audit, "hook": hook}, fake)
        await make_meter(fake)
        await found.apply()
        await apply_roles(postgres_dsn)
        yield found


async def make_meter(fake: FakeStripe) -> None:
    """Have Stripe know the meter."""
    client = Client(lambda: KEY, ClientOptions(url=fake.url))
    await client.stripe().v1.billing.meters.create_async(
        {
            "event_name": "calls",
            "display_name": "Requests",
            "default_aggregation": {"formula": "sum"},
        },
        {"api_key": KEY},
    )
    await client.close()


@asynccontextmanager
async def relay(three: Three) -> AsyncIterator[Running]:
    """Run a relay, with the rights of its role."""
    settings = load_settings(
        {
            "postgres_dsn": as_role(three.dsn, "tallygate_relay"),
            "ops_address": "127.0.0.1:0",
            "stripe_plan_ms": 100,
            "relay_poll_ms": 20,
            "relay_send_timeout_ms": 300,
            "relay_backoff_ms": 100,
            "relay_backoff_max_ms": 1_000,
            "relay_attempts_max": 1_000,
        },
        environ={},
    )
    async with running(settings, frozenset({Role.RELAY})) as process:
        yield process


def lag_s(process: Running, name: str) -> float:
    """Return how old a destination's oldest usage is that it has not been told of."""
    metric = (
        "tallygate_stripe_oldest_seconds" if name == "stripe" else "tallygate_outbox_age_seconds"
    )
    return process.metrics.registry.get_sample_value(metric, {"destination": name}) or 0.0


def caught_up(process: Running, name: str) -> bool:
    """Say whether a destination has no lag."""
    return not lag_s(process, name)


async def all_told(three: Three, process: Running, *names: str) -> None:
    """Wait until these have all usage, and no lag."""
    for name in names:
        await eventually(partial(three.has, name), HEAL_S, what=f"all usage at {name}")
        await eventually(partial(caught_up, process, name), HEAL_S, what=f"{name}'s lag")


@pytest.mark.parametrize("kind", [FaultKind.HOLD, FaultKind.UNAVAILABLE], ids=["slow", "failing"])
@pytest.mark.parametrize("bad", ["stripe", "hook"])
async def test_one_of_three_is_away(three: Three, bad: str, kind: FaultKind) -> None:
    """The others have all of it, also what comes meanwhile; each one's lag is its own."""
    others = [name for name in (*WEBHOOKS, "stripe") if name != bad]
    three.break_(bad, kind)
    async with relay(three) as process:
        for number in range(20):
            await three.use(1 + number, "acme" if number % 2 else "other")
        await all_told(three, process, *others)
        await eventually(lambda: lag_s(process, bad) > 0, HEAL_S, what=f"the lag of {bad}")
        await three.use(100)
        await all_told(three, process, *others)
        assert not three.has(bad)
        assert lag_s(process, bad) > 0
        three.heal(bad)
        await all_told(three, process, *others, bad)


async def test_one_message_holds_back_no_other(three: Three) -> None:
    """A webhook that does not answer for one message is told of those after it."""
    three.hooks["hook"].hang_next()
    async with relay(three) as process:
        await three.use(1)
        await three.hooks["hook"].wait_for(1)
        for number in range(5):
            await three.use(2 + number)
        await all_told(three, process, *three.hooks, "stripe")
        first = three.hooks["hook"].received[0]
        assert [each.status for each in three.hooks["hook"].received].count(503) == 1
        assert first.message_id in {each.message_id for each in three.hooks["hook"].accepted}


async def test_one_customer_holds_back_no_other(three: Three) -> None:
    """A customer whose calls hang at Stripe leaves the rest of the account alone."""
    three.stripe.faults.add(Fault(FaultKind.HOLD, path=EVENTS, customer="cus_acme"))
    async with relay(three) as process:
        await three.use(5)
        await three.use(7, "other")
        await eventually(lambda: three.billed("other") == 7, HEAL_S, what="the other customer")
        await three.use(11, "other")
        await eventually(lambda: three.billed("other") == 18, HEAL_S, what="its later usage")
        assert three.billed("acme") == 0
        three.heal("stripe")
        await all_told(three, process, *three.hooks, "stripe")
