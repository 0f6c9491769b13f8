"""What must hold of a tenant's billing periods, whatever they were read from.

Guarantees: periods that pass begin and end with whole minutes, so that they are sums of rollups by
minute; there is no more than one per hour.
Refuses to know: documents and lines.
"""

from collections.abc import Iterator
from typing import Final
from zoneinfo import ZoneInfoNotFoundError

from tallygate.domain.catalog import Tenant
from tallygate.domain.path_fault import PathFault
from tallygate.domain.window import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    Billing,
    BillingKind,
    to_datetime,
    zone_of,
)

# Every period is closed, told and kept: more of them than hours are windows, not bills.
EVERY_US_MIN: Final = HOUR_US
EVERY_US_MAX: Final = 3_660 * DAY_US
GRACE_US_MAX: Final = 366 * DAY_US
# Twenty years of months; all of them are in every sidecar's memory.
STARTS_MAX: Final = 240


def billing_faults(tenant: Tenant, path: str) -> Iterator[PathFault]:
    """Iterate over the faults of a tenant's anchor and billing."""
    calendar = tenant.calendar
    try:
        anchor = to_datetime(calendar.anchor_us).astimezone(zone_of(calendar.time_zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # The zone is told as its own fault.
        return
    # By the zone's clock: some of them were off by seconds in 1970, where anchors are that are not
    # set.
    if anchor.second or anchor.microsecond:
        yield PathFault(f"{path}.anchor", "must be a whole minute, as billing periods are")
    if calendar.billing is not None:
        yield from _billing_faults(calendar.billing, f"{path}.billing")


def _billing_faults(billing: Billing, path: str) -> Iterator[PathFault]:
    if not 0 <= billing.grace_us <= GRACE_US_MAX:
        yield PathFault(f"{path}.grace", "must be above 0, at most 366d")
    if billing.grace_us % MINUTE_US:
        yield PathFault(f"{path}.grace", "must be whole minutes")
    at = f"{path}.period"
    if billing.kind is BillingKind.EVERY:
        if not EVERY_US_MIN <= billing.every_us <= EVERY_US_MAX:
            yield PathFault(f"{at}.every", "must be from 1h to 3660d")
        if billing.every_us % MINUTE_US:
            yield PathFault(f"{at}.every", "must be whole minutes")
    elif billing.every_us:
        yield PathFault(f"{at}.every", "is for periods of a length alone")
    if billing.kind is BillingKind.STARTS:
        yield from _starts_faults(billing.starts_us, f"{at}.starts")
    elif billing.starts_us:
        yield PathFault(f"{at}.starts", "is for periods with starts alone")


def _starts_faults(starts_us: tuple[int, ...], path: str) -> Iterator[PathFault]:
    if not starts_us:
        yield PathFault(path, "must have at least one start")
    if len(starts_us) > STARTS_MAX:
        yield PathFault(path, f"holds more than {STARTS_MAX} starts")
    for place, start_us in enumerate(starts_us):
        if start_us % MINUTE_US:
            yield PathFault(f"{path}[{place}]", "must be a whole minute")
        if place and start_us < starts_us[place - 1] + EVERY_US_MIN:
            yield PathFault(f"{path}[{place}]", "must be an hour later than the one before")
