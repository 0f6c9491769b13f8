"""What every `CreditLedger` and `ResetAudit` promises, asked of the fakes and of Postgres alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger, PostgresResetAudit
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.credit import (
    LIVE_GRANTS_MAX,
    NEVER_US,
    GrantAsked,
    GrantId,
    LimitReset,
    burn_down_order,
)
from tallygate.domain.errors import CounterOverflow, OperationIdReused, TooManyItems
from tallygate.domain.event import BalanceBurn
from tallygate.domain.ids import AMOUNT_MAX, LimitId, OperationId, TenantId
from tallygate.domain.window import DAY_US, HOUR_US
from tallygate.ports import Ledger, LedgerBatch
from tallygate.ports.credit import BalanceState, CreditLedger, CreditQuery, ResetAudit
from tallygate.testing.credit import FakeCreditLedger, FakeResetAudit
from tallygate.testing.ledger import FakeLedger
from tests.servers import connection
from tests.usage_events import NOON_US, burn

ACME = TenantId("acme")
CREDITS = LimitId("credits")


@dataclass(frozen=True, slots=True)
class Subject:
    """A credit ledger, the ledger whose burns it sees, an audit."""

    credits: CreditLedger
    ledger: Ledger
    audit: ResetAudit
    dsn: str | None = None

    async def burn(self, *burns: BalanceBurn) -> None:
        """Store burns."""
        await self.ledger.persist(LedgerBatch((), burns=burns))

    async def left(self) -> list[int]:
        """Return what is left of each grant of the balance, in burn-down order."""
        return [each.remaining for each in await self.credits.grants(CreditQuery(ACME, CREDITS))]

    async def sum_of_accounts(self) -> int:
        """Return the sum over all accounts, which the fake does not keep."""
        if self.dsn is None:
            return 0
        async with connection(self.dsn) as admin:
            found: Decimal | None = await admin.fetchval(
                "select sum(balance) from tallygate.credit_account"
            )
        return int(found or 0)


@pytest.fixture(params=["fake", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return request.getfixturevalue("postgres_dsn") if request.param == "postgres" else None


@pytest.fixture
async def subject(dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of credit ledger, empty."""
    if dsn is None:
        ledger = FakeLedger()
        yield Subject(FakeCreditLedger(ledger), ledger, FakeResetAudit())
        return
    postgres = Postgres(dsn)
    yield Subject(
        PostgresCreditLedger(postgres), PostgresLedger(postgres), PostgresResetAudit(postgres), dsn
    )
    await postgres.close()


def asked(number: int = 1, **fields: object) -> GrantAsked:
    """Return a grant of 100 units whose id is `grant-NUMBER`."""
    values: dict[str, object] = {
        "tenant_id": ACME,
        "limit_id": CREDITS,
        "grant_id": GrantId(f"grant-{number}"),
        "amount": 100,
    }
    return GrantAsked(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


async def test_grants_are_numbered_per_balance(subject: Subject) -> None:
    """Numbers begin at 1 in each balance and run without a gap."""
    for number in (1, 2):
        made, before = await subject.credits.grant(asked(number), 0, NOON_US)
        assert (made.seq, made.remaining, made.starts_us, before) == (number, 100, NOON_US, False)
    other, _ = await subject.credits.grant(asked(limit_id=LimitId("other")), 0, NOON_US)
    assert other.seq == 1
    assert await subject.sum_of_accounts() == 0


async def test_grants_made_at_once_get_a_number_each(subject: Subject) -> None:
    """Concurrent grants of one balance neither share a number nor leave one out."""
    made = await asyncio.gather(
        *(subject.credits.grant(asked(number), 0, NOON_US) for number in range(8))
    )
    assert sorted(grant.seq for grant, _ in made) == list(range(1, 9))


async def test_the_same_grant_is_made_once(subject: Subject) -> None:
    """A repeat returns the first grant as it stands, also later and with a start left open."""
    first, _ = await subject.credits.grant(asked(reason="trial", actor="ann"), 0, NOON_US)
    await subject.burn(burn(amount=30))
    again, before = await subject.credits.grant(asked(reason="trial", actor="bob"), 0, NOON_US + 9)
    assert (again, before) == (replace(first, remaining=70), True)
    assert len(await subject.credits.grants(CreditQuery(ACME))) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": 101},
        {"priority": 1},
        {"expires_us": NOON_US + 1},
        {"reason": "x"},
        {"starts_us": 7},
    ],
    ids=str,
)
async def test_a_grant_id_stands_for_one_content(
    subject: Subject, fields: dict[str, object]
) -> None:
    """The id with other content is refused, naming the field; nothing is granted."""
    await subject.credits.grant(asked(), 0, NOON_US)
    with pytest.raises(OperationIdReused) as raised:
        await subject.credits.grant(asked(1, **fields), 0, NOON_US)
    assert raised.value.field == "grant_id"
    assert await subject.left() == [100]


