"""Prepaid credits as operators grant them, and as the ledger has them.

Guarantees: what a repeated grant must have in common with the first is said here, once.
Refuses to know: how credits are used up, and where they are stored.
"""

from dataclasses import dataclass
from typing import Final, NewType

from tallygate.domain.detail import Grant
from tallygate.domain.ids import AMOUNT_MAX, LimitId, TenantId

GrantId = NewType("GrantId", str)

# As many as Redis keeps of one balance: each costs a turn of a loop on every call.
LIVE_GRANTS_MAX: Final = 64
NEVER_US: Final = AMOUNT_MAX


@dataclass(frozen=True, slots=True)
class GrantAsked:
    """Credits to add. `starts_us` 0 means now, `expires_us` `NEVER_US` for ever."""

    tenant_id: TenantId
    limit_id: LimitId
    grant_id: GrantId
    amount: int
    priority: int = 0
    starts_us: int = 0
    expires_us: int = NEVER_US
    reason: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """A grant in the ledger. `seq` numbers its balance's grants from 1, in the order of making."""

    tenant_id: TenantId
    limit_id: LimitId
    grant_id: GrantId
    seq: int
    amount: int
    remaining: int
    priority: int
    starts_us: int
    expires_us: int
    created_at_us: int
    reason: str = ""
    actor: str = ""

    def is_what(self, asked: GrantAsked) -> bool:
        """Say whether this is what is asked for. Who asks is no part of it."""
        return (
            self.tenant_id == asked.tenant_id
            and self.limit_id == asked.limit_id
            and self.grant_id == asked.grant_id
            and self.amount == asked.amount
            and self.priority == asked.priority
            and self.expires_us == asked.expires_us
            and self.reason == asked.reason
            # A start that was left to the moment is the moment of making.
            and self.starts_us == (asked.starts_us or self.created_at_us)
        )

    def as_counted(self) -> Grant:
        """Return the grant as counters take it."""
        return Grant(
            seq=self.seq,
            priority=self.priority,
            starts_us=self.starts_us,
            expires_us=self.expires_us,
            granted=self.amount,
            # More than was granted comes back only by a fault elsewhere; counters must not get it.
            remaining=max(0, min(self.amount, self.remaining)),
        )


def burn_down_order(grant: CreditGrant) -> tuple[str, int, int, int]:
    """Return the place of a grant: by limit, priority, expiry and number."""
    return (grant.limit_id, grant.priority, grant.expires_us, grant.seq)


@dataclass(frozen=True, slots=True)
class LimitReset:
    """The audit of one reset. `scope` is `KEY=VALUE` for one value of a dimension, else empty."""

    tenant_id: TenantId
    operation_id: str
    limit_id: LimitId
    scope: str
    used_before: int
    used_after: int
    reason: str
    actor: str
    reset_at_us: int
