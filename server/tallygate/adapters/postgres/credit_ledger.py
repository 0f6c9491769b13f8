"""Grants of credits and the postings about them, in Postgres: the authority on what is prepaid.

Guarantees: of a balance's grants, numbers are given one by one and without a gap, under the lock of
its row; a grant, its posting and its message are written in one transaction.
Refuses to know: plans, and how counters are given grants.
"""

from typing import Final

import asyncpg

from tallygate.adapters.postgres import messages
from tallygate.adapters.postgres.pool import Lent, Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.credit import (
    LIVE_GRANTS_MAX,
    NEVER_US,
    CreditGrant,
    GrantAsked,
    GrantId,
    LimitReset,
)
from tallygate.domain.errors import CounterOverflow, OperationIdReused, TooManyItems
from tallygate.domain.ids import AMOUNT_MAX, LimitId, OperationId, TenantId
from tallygate.ports.credit import BalanceState, CreditQuery

_NOWHERE: Final = (None, None, None, None)


class PostgresCreditLedger:
    """The `CreditLedger` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def grant(
        self, asked: GrantAsked, overdraft: int, now_us: int
    ) -> tuple[CreditGrant, bool]:
        """Make a grant, or return it as it was made before. See the port."""
        balance = (asked.tenant_id, asked.limit_id)
        async with self._postgres.connection() as connection, connection.transaction():
            await connection.execute(query("credit_note_balance"), *balance)
            await connection.execute(query("credit_lock_balance"), *balance)
            known = await _named(connection, asked)
            if known is not None:
                if not known.is_what(asked):
                    raise OperationIdReused(
                        f"grant {asked.grant_id!r} was made with other content", field="grant_id"
                    )
                return known, True
            await _check_room(connection, asked, overdraft, now_us)
            await connection.execute(
                query("credit_insert"),
                *balance,
                asked.grant_id,
                asked.amount,
                asked.priority,
                asked.starts_us or now_us,
                None if asked.expires_us == NEVER_US else asked.expires_us,
                asked.reason,
                asked.actor,
                now_us,
            )
            made = await _named(connection, asked)
            assert made is not None
            await messages.write_grant(connection, made)
        return made, False

    async def grants(self, asked: CreditQuery) -> list[CreditGrant]:
        """Return a tenant's grants in burn-down order, at most `asked.limit`."""
        after = asked.after or _NOWHERE
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("credit_page"), asked.tenant_id, asked.limit_id, *after, asked.limit
            )
        return [_grant(row) for row in rows]

    async def balances(
        self, after: tuple[str, str], count: int, *, unpublished: bool
    ) -> list[BalanceState]:
        """Return up to `count` balances by tenant and limit: all, or those not given whole."""
        name = "credit_unpublished" if unpublished else "credit_balances"
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query(name), *after, count)
        return [BalanceState(**dict(row)) for row in rows]

    async def live(self, tenant_id: TenantId, limit_id: LimitId, now_us: int) -> list[CreditGrant]:
        """Return up to 64 grants that have units left and no past expiry, by number."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("credit_live"), tenant_id, limit_id, now_us, LIVE_GRANTS_MAX
            )
        return [_grant(row) for row in rows]

    async def owed(self, tenant_id: TenantId, limit_id: LimitId, epoch: str) -> int:
        """Return the overdraft in use but for what was used up in that epoch."""
        async with self._postgres.connection() as connection:
            owed = await connection.fetchval(query("credit_owed"), tenant_id, limit_id, epoch)
        # What is repaid in this epoch may have been used in another.
        return max(0, int(owed))

    async def open(self, tenant_id: TenantId, limit_id: LimitId) -> int:
        """Return a balance's newest number; number 1 is left out where there is no grant yet."""
        async with self._postgres.connection() as connection:
            return int(await connection.fetchval(query("credit_open"), tenant_id, limit_id))

    async def published(self, state: BalanceState) -> None:
        """Mark what counters have been given; a mark of the same epoch never goes back."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                query("credit_published"),
                state.tenant_id,
                state.limit_id,
                state.published_seq,
                state.published_shard,
                state.published_epoch,
            )

    async def expire(self, expired_before_us: int, count: int, now_us: int) -> int:
        """Post what is left of up to `count` grants that expired by then; return how many."""
        async with self._postgres.connection() as connection, connection.transaction():
            # A statement of its own: the next one must see what the last holder has posted.
            if not await connection.fetchval(query("credit_expiry_lock")):
                return 0
            expire = query("credit_expire")
            return int(await connection.fetchval(expire, expired_before_us, count, now_us))


class PostgresResetAudit:
    """The `ResetAudit` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def find(self, tenant_id: TenantId, operation_id: OperationId) -> LimitReset | None:
        """Return the reset that an operation made, None when there is none."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(query("reset_find"), tenant_id, operation_id)
        return LimitReset(**dict(row)) if row is not None else None

    async def write(self, reset: LimitReset) -> LimitReset:
        """Write a reset; return it, or what another call wrote under its operation before."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                query("reset_insert"),
                reset.tenant_id,
                reset.operation_id,
                reset.limit_id,
                reset.scope,
                reset.used_before,
                reset.used_after,
                reset.reason,
                reset.actor,
                reset.reset_at_us,
            )
        written = await self.find(reset.tenant_id, OperationId(reset.operation_id))
        assert written is not None
        return written


async def _named(connection: Lent, asked: GrantAsked) -> CreditGrant | None:
    row = await connection.fetchrow(
        query("credit_named"), asked.tenant_id, asked.limit_id, asked.grant_id
    )
    return _grant(row) if row is not None else None


async def _check_room(connection: Lent, asked: GrantAsked, overdraft: int, now_us: int) -> None:
    row = await connection.fetchrow(
        query("credit_room"), asked.tenant_id, asked.limit_id, now_us, LIVE_GRANTS_MAX
    )
    assert row is not None
    if row["live"] >= LIVE_GRANTS_MAX:
        raise TooManyItems(
            f"the balance has {LIVE_GRANTS_MAX} grants that are neither used up nor expired",
            field="limit_id",
        )
    if int(row["units"]) + asked.amount + overdraft > AMOUNT_MAX:
        raise CounterOverflow(field="amount")


def _grant(row: asyncpg.Record) -> CreditGrant:
    return CreditGrant(
        tenant_id=TenantId(row["tenant_id"]),
        limit_id=LimitId(row["limit_id"]),
        grant_id=GrantId(row["grant_id"]),
        seq=row["seq"],
        amount=row["amount"],
        remaining=int(row["remaining"]),
        priority=row["priority"],
        starts_us=row["starts_us"],
        expires_us=NEVER_US if row["expires_us"] is None else row["expires_us"],
        created_at_us=row["created_at_us"],
        reason=row["reason"],
        actor=row["actor"],
    )
