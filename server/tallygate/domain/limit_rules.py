"""What must hold of one limit, and of one override of it.

Guarantees: a limit without faults can be bound, and counted exactly; each fault says which field.
Refuses to know: documents, and the other limits of its plan.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tallygate.domain.catalog import (
    PPM,
    THRESHOLDS_MAX,
    UNLIMITED,
    Aggregation,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    OnOutage,
    Override,
    overridden,
)
from tallygate.domain.event import DIMENSION_VALUE_LENGTH_MAX, DIMENSIONS_MAX
from tallygate.domain.ids import AMOUNT_MAX, MeterName, is_name
from tallygate.domain.limit import BRIM_MAX, RATE_PERIODS_US, rate_rule
from tallygate.domain.path_fault import PathFault, unknown
from tallygate.domain.window import DAY_US, SECOND_US

ADDING: Final = (Aggregation.SUM, Aggregation.COUNT)
DURATION_US_MIN: Final = SECOND_US
# A leap year: what has to be counted for longer belongs in a calendar window.
DURATION_US_MAX: Final = 366 * DAY_US
# A limit looks each item up in its sets: a longer list is a dimension of its own.
WHERE_VALUES_MAX: Final = 64

SUITS: Final[Mapping[str, tuple[LimitKind, ...]]] = {
    "period": (LimitKind.WINDOW, LimitKind.RATE),
    "limit": (LimitKind.WINDOW, LimitKind.SLIDING, LimitKind.RATE, LimitKind.CONCURRENCY),
    "duration": (LimitKind.SLIDING,),
    "burst": (LimitKind.RATE,),
    "warn_at": (LimitKind.WINDOW,),
    "overdraft": (LimitKind.BALANCE,),
    "low_at": (LimitKind.BALANCE,),
}
"""The kinds that each field is for; fields that are not named here are for all."""

# A dimension's key as callers send it, but for what could be mistaken in `KEY=VALUE`.
_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")


def is_key(value: str) -> bool:
    """Say whether `value` may name a dimension in the catalog."""
    return _KEY.fullmatch(value) is not None


def unsuited(field: str) -> str:
    """Return the message for a field that stands at a limit of another kind."""
    return f"is for limits of kind {' and '.join(SUITS[field])}"


def limit_faults(limit: Limit, meters: Mapping[MeterName, Meter], path: str) -> Iterator[PathFault]:
    """Iterate over the faults of one limit."""
    if not is_name(limit.limit_id):
        yield PathFault(f"{path}.id", "is not a name: a-z, 0-9, '_', '.', '-'")
    meter = meters.get(limit.meter)
    if meter is None:
        yield unknown(f"{path}.meter", "meter", limit.meter, meters)
    elif meter.aggregation not in ADDING:
        yield PathFault(
            f"{path}.meter",
            f"a limit needs a meter that adds up, {limit.meter} takes the {meter.aggregation}",
        )
    yield from _suit_faults(limit, path)
    if not 0 <= limit.limit <= AMOUNT_MAX:
        yield PathFault(f"{path}.limit", f"must be from 0 to {AMOUNT_MAX}")
    elif limit.kind is LimitKind.RATE:
        yield from _rate_faults(limit, path)
    yield from _length_faults(limit, path)
    yield from _warning_faults(limit, path)
    yield from _balance_faults(limit, path)
    yield from _scope_faults(limit, path)
    yield from _outage_faults(limit, path)


def override_faults(limit: Limit, override: Override, path: str) -> Iterator[PathFault]:
    """Iterate over the faults of one override of that limit."""
    if override.expires_at_us < 0:
        yield PathFault(f"{path}.expires", "must be after 1970-01-01")
    if limit.kind is LimitKind.BALANCE:
        yield PathFault(path, "a balance has no limit to replace: grant it credits")
        return
    if not 0 <= override.limit <= AMOUNT_MAX:
        yield PathFault(f"{path}.limit", f"must be from 0 to {AMOUNT_MAX}")
        return
    if not 0 <= override.burst <= AMOUNT_MAX:
        yield PathFault(f"{path}.burst", f"must be from 1 to {AMOUNT_MAX}")
        return
    if not override.burst and limit.kind is not LimitKind.RATE:
        return
    if limit.kind is not LimitKind.RATE:
        yield PathFault(f"{path}.burst", unsuited("burst"))
    elif override.limit == UNLIMITED:
        if override.burst:
            yield PathFault(f"{path}.burst", "is for rates that are not unlimited")
    elif limit.period in RATE_PERIODS_US:
        changed = overridden(limit, override)
        if changed.burst * rate_rule(changed).weight > BRIM_MAX:
            yield PathFault(path, "is too large to be counted exactly at this rate")


def _suit_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    given = {
        "period": limit.period is not None,
        "limit": limit.limit != 0,
        "duration": limit.duration_us != 0,
        "burst": limit.burst != 0,
        "warn_at": bool(limit.warn_at_ppm),
        "overdraft": limit.overdraft != 0,
        "low_at": bool(limit.low_at),
    }
    for field, there in given.items():
        if there and limit.kind not in SUITS[field]:
            yield PathFault(f"{path}.{field}", unsuited(field))


def _rate_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    if limit.period not in RATE_PERIODS_US:
        periods = ", ".join(RATE_PERIODS_US)
        yield PathFault(f"{path}.period", f"of a rate must be one of {periods}")
    elif limit.limit < 1:
        yield PathFault(f"{path}.limit", "of a rate must be at least 1")
    elif limit.burst < 1:
        yield PathFault(f"{path}.burst", "must be at least 1")
    elif limit.limit == UNLIMITED:
        if limit.burst != UNLIMITED:
            yield PathFault(f"{path}.burst", "is for rates that are not unlimited")
    elif limit.burst * rate_rule(limit).weight > BRIM_MAX:
        yield PathFault(f"{path}.burst", "is too large to be counted exactly at this rate")


def _length_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    if limit.kind is LimitKind.WINDOW and limit.period is None:
        yield PathFault(f"{path}.period", "is required")
    holds = DURATION_US_MIN <= limit.duration_us <= DURATION_US_MAX
    if limit.kind is LimitKind.SLIDING and not holds:
        yield PathFault(f"{path}.duration", "must be from 1s to 366d")


def _warning_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    ratios = limit.warn_at_ppm
    if any(not 0 < ratio <= PPM for ratio in ratios):
        yield PathFault(f"{path}.warn_at", "holds a ratio that is not above 0 and at most 1")
    if list(ratios) != sorted(set(ratios)):
        yield PathFault(f"{path}.warn_at", "must rise")
    if len(ratios) > THRESHOLDS_MAX:
        yield PathFault(f"{path}.warn_at", f"holds more than {THRESHOLDS_MAX} ratios")


def _balance_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    if not 0 <= limit.overdraft <= AMOUNT_MAX:
        yield PathFault(f"{path}.overdraft", f"must be from 0 to {AMOUNT_MAX}")
    units = limit.low_at
    if any(not 0 <= each <= AMOUNT_MAX for each in units):
        yield PathFault(f"{path}.low_at", f"holds a number that is not from 0 to {AMOUNT_MAX}")
    if list(units) != sorted(set(units), reverse=True):
        yield PathFault(f"{path}.low_at", "must fall")
    if len(units) > THRESHOLDS_MAX:
        yield PathFault(f"{path}.low_at", f"holds more than {THRESHOLDS_MAX} numbers")


def _scope_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    if limit.per and not is_key(limit.per):
        yield PathFault(f"{path}.per", key_message())
    if limit.per and limit.kind is LimitKind.BALANCE:
        # Credits are granted to tenants: their books know no dimension.
        yield PathFault(f"{path}.per", "is not for limits of kind balance")
    yield from where_faults(limit.where, path)


def where_faults(where: Sequence[tuple[str, Sequence[str]]], path: str) -> Iterator[PathFault]:
    """Iterate over the faults of the values that a limit or a price is kept to."""
    if len(where) > DIMENSIONS_MAX:
        yield PathFault(f"{path}.where", f"holds more than {DIMENSIONS_MAX} names")
    for key, values in where:
        at = f"{path}.where.{key}"
        if not is_key(key):
            yield PathFault(at, key_message())
        if not values:
            yield PathFault(at, "must hold at least one value")
        if any(len(value) > DIMENSION_VALUE_LENGTH_MAX for value in values):
            yield PathFault(at, f"values must be at most {DIMENSION_VALUE_LENGTH_MAX} characters")
        if len(values) > WHERE_VALUES_MAX:
            yield PathFault(at, f"holds more than {WHERE_VALUES_MAX} values")
        if len(set(values)) < len(values):
            yield PathFault(at, "holds a value twice")


def key_message() -> str:
    """Return the message for what cannot name a dimension."""
    return "is not a name of up to 64: A-Z, a-z, 0-9, '_', '.', '-'"


def _outage_faults(limit: Limit, path: str) -> Iterator[PathFault]:
    at = f"{path}.on_outage"
    if limit.on_outage is OnOutage.LOCAL_BUDGET:
        if not 1 <= limit.local_budget <= AMOUNT_MAX:
            yield PathFault(at, f"local_budget must be from 1 to {AMOUNT_MAX}")
    elif limit.local_budget:
        yield PathFault(at, "must be local_budget, as a budget is given")
    if limit.on_exceed is OnExceed.SHADOW and limit.on_outage is not OnOutage.REFUSE:
        yield PathFault(at, "means nothing here: a shadow never refuses")