async def test_a_balance_holds_so_many_live_grants(subject: Subject) -> None:
    """Past 64 that are neither used up nor expired one more is refused, until one is used up."""
    for number in range(LIVE_GRANTS_MAX):
        await subject.credits.grant(asked(number), 0, NOON_US)
    with pytest.raises(TooManyItems):
        await subject.credits.grant(asked(99), 0, NOON_US)
    await subject.burn(burn(amount=100))
    made, _ = await subject.credits.grant(asked(99), 0, NOON_US)
    assert made.seq == LIVE_GRANTS_MAX + 1


async def test_a_balance_stays_exact(subject: Subject) -> None:
    """Grants and overdraft together stay below 2^53."""
    with pytest.raises(CounterOverflow):
        await subject.credits.grant(asked(amount=AMOUNT_MAX), 1, NOON_US)
    await subject.credits.grant(asked(amount=AMOUNT_MAX - 1), 1, NOON_US)
    with pytest.raises(CounterOverflow):
        await subject.credits.grant(asked(2, amount=1), 1, NOON_US)


async def test_burns_leave_what_is_left(subject: Subject) -> None:
    """A burn takes from its grant, a negative one gives back; the accounts always add up to 0."""
    await subject.credits.grant(asked(1), 0, NOON_US)
    await subject.credits.grant(asked(2), 0, NOON_US)
    await subject.burn(
        burn(0, amount=60),
        burn(1, grant_seq=2, amount=5),
        burn(2, amount=-10),
        burn(3, grant_seq=0, amount=7),
        burn(4, grant_seq=-1, amount=3),
        # A top-up that repays overdraft.
        burn(5, grant_seq=2, amount=4),
        burn(6, grant_seq=0, amount=-4),
    )
    assert await subject.left() == [50, 91]
    assert await subject.credits.owed(ACME, CREDITS, "") == 3
    assert await subject.sum_of_accounts() == 0


async def test_owed_is_what_other_epochs_used(subject: Subject) -> None:
    """Overdraft used in an epoch is known to its counters, and is not told to them again."""
    await subject.burn(
        burn(0, grant_seq=0, amount=7, counter_epoch="e1"),
        burn(1, grant_seq=0, amount=5, counter_epoch="e2"),
        burn(2, grant_seq=0, amount=-2, counter_epoch="e1"),
    )
    owed = [await subject.credits.owed(ACME, CREDITS, epoch) for epoch in ("e1", "e2", "e3")]
    assert owed == [5, 5, 10]


async def test_grants_are_read_in_burn_down_order(subject: Subject) -> None:
    """Pages follow each other by limit, priority, expiry and number, and miss none."""
    later, sooner = NOON_US + DAY_US, NOON_US + HOUR_US
    for number, (priority, expires_us) in enumerate(
        [(1, NEVER_US), (0, NEVER_US), (0, later), (0, sooner), (-1, NEVER_US), (0, later)]
    ):
        wanted = asked(number, priority=priority, expires_us=expires_us)
        await subject.credits.grant(wanted, 0, NOON_US)
    await subject.credits.grant(asked(limit_id=LimitId("a")), 0, NOON_US)
    found = []
    after: tuple[str, int, int, int] | None = None
    while page := await subject.credits.grants(CreditQuery(ACME, limit=2, after=after)):
        found += page
        after = burn_down_order(page[-1])
    assert [(each.limit_id, each.seq) for each in found] == [
        ("a", 1),
        *(("credits", seq) for seq in (5, 4, 3, 6, 2, 1)),
    ]
    assert await subject.credits.grants(CreditQuery(TenantId("other"))) == []


