"""What Envoy is told: a status per descriptor, and what all of them come to.

Guarantees: the limit that is shown for a descriptor is one that its own item met, the one that
refused it, or else the one with the least left.
Refuses to know: Envoy's messages and headers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tallygate.domain.catalog import UNLIMITED, Catalog, Limit, LimitKind, Tenant, limits_of
from tallygate.domain.decision import Decided, LimitReading, LimitState
from tallygate.domain.envoy import RateDomain
from tallygate.domain.ids import scope_of, tenant_of
from tallygate.domain.request import Item
from tallygate.domain.window import Period


@dataclass(frozen=True, slots=True)
class ShownLimit:
    """A limit as Envoy shows it: so many units per period, None where it has no such period."""

    name: str
    units: int
    period: Period | None


@dataclass(frozen=True, slots=True)
class RateStatus:
    """One descriptor's. `remaining` None is without bound; `resets_in_us` 0 is never."""

    over: bool = False
    limit: ShownLimit | None = None
    remaining: int | None = 0
    resets_in_us: int = 0


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """A call's. `readings` come with the decision's time; `reason` says why without a limit."""

    domain: RateDomain
    over: bool
    statuses: tuple[RateStatus, ...]
    readings: tuple[tuple[int, LimitReading], ...] = ()
    refused_by: str = ""
    reason: str = ""
    retry_after_us: int | None = None
    tenants: tuple[str, ...] = ()
    degraded: bool = False


def status_of(
    decision: Decided, item: Item, catalog: Catalog, lineage: Sequence[Tenant], *, alone: bool
) -> RateStatus:
    """Return the status of one item of a decision, which is `alone` in it or not."""
    own = [each for each in decision.readings if alone or meets(each, item)]
    refusing = [each for each in own if each.limit_id == decision.refused_by]
    shown = refusing[0] if refusing else tightest(own)
    over = not decision.allowed and bool(refusing)
    if shown is None:
        return RateStatus(over=over, remaining=None if not own and not over else 0)
    limit = _limit_of(shown, catalog, lineage, decision.at_us)
    units = limit.limit if limit is not None and limit.kind is LimitKind.RATE else shown.limit
    resets_in_us = shown.resets_at_us - decision.at_us if shown.resets_at_us else 0
    return RateStatus(
        over=over,
        limit=ShownLimit(shown.limit_id, units, limit.period if limit is not None else None),
        remaining=0 if over else max(shown.remaining, 0),
        resets_in_us=max(resets_in_us, 0),
    )


def bounded(reading: LimitReading) -> bool:
    """Say whether a limit can refuse: it has a bound, and does more than observe."""
    return reading.limit != UNLIMITED and reading.state is not LimitState.SHADOW_EXCEEDED


def tightest(readings: Iterable[LimitReading]) -> LimitReading | None:
    """Return the reading with the least left, None where none has a bound."""
    return min(filter(bounded, readings), key=lambda each: each.remaining, default=None)


def meets(reading: LimitReading, item: Item) -> bool:
    """Say whether a limit was met by this item, as far as a reading tells."""
    if reading.meter != item.meter:
        return False
    key, equals, value = scope_of(reading.account).partition("=")
    return not equals or item.dimensions.get(key, value) == value


def _limit_of(
    reading: LimitReading, catalog: Catalog, lineage: Sequence[Tenant], now_us: int
) -> Limit | None:
    owner = tenant_of(reading.account)
    for member in lineage:
        if owner in ("", member.tenant_id):
            for limit in limits_of(catalog, member, now_us):
                if limit.limit_id == reading.limit_id:
                    return limit
    return None
