"""What every `InvoicingStore` promises, asked of the fake and of Postgres alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.reconcile_invoicing import PostgresInvoicingStore
from tallygate.domain.ids import TenantId
from tallygate.domain.reconcile import Verdict
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.ports.reconcile_invoicing import (
    DueAsked,
    InvoicedPeriod,
    InvoicingNote,
    InvoicingStore,
    Kind,
)
from tallygate.testing.reconcile_invoicing import FakeInvoicingStore
from tests.servers import connection
from tests.usage_events import NOON_US

ACME, OTHER = TenantId("acme"), TenantId("other")
PERIOD = Window(NOON_US - 30 * DAY_US, NOON_US)
ASKED = DueAsked(NOON_US - DAY_US, NOON_US + DAY_US - HOUR_US, 10)


@dataclass(frozen=True, slots=True)
class Subject:
    """A store, and what is closed and invoiced."""

    store: InvoicingStore
    dsn: str = ""

    async def make(
        self, kind: Kind, tenant: TenantId, at_us: int, revision: int = 1
    ) -> InvoicedPeriod:
        """Close a period, or invoice it; another revision is the newest then."""
        made = InvoicedPeriod(tenant, PERIOD, revision)
        if isinstance(self.store, FakeInvoicingStore):
            there = self.store.there.setdefault(kind, {})
            there.pop(replace(made, revision=revision - 1), None)
            there[made] = at_us
            return made
        place = (tenant, PERIOD.start_us, PERIOD.end_us, revision, at_us)
        async with connection(self.dsn) as admin:
            if kind is Kind.AFTER:
                await admin.execute(
                    "insert into tallygate.invoice (tenant_id, period_start, period_end, revision,"
                    " currency, catalogs, lines, subtotal, discounts, credits, total, document,"
                    " reason, actor, created_at) values ($1, tallygate.instant($2),"
                    " tallygate.instant($3), $4, 'USD', '{}', '[]', 0, 0, 0, 0, '', '', '',"
                    " tallygate.instant($5))",
                    *place,
                )
                return made
            await admin.execute(
                "insert into tallygate.billing_period (tenant_id, start_at, end_at, revision,"
                " created_at) values ($1, tallygate.instant($2), tallygate.instant($3), $4,"
                " tallygate.instant($5)) on conflict (tenant_id, start_at) do update set"
                " revision = excluded.revision",
                *place,
            )
            await admin.execute(
                "insert into tallygate.period_revision (tenant_id, start_at, end_at, revision,"
                " cause, sealed_at, closed_at, events, digest) values ($1, tallygate.instant($2),"
                " tallygate.instant($3), $4, 'grace_over', tallygate.instant($5),"
                " tallygate.instant($5), 0, '')",
                *place,
            )
        return made


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of store, empty."""
    if dsn is None:
        yield Subject(FakeInvoicingStore())
        return
    postgres = Postgres(dsn)
    yield Subject(PostgresInvoicingStore(postgres), dsn)
    await postgres.close()


def note(kind: Kind, of: InvoicedPeriod, verdict: Verdict, at_us: int) -> InvoicingNote:
    """Return what a period came to at an instant, in a run of its own."""
    return InvoicingNote(kind, of, f"{kind}-{at_us}", verdict, 4, 3, at_us)


@pytest.mark.parametrize("kind", Kind)
async def test_each_revision_is_due_once(subject: Subject, kind: Kind) -> None:
    """The newest alone, until it was looked at; what is older than asked for is left."""
    store = subject.store
    first = await subject.make(kind, ACME, NOON_US)
    other = await subject.make(kind, OTHER, NOON_US - 1)
    assert await store.due(kind, ASKED) == [other, first]
    assert await store.due(kind, replace(ASKED, count=1)) == [other]
    assert await store.due(kind, replace(ASKED, tenant_id=ACME)) == [first]
    assert await store.due(kind, replace(ASKED, since_us=NOON_US)) == [first]
    await store.note(note(kind, first, Verdict.LATE, NOON_US))
    assert await store.due(kind, ASKED) == [other]
    (other_kind,) = [each for each in Kind if each is not kind]
    assert await store.due(other_kind, ASKED) == []
    second = await subject.make(kind, ACME, NOON_US + HOUR_US, 2)
    assert await store.due(kind, ASKED) == [other, second]


@pytest.mark.parametrize("verdict", [Verdict.DRIFT, Verdict.UNKNOWN])
async def test_what_drifts_is_due_again(subject: Subject, verdict: Verdict) -> None:
    """Not at once, but later, until it is found to be right."""
    store, kind = subject.store, Kind.BEFORE
    made = await subject.make(kind, ACME, NOON_US)
    await store.note(note(kind, made, verdict, ASKED.again_us + 1))
    assert await store.due(kind, ASKED) == []
    later = replace(ASKED, again_us=ASKED.again_us + 1)
    assert await store.due(kind, later) == [made]
    found = note(kind, made, Verdict.EXACT, ASKED.again_us + 2)
    await store.note(found)
    await store.note(found)
    assert await store.due(kind, later) == []


async def test_accuracy_is_of_what_was_found_last(subject: Subject) -> None:
    """Of each revision the newest run counts, by kind, since an instant."""
    store = subject.store
    made = await subject.make(Kind.BEFORE, ACME, NOON_US)
    assert await store.accuracy(0) == {}
    await store.note(note(Kind.BEFORE, made, Verdict.DRIFT, NOON_US))
    await store.note(replace(note(Kind.BEFORE, made, Verdict.EXACT, NOON_US + 9), exact=4))
    await store.note(note(Kind.BEFORE, replace(made, revision=2), Verdict.LATE, NOON_US + 5))
    await store.note(note(Kind.AFTER, made, Verdict.EXACT, NOON_US + 7))
    assert await store.accuracy(0) == {Kind.BEFORE: (8, 7), Kind.AFTER: (4, 3)}
    assert await store.accuracy(NOON_US + 8) == {Kind.BEFORE: (4, 4)}
