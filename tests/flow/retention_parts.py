"""A ledger with old events to archive and to drop.

Guarantees: everything but the clock's day is what is shipped.
Refuses to know: what is asserted.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.group_audit import PostgresGroupAudit
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.retention import PostgresRetention
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.retention import Policy, Verdict
from tallygate.domain.window import from_datetime
from tallygate.flow.retention import Dropped, RetentionParts, archive, drop, plan
from tallygate.flow.verify import Report, Verify, VerifyParts
from tallygate.ports import LedgerBatch
from tallygate.wiring.exporting import ArchiveFiles
from tests.servers import connection
from tests.usage_events import event

OLD_US = from_datetime(datetime(2024, 2, 15, 12, tzinfo=UTC))
OLDER_US = from_datetime(datetime(2024, 1, 31, 23, 59, tzinfo=UTC))
YOUNG_US = from_datetime(datetime(2026, 10, 15, 12, tzinfo=UTC))
MONTHS = "select tallygate.ensure_partitions('{}', '{}')"
UNNAMED = """
    alter table tallygate.event_key disable trigger user;
    delete from tallygate.event_key where event_id = 'event-2'
"""
HOOK = """
    insert into tallygate.destination (name, kind, url, types)
    values ('hook', 'webhook', 'http://127.0.0.1', '{usage.batch}')
"""


@dataclass(slots=True)
class Parts:
    """A ledger with old events, and what archives and drops them."""

    dsn: str
    postgres: Postgres
    folder: Path
    policy: Policy = field(default_factory=lambda: Policy(event_months=14))

    def now_us(self) -> int:
        """Return the server's time, near enough."""
        return int(datetime.now(UTC).timestamp() * 1e6)

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now_us() / 1e6

    @property
    def store(self) -> PostgresRetention:
        """Return the store."""
        return PostgresRetention(self.postgres)

    @property
    def parts(self) -> RetentionParts:
        """Return what retention works with."""
        return RetentionParts(self.store, self, self.policy, "ada")

    @property
    def files(self) -> ArchiveFiles:
        """Return the folder of archives."""
        return ArchiveFiles(self.folder)

    async def persist(self, *events: UsageEvent) -> None:
        """Store events."""
        await PostgresLedger(self.postgres).persist(LedgerBatch(events))

    async def execute(self, statements: str) -> None:
        """Do something to the tables."""
        async with connection(self.dsn) as admin:
            await admin.execute(statements)

    async def verdicts(self) -> dict[str, Verdict]:
        """Return the verdicts by month."""
        return {
            datetime.fromtimestamp(each.facts.month_us / 1e6, UTC).strftime("%Y-%m"): each.verdict
            for each in await plan(self.parts)
        }

    async def archived(self) -> list[str]:
        """Archive what is due; return the files."""
        made = await archive(self.parts, self.files, lambda _done, _total: None)
        return [each.file.path for each in made]

    async def dropped(self) -> list[Dropped]:
        """Drop what is due."""
        return await drop(self.parts, self.files, lambda _done, _total: None)

    async def verify(self) -> Report:
        """Compare everything that Postgres has."""
        return await Verify(
            VerifyParts(PostgresLedgerAudit(self.postgres), PostgresGroupAudit(self.postgres))
        ).run()


@pytest.fixture
async def parts(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """Events in January and February of 2024, and young ones, told to a destination."""
    postgres = Postgres(postgres_dsn)
    found = Parts(postgres_dsn, postgres, tmp_path)
    await found.execute(MONTHS.format("2024-01-01", "2024-02-01"))
    await found.execute(MONTHS.format("2026-10-01", "2026-10-01"))
    await found.execute(HOOK)
    await found.persist(
        event(1, event_time_us=OLDER_US, amount=5),
        event(2, event_time_us=OLD_US, amount=7),
        event(3, event_time_us=OLD_US, amount=-2, refund_of=EventId("event-2")),
        event(4, event_time_us=OLD_US, tenant_id=TenantId("other"), meter=MeterName("bytes")),
        event(5, event_time_us=YOUNG_US),
    )
    # The sequence numbers, as an ingester has them marked.
    await found.execute("insert into tallygate.source_progress values ('source-1', 0, '{[1,100)}')")
    yield found
    await postgres.close()
