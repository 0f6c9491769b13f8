"""Figures to be watched: rounds over all tenants, and what is shown of them."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import BackendUnavailable, NotFound, TallygateError, UnknownTenant
from tallygate.domain.ids import MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice
from tallygate.domain.window import DAY_US, Window
from tallygate.flow import figures
from tallygate.flow.figures import FiguresObserver, ShowRevenue, ShowUsage
from tallygate.ports import LedgerBatch
from tallygate.testing.figures import FakeUsageFigures
from tallygate.testing.ledger import FakeLedger
from tests.usage_events import NOON_US, event

PERIOD = Window(0, DAY_US)


class HandClock:
    """A clock that is moved by hand."""

    at_us = NOON_US

    def now_us(self) -> int:
        """Return where it stands."""
        return self.at_us

    def monotonic(self) -> float:
        """Return where it stands, in seconds."""
        return self.at_us / 1e6


class Declared:
    """Tenants by number, each of which owes what a function says."""

    def __init__(self, count: int, owed: Callable[[int], Decimal | TallygateError]) -> None:
        self.ids = [TenantId(f"tenant-{number:03}") for number in range(count)]
        self.owed = owed

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return the next ones."""
        return [Tenant(each, PlanName("p")) for each in self.ids if each > (after or "")][:count]

    async def current(self, tenant_id: TenantId) -> Window:
        """Return the one period there is."""
        return PERIOD

    async def preview(self, tenant_id: TenantId, period: Window) -> Invoice:
        """Return an invoice of nothing but its total."""
        number = self.ids.index(tenant_id)
        owed = self.owed(number)
        if isinstance(owed, TallygateError):
            raise owed
        zero = Decimal(0)
        currency = "EUR" if number % 2 else "USD"
        return Invoice(tenant_id, period, currency, (), zero, zero, zero, owed)


@pytest.fixture
def metrics() -> Metrics:
    """All metrics on a registry of their own."""
    return Metrics(CollectorRegistry(), version="1")


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample."""
    return metrics.registry.get_sample_value(f"tallygate_{name}", labels)


async def a_round(step: ShowUsage | ShowRevenue) -> int:
    """Run a step until its round has ended; return how many runs that took."""
    for runs in range(1, 1_000):
        if (await step.run_once()).ended:
            return runs
    raise AssertionError("the round does not end")


async def test_usage_is_shown_by_meter(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round adds up all pages; only tenants that were named are labels; what is gone is gone."""
    monkeypatch.setattr(figures, "USAGE_TENANTS", 2)
    ledger, clock = FakeLedger(), HandClock()
    events = [
        event(
            number, amount=number, tenant_id=TenantId(f"tenant-{number}"), meter=MeterName("calls")
        )
        for number in range(1, 6)
    ]
    await ledger.persist(LedgerBatch((*events, event(9, event_time_us=NOON_US - DAY_US))))
    observer: FiguresObserver = metrics.figures
    step = ShowUsage(FakeUsageFigures(ledger), observer, clock, [TenantId("tenant-5")], 60)
    assert await a_round(step) == 4
    assert sample(metrics, "usage_units", meter="calls", span="day") == 15
    assert sample(metrics, "usage_events", meter="calls", span="month") == 5
    assert sample(metrics, "usage_units", meter="requests", span="day") is None
    assert sample(metrics, "usage_units", meter="requests", span="month") == 1
    assert sample(metrics, "usage_tenants", span="day") == 5
    assert sample(metrics, "usage_tenants", span="month") == 6
    named = {"tenant": "tenant-5", "meter": "calls", "span": "day"}
    assert sample(metrics, "tenant_usage_units", **named) == 5
    assert "tenant-4" not in generate_latest(metrics.registry).decode()
    assert not (await step.run_once()).tenants, "a round begins when it is due"
    clock.at_us += 40 * DAY_US
    await a_round(step)
    assert sample(metrics, "usage_units", meter="calls", span="month") is None
    assert sample(metrics, "usage_tenants", span="month") == 0
    assert sample(metrics, "figures_age_seconds", figure="usage") == 0


async def test_meters_are_bounded(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meters that have no room are counted, and not shown, also not of a named tenant."""
    monkeypatch.setattr(figures, "METERS_MAX", 2)
    ledger = FakeLedger()
    events = (event(each, meter=MeterName(f"meter-{each}")) for each in range(1, 4))
    await ledger.persist(LedgerBatch(tuple(events)))
    step = ShowUsage(FakeUsageFigures(ledger), metrics.figures, HandClock(), [TenantId("acme")], 60)
    await a_round(step)
    assert sample(metrics, "usage_meters_left_out") == 1
    assert sample(metrics, "usage_units", meter="meter-2", span="day") == 1
    assert "meter-3" not in generate_latest(metrics.registry).decode()


async def test_revenue_is_shown_by_currency(metrics: Metrics) -> None:
    """Who has no plan is not billed; who cannot be rated is counted, and holds up nobody."""

    def owed(number: int) -> Decimal | TallygateError:
        match number:
            case 3:
                return UnknownTenant(field="tenant")
            case 4:
                return NotFound("no rate of exchange")
            case _:
                return Decimal("1.25")

    tenants, clock = Declared(25, owed), HandClock()
    step = ShowRevenue(tenants, tenants, metrics.figures, clock, 900)
    assert await a_round(step) == 4
    assert sample(metrics, "revenue_preview_amount", currency="EUR") == 11 * 1.25
    assert sample(metrics, "revenue_preview_amount", currency="USD") == 12 * 1.25
    assert sample(metrics, "revenue_preview_tenants", outcome="rated") == 23
    assert sample(metrics, "revenue_preview_tenants", outcome="failed") == 1
    clock.at_us += 300 * 1_000_000
    assert not (await step.run_once()).ended
    assert sample(metrics, "figures_age_seconds", figure="revenue") == 300


async def test_a_page_is_rated_once(metrics: Metrics) -> None:
    """A ledger that is away for a moment makes a round longer, and no sum larger."""
    away = True

    def owed(number: int) -> Decimal | TallygateError:
        return BackendUnavailable() if away and number == 15 else Decimal(1)

    tenants = Declared(20, owed)
    step = ShowRevenue(tenants, tenants, metrics.figures, HandClock(), 900)
    await step.run_once()
    with pytest.raises(BackendUnavailable):
        await step.run_once()
    assert sample(metrics, "revenue_preview_amount", currency="USD") is None
    away = False
    await a_round(step)
    assert sample(metrics, "revenue_preview_amount", currency="USD") == 10
