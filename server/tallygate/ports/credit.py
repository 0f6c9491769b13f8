"""The seams of credits and resets: their ledger and their audit.

Guarantees: each port has a fake in `testing/` that passes the same tests as the real adapter.
Refuses to know: Redis, Postgres, gRPC.

A method that reaches a server raises `BackendUnavailable` when it does not answer in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tallygate.domain.credit import CreditGrant, GrantAsked, LimitReset
from tallygate.domain.ids import LimitId, OperationId, TenantId


@dataclass(frozen=True, slots=True)
class CreditQuery:
    """Which grants to read. `after` is a place in burn-down order, None for the beginning."""

    tenant_id: TenantId
    limit_id: LimitId | None = None
    limit: int = 100
    after: tuple[str, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class BalanceState:
    """How far a balance's grants have come: `last_seq` made, `published_seq` given to counters.

    They were given to those of `published_epoch` in `published_shard`; "" and -1 for none yet.
    """

    tenant_id: TenantId
    limit_id: LimitId
    last_seq: int
    published_seq: int = 0
    published_shard: int = -1
    published_epoch: str = ""


class CreditLedger(Protocol):
    """Grants, once for ever, in a double-entry ledger; and what counters were given of them."""

    async def grant(
        self, asked: GrantAsked, overdraft: int, now_us: int
    ) -> tuple[CreditGrant, bool]:
        """Make a grant under its balance's next number, or return it as it was made before.

        The second value says that it was made before. Raises `OperationIdReused` when its id was
        used for something else, `TooManyItems` when the balance has no place for one more, and
        `CounterOverflow` when its units, with the overdraft, would pass what is exact.
        """
        ...

    async def grants(self, query: CreditQuery) -> list[CreditGrant]:
        """Return a tenant's grants in burn-down order, at most `query.limit`."""
        ...

    async def balances(
        self, after: tuple[str, str], count: int, *, unpublished: bool
    ) -> list[BalanceState]:
        """Return up to `count` balances by tenant and limit: all, or those not given whole."""
        ...

    async def live(
        self, tenant_id: TenantId, limit_id: LimitId, now_us: int
    ) -> Sequence[CreditGrant]:
        """Return up to 64 grants that have units left and no past expiry, by number."""
        ...

    async def owed(self, tenant_id: TenantId, limit_id: LimitId, epoch: str) -> int:
        """Return the overdraft in use but for what was used up in that epoch."""
        ...

    async def open(self, tenant_id: TenantId, limit_id: LimitId) -> int:
        """Return a balance's newest number; number 1 is left out where there is no grant yet.

        So that counters can be told overdraft under a number, which makes telling it again vain.
        """
        ...

    async def published(self, state: BalanceState) -> None:
        """Mark what counters have been given; a mark of the same epoch never goes back."""
        ...

    async def expire(self, expired_before_us: int, count: int, now_us: int) -> int:
        """Post what is left of up to `count` grants that expired by then; return how many."""
        ...


class ResetAudit(Protocol):
    """Who set which counter back: append-only."""

    async def find(self, tenant_id: TenantId, operation_id: OperationId) -> LimitReset | None:
        """Return the reset that an operation made, None when there is none."""
        ...

    async def write(self, reset: LimitReset) -> LimitReset:
        """Write a reset; return it, or what another call wrote under its operation before."""
        ...
