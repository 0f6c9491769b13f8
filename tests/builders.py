"""Builders of catalogs, operations and stores: a test names only what it is about.

Owns the small catalog of the decision's tests. Refuses to know servers.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Limit,
    LimitKind,
    Meter,
    Plan,
    Tenant,
    default_tenant,
)
from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
)
from tallygate.domain.errors import CatalogNotLoaded, UnknownTenant
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    PlanName,
    TenantId,
    account_of,
)
from tallygate.domain.limit import charge
from tallygate.domain.window import Calendar, Period

ACME: Final = TenantId("acme")
REQUESTS: Final = MeterName("requests")
BYTES: Final = MeterName("egress_bytes")
SHARDS: Final = 16
MEMORY_MS: Final = 60_000


def now_us() -> int:
    """Return the machine's time, which the servers of the tests share."""
    return time.time_ns() // 1000


def window(name: str = "monthly", limit: int = 100, **fields: object) -> Limit:
    """Return a limit of `limit` requests a month, with other fields replaced."""
    values: dict[str, object] = {
        "limit_id": LimitId(name),
        "meter": REQUESTS,
        "kind": LimitKind.WINDOW,
        "period": Period.MONTH,
        "limit": limit,
    }
    return Limit(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def rate(name: str = "rate", limit: int = 10, **fields: object) -> Limit:
    """Return a limit of `limit` requests a second with a burst of as many."""
    values: dict[str, object] = {
        "kind": LimitKind.RATE,
        "period": Period.SECOND,
        "burst": limit,
    }
    return window(name, limit, **{**values, **fields})


def catalog(*limits: Limit, **fields: object) -> Catalog:
    """Return a catalog whose default plan, `free`, has these limits."""
    values: dict[str, object] = {
        "version": 1,
        "meters": {
            REQUESTS: Meter(REQUESTS, Aggregation.SUM),
            BYTES: Meter(BYTES, Aggregation.SUM),
        },
        "plans": {PlanName("free"): Plan(PlanName("free"), limits)},
        "default_plan": PlanName("free"),
    }
    return Catalog(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def tenant(name: str = "acme", **fields: object) -> Tenant:
    """Return a tenant on the plan `free`."""
    values: dict[str, object] = {"tenant_id": TenantId(name), "plan": PlanName("free")}
    return Tenant(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def charges(
    limits: Sequence[Limit], amount: int, account: TenantId = ACME, at_us: int | None = None
) -> tuple[Charge, ...]:
    """Return what the limits charge for `amount`, with the windows around `at_us`, else now."""
    moment = now_us() if at_us is None else at_us
    of = account_of(account)
    return tuple(charge(limit, of, Calendar(), amount, moment) for limit in limits)


def consume(
    limits: Sequence[Limit] = (), amount: int = 1, name: str | None = None, **fields: object
) -> Operation:
    """Return a charge by `acme` of `amount`, remembered as `name`, with one event."""
    account = fields.get("tenant_id", ACME)
    values: dict[str, object] = {
        "mode": Mode.CONSUME,
        "tenant_id": account,
        "shard": 3,
        "operation_id": OperationId(name) if name is not None else None,
        "fingerprint": f"{amount:032x}" if name is not None else "",
        "charges": charges(limits, amount, account),  # type: ignore[arg-type]
        "event_count": 1,
        "payload": payload(name or "unnamed", amount),
    }
    return Operation(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


def check(limits: Sequence[Limit], amount: int = 0, **fields: object) -> Operation:
    """Return a question by `acme` that changes nothing."""
    plain: dict[str, object] = {"mode": Mode.CHECK, "event_count": 0, "payload": b""}
    return consume(limits, amount, None, **{**plain, **fields})


def payload(name: str, amount: int = 1) -> bytes:
    """Return one encoded event."""
    event = UsageEvent(EventId(name), ACME, REQUESTS, amount, 0, OperationId(name))
    return ProtobufEventEncoder().encode([event])


def decided(outcome: object) -> Decided:
    """Return the outcome as the decision that it has to be."""
    assert isinstance(outcome, Decided), outcome
    return outcome


def used(outcome: object) -> list[int]:
    """Return the units used, by limit, of a decision."""
    return [reading.used for reading in decided(outcome).readings]


@dataclass(slots=True)
class CatalogInMemory:
    """The `CatalogView` port over what a test declares; nothing until a catalog is set."""

    catalog: Catalog | None
    tenants: Mapping[TenantId, Tenant] = field(default_factory=dict)

    def current(self) -> Catalog:
        """Return the catalog."""
        if self.catalog is None:
            raise CatalogNotLoaded
        return self.catalog

    def lineage_held(self, tenant_id: TenantId) -> tuple[Tenant, ...] | None:
        """Hold nothing, so that every call asks."""
        return None

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant and those above it."""
        found: list[Tenant] = []
        name: TenantId | None = tenant_id
        while name is not None:
            each = self.tenants.get(name) or default_tenant(self.current(), name)
            if each is None:
                raise UnknownTenant(field="tenant_id")
            found.append(each)
            name = each.parent
        return tuple(found)
