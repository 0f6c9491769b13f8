"""What every `UsageFigures` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator

import pytest

from tallygate.adapters.postgres.figures import PostgresUsageFigures
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.window import DAY_US
from tallygate.ports import LedgerBatch
from tallygate.ports.figures import Amount, MeterUse, UsageFigures
from tallygate.testing.figures import FakeUsageFigures
from tallygate.testing.ledger import FakeLedger
from tests.usage_events import NOON_US, event

ACME, ZEBRA, OLD = TenantId("acme"), TenantId("zebra"), TenantId("old")
REQUESTS, BYTES = MeterName("requests"), MeterName("bytes")
TODAY_US = NOON_US - NOON_US % DAY_US
MONTH_US = TODAY_US - 19 * DAY_US

USED = (
    event(1, amount=2),
    event(2, amount=3),
    event(3, amount=-1, refund_of=EventId("event-2")),
    event(4, amount=5, event_time_us=TODAY_US - 1),
    event(5, amount=7, event_time_us=MONTH_US, meter=BYTES),
    event(6, amount=11, event_time_us=MONTH_US - 1),
    event(7, amount=2**53 - 1, tenant_id=ZEBRA),
    event(8, amount=2**53 - 1, tenant_id=ZEBRA),
    event(9, event_time_us=MONTH_US - 1, tenant_id=OLD),
)


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def figures(dsn: str | None) -> AsyncIterator[UsageFigures]:
    """Each kind, over the same events."""
    if dsn is None:
        ledger = FakeLedger()
        await ledger.persist(LedgerBatch(USED))
        yield FakeUsageFigures(ledger)
        return
    postgres = Postgres(dsn)
    await PostgresLedger(postgres).persist(LedgerBatch(USED))
    yield PostgresUsageFigures(postgres)
    await postgres.close()


async def test_pages_follow_each_other(figures: UsageFigures) -> None:
    """Each tenant is on one page, days and months begin on time, and sums are exact."""
    first = await figures.page("", 2, TODAY_US, MONTH_US)
    assert first.last == OLD
    assert [*first.used] == [
        MeterUse(ACME, BYTES, Amount(), Amount(1, 7)),
        MeterUse(ACME, REQUESTS, Amount(2, 4), Amount(3, 9)),
    ]
    second = await figures.page(OLD, 2, TODAY_US, MONTH_US)
    whole = Amount(2, 2**54 - 2)
    assert [*second.used] == [MeterUse(ZEBRA, REQUESTS, whole, whole)]
    last = await figures.page(ZEBRA, 2, TODAY_US, MONTH_US)
    assert ([*last.used], last.last) == ([], None)
