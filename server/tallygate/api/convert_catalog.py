"""Between the catalog's protos and the domain, both ways.

Guarantees: what converts is well-formed; whether it holds together is for the catalog's rules.
Refuses to know: what is done with catalogs.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.api.convert_prices import price, price_message, terms, terms_message
from tallygate.api.convert_texts import PROSE_LENGTH_MAX, name, text
from tallygate.domain import catalog as domain
from tallygate.domain import ids
from tallygate.domain.catalog import (
    PPM,
    UNLIMITED,
    Aggregation,
    LatePolicy,
    Limit,
    LimitKind,
    OnExceed,
    OnOutage,
    Weight,
)
from tallygate.domain.catalog_diff import Change, ChangeKind
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.limit_rules import SUITS
from tallygate.domain.price import TERMS
from tallygate.domain.window import DAY_US, Calendar, Period, from_datetime, zone_of
from tallygate.gen.v1 import admin_pb2, catalog_pb2

Value = TypeVar("Value", bound=StrEnum)

# The bounds of a catalog document, which holds the same values.
DURATION_US_MAX: Final = 3_660 * DAY_US
INSTANT_US_END: Final = from_datetime(datetime(2200, 1, 1, tzinfo=UTC))
_RATIO: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?|\.[0-9]{1,6}")
_PERCENTILE: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?")

CHANGE_KINDS: Final = {
    ChangeKind.ADDED: admin_pb2.CHANGE_KIND_ADDED,
    ChangeKind.CHANGED: admin_pb2.CHANGE_KIND_CHANGED,
    ChangeKind.REMOVED: admin_pb2.CHANGE_KIND_REMOVED,
}
_AGGREGATIONS: Final = {
    Aggregation.COUNT: catalog_pb2.AGGREGATION_COUNT,
    Aggregation.SUM: catalog_pb2.AGGREGATION_SUM,
    Aggregation.MAX: catalog_pb2.AGGREGATION_MAX,
    Aggregation.MIN: catalog_pb2.AGGREGATION_MIN,
    Aggregation.LATEST: catalog_pb2.AGGREGATION_LATEST,
    Aggregation.UNIQUE: catalog_pb2.AGGREGATION_UNIQUE,
    Aggregation.PERCENTILE: catalog_pb2.AGGREGATION_PERCENTILE,
    Aggregation.TIME_WEIGHTED: catalog_pb2.AGGREGATION_TIME_WEIGHTED,
}
_LATE_POLICIES: Final = {
    LatePolicy.NEXT_PERIOD: catalog_pb2.LATE_POLICY_NEXT_PERIOD,
    LatePolicy.CORRECT: catalog_pb2.LATE_POLICY_CORRECT,
}
_KINDS: Final = {
    LimitKind.WINDOW: catalog_pb2.LIMIT_KIND_WINDOW,
    LimitKind.SLIDING: catalog_pb2.LIMIT_KIND_SLIDING,
    LimitKind.RATE: catalog_pb2.LIMIT_KIND_RATE,
    LimitKind.CONCURRENCY: catalog_pb2.LIMIT_KIND_CONCURRENCY,
    LimitKind.BALANCE: catalog_pb2.LIMIT_KIND_BALANCE,
}
_PERIODS: Final = {
    Period.SECOND: catalog_pb2.PERIOD_SECOND,
    Period.MINUTE: catalog_pb2.PERIOD_MINUTE,
    Period.HOUR: catalog_pb2.PERIOD_HOUR,
    Period.DAY: catalog_pb2.PERIOD_DAY,
    Period.WEEK: catalog_pb2.PERIOD_WEEK,
    Period.MONTH: catalog_pb2.PERIOD_MONTH,
    Period.QUARTER: catalog_pb2.PERIOD_QUARTER,
    Period.YEAR: catalog_pb2.PERIOD_YEAR,
    Period.BILLING_PERIOD: catalog_pb2.PERIOD_BILLING_PERIOD,
}
_ON_EXCEED: Final = {
    OnExceed.REFUSE: catalog_pb2.ON_EXCEED_REFUSE,
    OnExceed.ALLOW: catalog_pb2.ON_EXCEED_ALLOW,
    OnExceed.SHADOW: catalog_pb2.ON_EXCEED_SHADOW,
}
_ON_OUTAGE: Final = {
    OnOutage.REFUSE: catalog_pb2.ON_OUTAGE_REFUSE,
    OnOutage.ALLOW: catalog_pb2.ON_OUTAGE_ALLOW,
    OnOutage.LOCAL_BUDGET: catalog_pb2.ON_OUTAGE_LOCAL_BUDGET,
}


def meter(message: catalog_pb2.Meter) -> domain.Meter:
    """Return the meter. Raises `InvalidField`."""
    horizon_us = domain.LATE_HORIZON_US
    if message.HasField("late_horizon"):
        horizon_us = duration_us(message.late_horizon, "meter.late_horizon")
    return domain.Meter(
        name=MeterName(name(message.name, "meter.name")),
        aggregation=_value(_AGGREGATIONS, message.aggregation, "meter.aggregation"),
        unit=text(message.unit, "meter.unit"),
        description=text(message.description, "meter.description", PROSE_LENGTH_MAX),
        late_horizon_us=horizon_us,
        weights=tuple(
            _weight(each, f"meter.weights[{index}]") for index, each in enumerate(message.weights)
        ),
        unique_by=text(message.unique_by, "meter.unique_by"),
        percentile_ppm=_percentile_ppm(message.percentile),
        group_by=tuple(
            text(each, f"meter.group_by[{index}]") for index, each in enumerate(message.group_by)
        ),
        late_policy=_late_policy(message),
    )


def meter_message(found: domain.Meter) -> catalog_pb2.Meter:
    """Return the meter as a message."""
    message = catalog_pb2.Meter(
        name=found.name,
        aggregation=_AGGREGATIONS[found.aggregation],
        unit=found.unit,
        description=found.description,
        weights=[
            catalog_pb2.Weight(
                meter=each.meter, units=each.units, by=each.by, values=dict(each.values)
            )
            for each in found.weights
        ],
        unique_by=found.unique_by,
        percentile=f"{Decimal(found.percentile_ppm) / 10_000:f}" if found.percentile_ppm else "",
        group_by=found.group_by,
        late_policy=_LATE_POLICIES[found.late_policy],
    )
    message.late_horizon.FromMicroseconds(found.late_horizon_us)
    return message


def _percentile_ppm(text: str) -> int:
    if not text:
        return 0
    if not _PERCENTILE.fullmatch(text) or not 0 < (percent := Decimal(text)) <= 100:
        message = "must be above 0 and at most 100, with at most 4 decimals"
        raise InvalidField(message, field="meter.percentile")
    return int(percent * 10_000)


def _late_policy(message: catalog_pb2.Meter) -> LatePolicy:
    if message.late_policy == catalog_pb2.LATE_POLICY_UNSPECIFIED:
        return LatePolicy.NEXT_PERIOD
    return _value(_LATE_POLICIES, message.late_policy, "meter.late_policy")


def plan(message: catalog_pb2.Plan) -> domain.Plan:
    """Return the plan. Raises `InvalidField`."""
    return domain.Plan(
        name=PlanName(name(message.name, "plan.name")),
        limits=tuple(
            _limit(limit, f"plan.limits[{index}]") for index, limit in enumerate(message.limits)
        ),
        description=text(message.description, "plan.description", PROSE_LENGTH_MAX),
        prices=tuple(
            price(each, f"plan.prices[{index}]") for index, each in enumerate(message.prices)
        ),
        terms=terms(message.terms, "plan.terms"),
    )


def plan_message(found: domain.Plan) -> catalog_pb2.Plan:
    """Return the plan as a message."""
    return catalog_pb2.Plan(
        name=found.name,
        limits=[_limit_message(limit) for limit in found.limits],
        description=found.description,
        prices=[price_message(each) for each in found.prices],
        # A plan that states none has none: it comes back as it went.
        terms=terms_message(found.terms) if found.terms != TERMS else None,
    )


def tenant(message: catalog_pb2.Tenant) -> domain.Tenant:
    """Return the tenant. Raises `InvalidField`."""
    identity = ids.tenant_id(message.tenant_id, "tenant.tenant_id")
    zone = message.time_zone or "UTC"
    return domain.Tenant(
        tenant_id=identity,
        plan=PlanName(name(message.plan, "tenant.plan")),
        calendar=Calendar(zone, _anchor_us(message, zone), message.fiscal_month or 1),
        currency=message.currency or "USD",
        stripe_customer_id=text(message.stripe_customer_id, "tenant.stripe_customer_id"),
        parent=ids.tenant_id(message.parent, "tenant.parent") if message.parent else None,
        overrides=tuple(
            override(each, f"tenant.overrides[{index}]")
            for index, each in enumerate(message.overrides)
        ),
        suspended=message.suspended,
    )


def tenant_message(found: domain.Tenant) -> catalog_pb2.Tenant:
    """Return the tenant as a message."""
    message = catalog_pb2.Tenant(
        tenant_id=found.tenant_id,
        plan=found.plan,
        time_zone=found.calendar.time_zone,
        currency=found.currency,
        stripe_customer_id=found.stripe_customer_id,
        parent=found.parent or "",
        overrides=[override_message(found.tenant_id, each) for each in found.overrides],
        suspended=found.suspended,
        fiscal_month=found.calendar.fiscal_month,
    )
    message.anchor.FromMicroseconds(found.calendar.anchor_us)
    return message


def override(message: catalog_pb2.Override, path: str = "override") -> domain.Override:
    """Return the override. Raises `InvalidField`."""
    expires_at_us = 0
    if message.HasField("expires_at"):
        # 0 says that there is no end.
        expires_at_us = instant_us(message.expires_at, f"{path}.expires_at", 1)
    return domain.Override(
        limit_id=LimitId(name(message.limit_id, f"{path}.limit_id")),
        limit=UNLIMITED if message.unlimited else message.limit,
        burst=message.burst,
        expires_at_us=expires_at_us,
        reason=text(message.reason, f"{path}.reason"),
    )


def override_message(tenant_id: TenantId, found: domain.Override) -> catalog_pb2.Override:
    """Return the override as a message."""
    message = catalog_pb2.Override(
        tenant_id=tenant_id,
        limit_id=found.limit_id,
        limit=found.limit,
        burst=found.burst,
        unlimited=found.limit == UNLIMITED,
        reason=found.reason,
    )
    if found.expires_at_us:
        message.expires_at.FromMicroseconds(found.expires_at_us)
    return message


def change_message(change: Change) -> admin_pb2.CatalogChange:
    """Return the change as a message."""
    return admin_pb2.CatalogChange(
        kind=CHANGE_KINDS[change.kind],
        path=change.path,
        before=change.before,
        after=change.after,
    )


def instant_us(instant: Timestamp, field: str, least_us: int = 0) -> int:
    """Return microseconds, within the years that every store can hold. Raises `InvalidField`."""
    try:
        found_us: int = instant.ToMicroseconds()
    except ValueError:
        # Seconds or nanoseconds outside of what the type allows.
        found_us = INSTANT_US_END
    if not least_us <= found_us < INSTANT_US_END:
        raise InvalidField("must be in a year from 1970 to 2199", field=field)
    return found_us


def duration_us(duration: Duration, field: str) -> int:
    """Return a duration in microseconds. Raises `InvalidField`."""
    try:
        found_us: int = duration.ToMicroseconds()
    except ValueError:
        found_us = 0
    if not 0 < found_us <= DURATION_US_MAX:
        raise InvalidField("must be above 0, at most 3660 days", field=field)
    return found_us


def _limit(message: catalog_pb2.Limit, path: str) -> Limit:
    kind = _value(_KINDS, message.kind, f"{path}.kind")
    number = UNLIMITED if message.unlimited else message.limit
    if message.unlimited and kind is LimitKind.BALANCE:
        raise InvalidField("is not for limits of kind balance", field=f"{path}.unlimited")
    trailing_us = 0
    if message.HasField("duration"):
        trailing_us = duration_us(message.duration, f"{path}.duration")
    return Limit(
        limit_id=LimitId(name(message.limit_id, f"{path}.limit_id")),
        meter=MeterName(name(message.meter, f"{path}.meter")),
        kind=kind,
        period=_period(message, kind, f"{path}.period"),
        limit=number,
        burst=message.burst or (number if kind is LimitKind.RATE else 0),
        on_exceed=_value(_ON_EXCEED, message.on_exceed, f"{path}.on_exceed"),
        warn_at_ppm=tuple(_ratio_ppm(ratio, f"{path}.warn_at") for ratio in message.warn_at),
        duration_us=trailing_us,
        overdraft=message.overdraft,
        low_at=tuple(message.low_at),
        per=text(message.per, f"{path}.per"),
        where=_where(message.where, f"{path}.where"),
        on_outage=_value(
            _ON_OUTAGE, message.on_outage or catalog_pb2.ON_OUTAGE_REFUSE, f"{path}.on_outage"
        ),
        local_budget=message.local_budget,
        exact=message.exact,
    )


def _period(message: catalog_pb2.Limit, kind: LimitKind, path: str) -> Period | None:
    if kind not in SUITS["period"] and message.period == catalog_pb2.PERIOD_UNSPECIFIED:
        return None
    return _value(_PERIODS, message.period, path)


def _where(
    values: Mapping[str, catalog_pb2.DimensionValues], path: str
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (text(key, path), tuple(text(value, f"{path}[{key!r}]") for value in values[key].values))
        for key in sorted(values)
    )


def _weight(message: catalog_pb2.Weight, path: str) -> Weight:
    for value in message.values:
        text(value, f"{path}.values")
    return Weight(
        meter=MeterName(name(message.meter, f"{path}.meter")),
        units=message.units,
        by=text(message.by, f"{path}.by"),
        values=tuple(sorted(message.values.items())),
    )


def _limit_message(limit: Limit) -> catalog_pb2.Limit:
    message = catalog_pb2.Limit(
        limit_id=limit.limit_id,
        meter=limit.meter,
        kind=_KINDS[limit.kind],
        limit=limit.limit,
        burst=limit.burst,
        on_exceed=_ON_EXCEED[limit.on_exceed],
        warn_at=[str(Decimal(ratio) / PPM) for ratio in limit.warn_at_ppm],
        unlimited=limit.limit == UNLIMITED,
        overdraft=limit.overdraft,
        low_at=limit.low_at,
        per=limit.per,
        where={key: catalog_pb2.DimensionValues(values=values) for key, values in limit.where},
        on_outage=_ON_OUTAGE[limit.on_outage],
        local_budget=limit.local_budget,
        exact=limit.exact,
    )
    if limit.period is not None:
        message.period = _PERIODS[limit.period]
    if limit.duration_us:
        message.duration.FromMicroseconds(limit.duration_us)
    return message


def _ratio_ppm(text: str, field: str) -> int:
    if not _RATIO.fullmatch(text):
        raise InvalidField("must be a ratio such as 0.8, with at most 6 decimals", field=field)
    return int(Decimal(text) * PPM)


def _value(known: Mapping[Value, int], number: int, field: str) -> Value:
    for value, found in known.items():
        if found == number:
            return value
    raise InvalidField(f"must be one of {', '.join(known)}", field=field)


def _anchor_us(message: catalog_pb2.Tenant, zone: str) -> int:
    if message.HasField("anchor"):
        # East of Greenwich, midnight of 1 January 1970 is before the epoch.
        return instant_us(message.anchor, "tenant.anchor", -DAY_US)
    try:
        return from_datetime(datetime(1970, 1, 1, tzinfo=zone_of(zone)))
    except (KeyError, ValueError, OSError):
        # Whether it is a zone is for the catalog's rules to tell.
        return 0