async def test_live_grants_have_units_and_time(subject: Subject) -> None:
    """Grants used up or expired are left out; one that has yet to start is not."""
    await subject.credits.grant(asked(1), 0, NOON_US)
    await subject.credits.grant(asked(2, expires_us=NOON_US + 5), 0, NOON_US)
    await subject.credits.grant(asked(3, starts_us=NOON_US + DAY_US), 0, NOON_US)
    await subject.credits.grant(asked(4), 0, NOON_US)
    await subject.burn(burn(amount=100))
    for now_us, seqs in ((NOON_US, [2, 3, 4]), (NOON_US + 5, [3, 4])):
        found = await subject.credits.live(ACME, CREDITS, now_us)
        assert [each.seq for each in found] == seqs


async def test_published_is_told_apart_by_epoch(subject: Subject) -> None:
    """A mark never goes back in its epoch; another epoch begins where it says."""
    await subject.credits.grant(asked(1), 0, NOON_US)
    await subject.credits.grant(asked(2), 0, NOON_US)
    (state,) = await subject.credits.balances(("", ""), 10, unpublished=True)
    assert state == BalanceState(ACME, CREDITS, 2)
    for seq, epoch, expected in ((2, "e1", 2), (1, "e1", 2), (1, "e2", 1)):
        told = replace(state, published_seq=seq, published_shard=3, published_epoch=epoch)
        await subject.credits.published(told)
        (found,) = await subject.credits.balances(("", ""), 10, unpublished=False)
        assert found == BalanceState(ACME, CREDITS, 2, expected, 3, epoch)
    assert len(await subject.credits.balances(("", ""), 10, unpublished=True)) == 1
    assert await subject.credits.balances((ACME, CREDITS), 10, unpublished=True) == []


async def test_a_balance_without_a_grant_is_known_by_its_burns(subject: Subject) -> None:
    """Overdraft that was used before any grant is found again when counters are lost."""
    await subject.burn(burn(grant_seq=0, amount=7))
    assert await subject.credits.balances(("", ""), 10, unpublished=True) == [
        BalanceState(ACME, CREDITS, 0)
    ]
    assert await subject.credits.open(ACME, CREDITS) == 1
    assert await subject.credits.open(ACME, CREDITS) == 1
    made, _ = await subject.credits.grant(asked(), 0, NOON_US)
    assert made.seq == 2
    assert await subject.credits.open(ACME, CREDITS) == 2


async def test_expired_units_are_posted_once(subject: Subject) -> None:
    """What is left of an expired grant goes to `expired`; what comes later is set right."""
    await subject.credits.grant(asked(1, expires_us=NOON_US + 10), 0, NOON_US)
    await subject.credits.grant(asked(2), 0, NOON_US)
    await subject.burn(burn(0, amount=30))
    assert await subject.credits.expire(NOON_US + 9, 10, NOON_US) == 0
    assert await subject.credits.expire(NOON_US + 10, 10, NOON_US) == 1
    assert await subject.credits.expire(NOON_US + 10, 10, NOON_US) == 0
    assert await subject.left() == [0, 100]
    # A burn that the stream had kept back for longer than anybody expected, and units back.
    await subject.burn(burn(1, amount=5))
    assert await subject.left() == [-5, 100]
    assert await subject.credits.expire(NOON_US + 10, 10, NOON_US) == 1
    assert await subject.left() == [0, 100]
    assert await subject.sum_of_accounts() == 0


async def test_expiries_at_once_post_once(subject: Subject) -> None:
    """Two processes that expire at the same moment take no unit twice."""
    for number in range(20):
        await subject.credits.grant(asked(number, expires_us=NOON_US + 1), 0, NOON_US)
    await asyncio.gather(*(subject.credits.expire(NOON_US + 1, 50, NOON_US) for _ in range(4)))
    assert await subject.left() == [0] * 20


async def test_a_reset_is_written_once(subject: Subject) -> None:
    """The first audit of an operation stays; that of another operation stands beside it."""
    reset = LimitReset(ACME, "op-1", LimitId("daily"), "user=7", 50, 2, "typo", "ann", NOON_US)
    assert await subject.audit.find(ACME, OperationId("op-1")) is None
    assert await subject.audit.write(reset) == reset
    assert await subject.audit.write(replace(reset, used_before=2)) == reset
    assert await subject.audit.find(ACME, OperationId("op-1")) == reset
    assert await subject.audit.find(TenantId("other"), OperationId("op-1")) is None
