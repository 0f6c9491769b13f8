"""operator ─▶ control ─▶ [ reset ] ─▶ Redis, then audit: what is used is set to what is held.

If we die here before Redis has answered, the reset was made or not: asked again with the same
operation id, Redis answers as it did the first time. If we die after it and before the audit is
written, the counter is reset and not audited yet: the same call again writes the audit with the
first readings, as long as Redis remembers operations (15 minutes); later it resets once more, and
audits that. A reset that the caller has had an answer to is always in the audit.

Guarantees: an operation id resets once; what was used before and after is kept with who and why.
Refuses to know: how counters are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tallygate.domain import event
from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.credit import LimitReset
from tallygate.domain.decision import (
    Decided,
    Fenced,
    Mode,
    Moved,
    Operation,
    Outcome,
    Reused,
    Stale,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    InvalidField,
    NotFound,
    OperationIdReused,
    StorageFault,
    TallygateError,
    UnknownTenant,
)
from tallygate.domain.ids import LimitId, OperationId, TenantId, account_of, shard_of
from tallygate.domain.limit import charge
from tallygate.flow.family import Member, limit_named, members
from tallygate.ports import CatalogStore, Clock, QuotaStore
from tallygate.ports.carry import PublishedCatalog
from tallygate.ports.credit import ResetAudit

TEXT_LENGTH_MAX: Final = 256
# A window may turn between two readings of the clock, not twice.
TRIES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class ResetAsked:
    """What to reset, and for the audit who asks and why.

    `dimensions` names the value of a limit per dimension, and is empty for others.
    """

    tenant_id: TenantId
    limit_id: LimitId
    operation_id: OperationId
    reason: str
    actor: str
    dimensions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResetParts:
    """What a reset works with."""

    store: QuotaStore
    audit: ResetAudit
    catalogs: CatalogStore
    clock: Clock
    shards: int
    # What sidecars know: a tenant's counters are where they take them to be.
    published: PublishedCatalog | None = None


class Resetting:
    """Resets counters."""

    def __init__(self, parts: ResetParts) -> None:
        self._parts = parts

    async def reset(self, asked: ResetAsked) -> tuple[LimitReset, bool]:
        """Reset; return the audit, and whether the same call had reset before.

        Raises `InvalidField`, `UnknownTenant`, `NotFound`, `OperationIdReused`, and what Redis and
        the audit raise.
        """
        _check(asked)
        scope = _scope(asked.dimensions)
        known = await self._parts.audit.find(asked.tenant_id, asked.operation_id)
        if known is not None:
            return _same(known, asked, scope), True
        now_us = self._parts.clock.now_us()
        member, limit = await self._resolve(asked, now_us)
        decided = await self._decide(asked, member, limit, now_us)
        before, after = decided.readings
        reset = LimitReset(
            tenant_id=asked.tenant_id,
            operation_id=asked.operation_id,
            limit_id=asked.limit_id,
            scope=scope,
            used_before=before.used,
            used_after=after.used,
            reason=asked.reason,
            actor=asked.actor,
            reset_at_us=decided.at_us,
        )
        return await self._parts.audit.write(reset), decided.replayed

    async def _resolve(self, asked: ResetAsked, now_us: int) -> tuple[Member, Limit]:
        catalogs = self._parts.catalogs
        catalog = await catalogs.effective(now_us)
        tenants = self._parts.published or catalogs
        found = await members(tenants, catalog, [asked.tenant_id])
        if asked.tenant_id not in found:
            raise UnknownTenant(f"there is no tenant {asked.tenant_id!r}", field="tenant_id")
        member = found[asked.tenant_id]
        limit = limit_named(catalog, member.tenant, asked.limit_id, now_us)
        if limit is None:
            raise NotFound(
                f"the plan {member.tenant.plan!r} has no limit {asked.limit_id!r}",
                field="limit_id",
            )
        if limit.kind is LimitKind.BALANCE:
            raise InvalidField("is a balance: grant credits instead", field="limit_id")
        wanted = {limit.per} if limit.per else set()
        if set(asked.dimensions) != wanted:
            told = f"must name {limit.per!r} alone" if limit.per else "must be empty"
            raise InvalidField(f"{told} for this limit", field="dimensions")
        return member, limit

    async def _decide(
        self, asked: ResetAsked, member: Member, limit: Limit, now_us: int
    ) -> Decided:
        outcome: Outcome | TallygateError = Stale(now_us)
        for _ in range(TRIES_MAX):
            if not isinstance(outcome, Stale):
                break
            operation = self._operation(asked, member, limit, outcome.now_us)
            (outcome,) = await self._parts.store.decide([operation])
        match outcome:
            case Decided() if len(outcome.readings) == 2:
                return outcome
            case Reused():
                raise OperationIdReused(field="operation_id")
            case Moved():
                raise BackendUnavailable("the tenant is on its way to another parent")
            case Fenced():
                raise BackendUnavailable("the shard's counters are being rebuilt")
            case Stale():
                raise BackendUnavailable("the windows kept turning")
            case TallygateError():
                raise outcome
            case _:
                raise StorageFault(f"a reset was answered with {type(outcome).__name__}")

    def _operation(self, asked: ResetAsked, member: Member, limit: Limit, now_us: int) -> Operation:
        key = limit.per
        account = account_of(asked.tenant_id, key, asked.dimensions.get(key, ""))
        return Operation(
            mode=Mode.RESET,
            tenant_id=asked.tenant_id,
            shard=shard_of(member.root, self._parts.shards),
            # No client's operation id holds a space, so that none is taken for a reset's.
            operation_id=OperationId(f"reset {asked.operation_id}"),
            fingerprint=f"{asked.limit_id} {_scope(asked.dimensions)}",
            charges=(charge(limit, account, member.tenant.calendar, 0, now_us),),
        )


def _check(asked: ResetAsked) -> None:
    for name, value in (("reason", asked.reason), ("actor", asked.actor)):
        if not value.strip():
            raise InvalidField("is required", field=name)
        event.text(value, name, TEXT_LENGTH_MAX)
    event.dimensions(asked.dimensions)


def _scope(dimensions: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(dimensions.items()))


def _same(known: LimitReset, asked: ResetAsked, scope: str) -> LimitReset:
    """Return the audit if it is of the same call. Who asks, and why, may be told in other words."""
    if (known.limit_id, known.scope) != (asked.limit_id, scope):
        raise OperationIdReused(
            f"operation {asked.operation_id!r} has reset something else", field="operation_id"
        )
    return known
