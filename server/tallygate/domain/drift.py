"""Differences between what the ledger says and what was made of it, and which side is off.

Guarantees: pure; the same findings give the same verdict.
Refuses to know: where figures are kept, and how they are mended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.ids import LimitId, MeterName, TenantId
from tallygate.domain.window import DAY_US, HOUR_US, to_datetime


class Check(StrEnum):
    """What was compared with the ledger."""

    COUNTER = "counter"
    BALANCE = "balance"
    ROLLUP = "rollup"
    LEDGER = "ledger"
    DELIVERY = "delivery"
    COMPLETENESS = "completeness"


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure that is not what it should be.

    `what` names the table, limit or destination that is off, `where` the place in it. `expected`
    is what all else says.
    """

    check: Check
    what: str
    tenant_id: TenantId
    where: str
    expected: int
    found: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Usage in a bucket; without an event but for refunds, `max` and `min` are 0."""

    count: int
    sum: int
    max: int
    min: int


NOTHING: Final = Figures(0, 0, 0, 0)
FIGURES: Final = ("sum", "count", "max", "min")
ROLLUPS: Final = frozenset({"usage_minute", "usage_hour", "usage_day"})


@dataclass(frozen=True, slots=True)
class BookedGrant:
    """What the ledger has left of a grant; `expires_us` is AMOUNT_MAX for never."""

    seq: int
    remaining: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class BalanceBook:
    """A balance by the ledger: its grants, the overdraft in use, and what counters were given.

    Up to `published_seq` the counters of `published_epoch` have its grants.
    """

    tenant_id: TenantId
    limit_id: LimitId
    published_seq: int
    published_epoch: str
    owed: int
    grants: tuple[BookedGrant, ...] = ()


class Level(StrEnum):
    """Two stores of the same usage that were compared, the finer one first."""

    EVENTS_MINUTE = "minute"
    MINUTE_HOUR = "hour"
    MINUTE_DAY = "day"


@dataclass(frozen=True, slots=True)
class Unequal:
    """A bucket that has other figures in the coarser store than in the finer one."""

    level: Level
    tenant_id: TenantId
    meter: MeterName
    bucket_us: int
    finer: Figures
    coarser: Figures


def blamed(found: Sequence[Unequal], leaf: str) -> Iterator[Difference]:
    """Say of unequal buckets of one partition which store is off: the one that stands alone.

    Events are compared with minutes, and minutes with hours and days. Where events and minutes
    differ, while minutes agree with both hour and day, it is the partition, `leaf`, that is off.
    """
    coarse = {
        (each.level, each.tenant_id, each.meter, each.bucket_us)
        for each in found
        if each.level is not Level.EVENTS_MINUTE
    }
    minutes: set[tuple[Level, TenantId, MeterName, int]] = set()
    for each in found:
        if each.level is not Level.EVENTS_MINUTE:
            continue
        of = (each.tenant_id, each.meter)
        above = [
            (Level.MINUTE_HOUR, *of, each.bucket_us - each.bucket_us % HOUR_US),
            (Level.MINUTE_DAY, *of, each.bucket_us - each.bucket_us % DAY_US),
        ]
        unequal = [place for place in above if place in coarse]
        if unequal:
            minutes.update(unequal)
            yield _difference(each, "usage_minute", each.finer, each.coarser)
        else:
            detail = "the rollups by minute, hour and day agree with each other"
            yield _difference(each, leaf, each.coarser, each.finer, detail)
    for each in found:
        place = (each.level, each.tenant_id, each.meter, each.bucket_us)
        # Where a minute was found to be off, it is why its hour and its day differ from it.
        if each.level is not Level.EVENTS_MINUTE and place not in minutes:
            yield _difference(each, f"usage_{each.level.value}", each.finer, each.coarser)


def _difference(
    of: Unequal, what: str, expected: Figures, found: Figures, detail: str = ""
) -> Difference:
    name = first_unequal(expected, found)
    return Difference(
        check=Check.ROLLUP if what in ROLLUPS else Check.LEDGER,
        what=f"{what}.{name}" if what in ROLLUPS else what,
        tenant_id=of.tenant_id,
        where=f"{of.meter} {spelled(of.bucket_us)}",
        expected=getattr(expected, name),
        found=getattr(found, name),
        detail=detail or f"{name} differs",
    )


def first_unequal(one: Figures, other: Figures) -> str:
    """Return the name of the first figure that differs."""
    return next(name for name in FIGURES if getattr(one, name) != getattr(other, name))


def spelled(instant_us: int) -> str:
    """Return an instant as people write it, in UTC."""
    return to_datetime(instant_us).isoformat().replace("+00:00", "Z")
