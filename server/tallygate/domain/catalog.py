"""The catalog: meters, plans, limits, tenants, destinations, and the limits that bind a tenant.

Guarantees: a `Catalog` is immutable and complete; its parts refer to each other by name.
Refuses to know: the document it was read from, and where it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from tallygate.domain.envoy import NO_RULES, EnvoyRules
from tallygate.domain.event_rules import NO_EVENT_RULES, EventRules
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName, PlanName, TenantId
from tallygate.domain.price import TERMS, Price, Terms
from tallygate.domain.stripe_sync import StripeAccount, StripeSync
from tallygate.domain.window import DAY_US, Calendar, Period

# 35 days, as far back as Stripe accepts a meter event.
LATE_HORIZON_US: Final = 35 * DAY_US
# Ratios are whole parts per million: decimal fractions stay exact without floats.
PPM: Final = 1_000_000
LINEAGE_MAX: Final = 8
THRESHOLDS_MAX: Final = 8
# No counter can pass it, so a limit of that many units never refuses.
UNLIMITED: Final = AMOUNT_MAX


class Aggregation(StrEnum):
    """How a meter's events become one number."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    LATEST = "latest"
    UNIQUE = "unique"
    PERCENTILE = "percentile"
    TIME_WEIGHTED = "time_weighted"


class LatePolicy(StrEnum):
    """Where an event goes whose billing period is closed."""

    NEXT_PERIOD = "next_period"
    CORRECT = "correct"


class LimitKind(StrEnum):
    """How a limit measures."""

    WINDOW = "window"
    SLIDING = "sliding"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    BALANCE = "balance"


class OnExceed(StrEnum):
    """What happens when a limit would be passed."""

    REFUSE = "refuse"
    ALLOW = "allow"
    SHADOW = "shadow"


class OnOutage(StrEnum):
    """What decides while the counters cannot be reached."""

    REFUSE = "refuse"
    ALLOW = "allow"
    LOCAL_BUDGET = "local_budget"


@dataclass(frozen=True, slots=True)
class Weight:
    """What one unit of another meter counts as.

    With `by`, the name of a dimension or of a field of the context, its value's entry in `values`
    counts, and `units` where it has none.
    """

    meter: MeterName
    units: int
    by: str = ""
    values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Meter:
    """What is counted, in its smallest unit. `weights` let usage of other meters count here too.

    `unique_by`, of `UNIQUE`, and the names of `group_by` are dimensions, or fields of the context.
    `percentile_ppm`, of `PERCENTILE`, is 950_000 for the 95th.
    """

    name: MeterName
    aggregation: Aggregation = Aggregation.SUM
    unit: str = ""
    description: str = ""
    late_horizon_us: int = LATE_HORIZON_US
    weights: tuple[Weight, ...] = ()
    unique_by: str = ""
    percentile_ppm: int = 0
    group_by: tuple[str, ...] = ()
    late_policy: LatePolicy = LatePolicy.NEXT_PERIOD
    stripe: StripeSync | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a plan. `limit` may be `UNLIMITED`; of a balance it is 0.

    `period` is set for windows and rates, `duration_us` for sliding limits, `burst` for rates,
    `warn_at_ppm` (rising) for windows, `overdraft` and `low_at` (units, falling) for balances.

    Where `per` names a dimension, or a field of the context, each of its values has a counter of
    its own. `where` keeps the limit to items that have one of the values given, per such name.
    `local_budget` is how many units each sidecar may grant in an outage, for `LOCAL_BUDGET`.
    """

    limit_id: LimitId
    meter: MeterName
    kind: LimitKind
    period: Period | None
    limit: int
    burst: int = 0
    on_exceed: OnExceed = OnExceed.REFUSE
    warn_at_ppm: tuple[int, ...] = ()
    duration_us: int = 0
    overdraft: int = 0
    low_at: tuple[int, ...] = ()
    per: str = ""
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    on_outage: OnOutage = OnOutage.REFUSE
    local_budget: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A named set of limits, and what is asked for: its prices and their terms."""

    name: PlanName
    limits: tuple[Limit, ...] = ()
    description: str = ""
    prices: tuple[Price, ...] = ()
    terms: Terms = TERMS


@dataclass(frozen=True, slots=True)
class Override:
    """A number that replaces a plan's for one tenant; `burst` 0 keeps the plan's.

    It counts before `expires_at_us`, 0 for ever. `reason` is for people.
    """

    limit_id: LimitId
    limit: int
    burst: int = 0
    expires_at_us: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who uses and pays. While it is suspended, nothing is granted to it or below it."""

    tenant_id: TenantId
    plan: PlanName
    calendar: Calendar = Calendar()
    currency: str = "USD"
    stripe_customer_id: str = ""
    parent: TenantId | None = None
    overrides: tuple[Override, ...] = ()
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where messages go. `secret_env` or `secret_file` says where the relay finds the secret.

    One with `stripe` takes no messages: usage goes there as intents.
    """

    name: str
    kind: str
    url: str
    types: tuple[str, ...]
    secret_env: str = ""
    secret_file: str = ""
    stripe: StripeAccount | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """All but the tenants, of which there may be millions."""

    version: int = 0
    meters: Mapping[MeterName, Meter] = field(default_factory=dict)
    plans: Mapping[PlanName, Plan] = field(default_factory=dict)
    default_plan: PlanName | None = None
    destinations: tuple[Destination, ...] = ()
    envoy: EnvoyRules = NO_RULES
    ingest: EventRules = NO_EVENT_RULES


def default_tenant(catalog: Catalog, tenant_id: TenantId) -> Tenant | None:
    """Return an undeclared tenant as the default plan has it, None where there is none."""
    if catalog.default_plan is None:
        return None
    return Tenant(tenant_id=tenant_id, plan=catalog.default_plan)


def limits_of(catalog: Catalog, tenant: Tenant, now_us: int = 0) -> tuple[Limit, ...]:
    """Return the limits of the tenant's plan with the overrides of then, in the plan's order.

    A plan that has gone limits nothing more: the catalog's validation keeps plans that are in use.
    """
    plan = catalog.plans.get(tenant.plan)
    if plan is None:
        return ()
    overrides = {
        override.limit_id: override
        for override in tenant.overrides
        if not override.expires_at_us or now_us < override.expires_at_us
    }
    return tuple(
        overridden(limit, overrides[limit.limit_id]) if limit.limit_id in overrides else limit
        for limit in plan.limits
    )


def overridden(limit: Limit, override: Override) -> Limit:
    """Return the limit with the numbers of an override of it."""
    burst = override.burst or limit.burst
    if limit.kind is LimitKind.RATE and not override.burst and limit.burst == limit.limit:
        # A burst that was left to follow the limit follows it still.
        burst = override.limit
    return replace(limit, limit=override.limit, burst=burst)


def thresholds(limit: Limit) -> tuple[tuple[int, int], ...]:
    """Return each warning's ratio in ppm and the units, at least 1, at which it is crossed."""
    return tuple((ppm, max(1, -(-limit.limit * ppm // PPM))) for ppm in limit.warn_at_ppm)
