"""operator ─▶ control ─▶ [ grant ] ─▶ credit ledger: prepaid credits are checked and written.

If we die here before the write is committed, nothing was granted. If we die after it, the caller
asks again with the same grant id and is told what was granted; `credit` hands it to the counters.

Guarantees: a grant id adds its credits once; only a balance of the tenant's own plan is added to.
Refuses to know: counters.
"""

from typing import Final

from tallygate.domain import event, ids
from tallygate.domain.catalog import LimitKind
from tallygate.domain.credit import NEVER_US, CreditGrant, GrantAsked
from tallygate.domain.errors import InvalidField, NotFound, UnknownTenant
from tallygate.flow.family import limit_named, members
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.credit import CreditLedger, CreditQuery

REASON_LENGTH_MAX: Final = 256
# What a protobuf int32 holds, and the ledger's column.
PRIORITY_MAX: Final = 2**31 - 1


class Granting:
    """Adds credits to balances, and reads what was added."""

    def __init__(self, ledger: CreditLedger, catalogs: CatalogStore, clock: Clock) -> None:
        self._ledger = ledger
        self._catalogs = catalogs
        self._clock = clock

    async def grant(self, asked: GrantAsked) -> tuple[CreditGrant, bool]:
        """Add credits; return the grant, and whether it had been made before.

        Raises `InvalidField`, `UnknownTenant`, `NotFound`, and what the ledger raises.
        """
        now_us = self._clock.now_us()
        _check(asked, now_us)
        catalog = await self._catalogs.effective(now_us)
        found = await members(self._catalogs, catalog, [asked.tenant_id])
        if asked.tenant_id not in found:
            raise UnknownTenant(f"there is no tenant {asked.tenant_id!r}", field="tenant_id")
        tenant = found[asked.tenant_id].tenant
        limit = limit_named(catalog, tenant, asked.limit_id, now_us)
        if limit is None:
            raise NotFound(
                f"the plan {tenant.plan!r} has no limit {asked.limit_id!r}", field="limit_id"
            )
        if limit.kind is not LimitKind.BALANCE:
            raise InvalidField(f"is a {limit.kind.value}, not a balance", field="limit_id")
        if limit.per:
            # What burns does not say of which value, so that grants could not say it either.
            raise InvalidField(f"counts per {limit.per}, where credits cannot", field="limit_id")
        return await self._ledger.grant(asked, limit.overdraft, now_us)

    async def grants(self, query: CreditQuery) -> list[CreditGrant]:
        """Return a tenant's grants in burn-down order, at most `query.limit`."""
        return await self._ledger.grants(query)


def _check(asked: GrantAsked, now_us: int) -> None:
    ids.operation_id(asked.grant_id, "grant_id")
    ids.amount(asked.amount)
    event.text(asked.reason, "reason", REASON_LENGTH_MAX)
    event.text(asked.actor, "actor", REASON_LENGTH_MAX)
    if abs(asked.priority) > PRIORITY_MAX:
        raise InvalidField(f"must be within {PRIORITY_MAX} of 0", field="priority")
    if asked.expires_us == NEVER_US:
        return
    if asked.expires_us <= max(asked.starts_us, now_us):
        raise InvalidField("must be after the start, and not passed", field="expires_at")
