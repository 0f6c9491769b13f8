"""What every `CountedUsage` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest

from tallygate.adapters.postgres.counted_usage import PostgresUsageSnapshots
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import EventId, LimitId, MeterName, TenantId
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum
from tallygate.domain.window import MINUTE_US, SECOND_US
from tallygate.ports import LedgerBatch
from tallygate.ports.recount import UsageSnapshots
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.recount import FakeUsageSnapshots
from tests.servers import connection
from tests.usage_events import NOON_US, event

ACME = TenantId("acme")
END_US = NOON_US + 60 * MINUTE_US
ASK = Ask(ACME, MeterName("requests"), NOON_US, NOON_US, END_US)


@dataclass(frozen=True, slots=True)
class Subject:
    """Snapshots, and what stores that which they are of."""

    ledger: FakeLedger | PostgresLedger
    snapshots: UsageSnapshots
    dsn: str | None

    async def store(self, *events: UsageEvent) -> None:
        """Store events alone."""
        await self.ledger.persist(LedgerBatch(events))

    async def reset(self, limit: str, scope: str, at_us: int) -> None:
        """Write the audit of a reset."""
        if isinstance(self.snapshots, FakeUsageSnapshots):
            self.snapshots.resets.append(LastReset(ACME, LimitId(limit), scope, at_us))
            return
        assert self.dsn is not None
        async with connection(self.dsn) as admin:
            await admin.execute(
                "insert into tallygate.limit_reset values"
                " ('acme', $1, $2, $3, 1, 0, 'why', 'who', tallygate.instant($4))",
                *(f"op-{limit}-{scope}-{at_us}", limit, scope, at_us),
            )

    async def sums(self, asks: Sequence[Ask], but_epochs: Sequence[str] = ()) -> set[UsageSum]:
        """Return the sums that a snapshot of now has."""
        async with self.snapshots.snapshot() as usage:
            return set(await usage.sums(asks, but_epochs))


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """A ledger and its snapshots."""
    if dsn is None:
        ledger = FakeLedger()
        yield Subject(ledger, FakeUsageSnapshots(ledger), None)
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresLedger(postgres), PostgresUsageSnapshots(postgres), dsn)
    await postgres.close()


def at(number: int, offset_us: int, received_us: int | None = None, **fields: object) -> UsageEvent:
    """Return an event so long after noon, accepted at once or when it is said."""
    received = offset_us if received_us is None else received_us
    times = {"event_time_us": NOON_US + offset_us, "received_at_us": NOON_US + received}
    return event(number, **{**times, **fields})


async def test_counts_what_was_used_and_accepted_in_time(subject: Subject) -> None:
    """Late events, early ones and those of others are left out, and so is an epoch on demand."""
    await subject.store(
        at(1, 0, amount=5),
        at(2, 1, amount=7, counter_epoch="e2"),
        at(3, -1, 5, amount=100),
        at(4, 5, -1, amount=100),
        at(5, 60 * MINUTE_US, amount=100),
        at(6, 1, amount=100, tenant_id=TenantId("other")),
        at(7, 1, amount=100, meter=MeterName("bytes")),
    )
    assert await subject.sums([ASK]) == {UsageSum(0, 0, (), 12)}
    assert await subject.sums([ASK], ["e2"]) == {UsageSum(0, 0, (), 5)}
    assert await subject.sums([replace(ASK, tenant_id=TenantId("nobody"))]) == set()


async def test_divides_by_slots(subject: Subject) -> None:
    """The earlier of both times says the slot, for a rate the acceptance alone."""
    await subject.store(
        at(1, 0, SECOND_US, amount=1),
        at(2, 2 * SECOND_US, SECOND_US, amount=2),
        at(3, 0, 3 * SECOND_US, amount=4),
    )
    first = NOON_US // SECOND_US
    slotted = replace(ASK, slot_us=SECOND_US)
    rate = replace(slotted, period_us=2 * SECOND_US)
    assert await subject.sums([slotted, rate]) == {
        UsageSum(0, first, (), 5),
        UsageSum(0, first + 1, (), 2),
        UsageSum(1, first + 1, (), 3),
    }


async def test_divides_by_fields(subject: Subject) -> None:
    """A dimension counts before a field of the context of its name; what is unknown is empty."""
    eu = EventContext(region="eu")
    await subject.store(
        at(1, 0, amount=1, context=eu, dimensions={}),
        at(2, 0, amount=2, context=eu, dimensions={"region": "us", "tier": "a"}),
        at(3, 0, amount=4, context=eu, dimensions={"region": "us", "tier": "a"}),
        at(4, 0, amount=8, context=EventContext(), dimensions={"tier": "b"}),
    )
    both = replace(ASK, fields=("region", "tier"))
    assert await subject.sums([both, replace(ASK, fields=("tier",)), ASK]) == {
        UsageSum(0, 0, ("eu", ""), 1),
        UsageSum(0, 0, ("us", "a"), 6),
        UsageSum(0, 0, ("", "b"), 8),
        UsageSum(1, 0, ("",), 1),
        UsageSum(1, 0, ("a",), 6),
        UsageSum(1, 0, ("b",), 8),
        UsageSum(2, 0, (), 15),
    }


async def test_takes_refunds_off(subject: Subject) -> None:
    """Units come back at once; an event that counts as one comes back with its last unit."""
    await subject.store(
        at(1, 0, amount=5),
        at(2, 0, amount=6),
        at(3, 0, 9, amount=-5, refund_of=EventId("event-1")),
        at(4, 0, 9, amount=-2, refund_of=EventId("event-2")),
    )
    counted = replace(ASK, counted=True)
    assert await subject.sums([ASK, counted]) == {
        UsageSum(0, 0, (), 4),
        UsageSum(1, 0, (), 1),
    }
    await subject.store(at(5, 0, 9, amount=-4, refund_of=EventId("event-2")))
    assert await subject.sums([ASK, counted]) == set()


async def test_pages_through_tenants(subject: Subject) -> None:
    """Each tenant with usage comes once, in order."""
    names = [f"tenant-{number}" for number in range(5)]
    for number, name in enumerate([*names, *names]):
        await subject.store(at(number, number, tenant_id=TenantId(name)))
    async with subject.snapshots.snapshot() as usage:
        assert await usage.tenants("", 3) == names[:3]
        assert await usage.tenants("tenant-2", 3) == names[3:]
        assert await usage.tenants("tenant-4", 3) == []


async def test_knows_the_last_reset(subject: Subject) -> None:
    """Of each counter the last one, and of the tenants asked for alone."""
    await subject.reset("daily", "", NOON_US)
    await subject.reset("daily", "", NOON_US + 5)
    await subject.reset("daily", "user=ü", NOON_US + 1)
    async with subject.snapshots.snapshot() as usage:
        assert set(await usage.resets([ACME])) == {
            LastReset(ACME, LimitId("daily"), "", NOON_US + 5),
            LastReset(ACME, LimitId("daily"), "user=ü", NOON_US + 1),
        }
        assert await usage.resets([TenantId("other")]) == []


async def test_reads_one_snapshot(subject: Subject) -> None:
    """What is stored while a snapshot is open is not in it."""
    async with subject.snapshots.snapshot() as usage:
        assert await usage.tenants("", 5) == []
        await subject.store(at(1, 0))
        assert await usage.tenants("", 5) == []
        assert await usage.sums([ASK]) == []
