"""What a simulation finds: per tenant and limit, who would have been refused and when.

Guarantees: a refused call is counted once, against the first limit that refuses it; memory grows
with tenants and their limits, never with events.
Refuses to know: where usage is read from, and how limits decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tallygate.domain.catalog import UNLIMITED, OnExceed
from tallygate.domain.decision import Charge, Decided, LimitState
from tallygate.domain.ids import LimitId, MeterName, TenantId, tenant_of

_OVER = (LimitState.EXCEEDED, LimitState.SHADOW_EXCEEDED)


class Unjudged(StrEnum):
    """Why calls could not be put to limits: they would have failed, or nothing is known."""

    UNKNOWN_METER = "unknown meter"
    UNKNOWN_TENANT = "unknown tenant"
    SUSPENDED = "tenant suspended"
    TOO_MANY_LIMITS = "too many limits"
    OVERFLOW = "counter overflow"
    REFUND_OF_REFUSED = "refund of a refused event"


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit as one tenant's calls met it; its `owner` is the tenant, or a parent.

    `events` are those of all calls that met it. `refused` counts the calls that it was the first to
    refuse, `over` those that it let pass all the same, being soft. `highest` is the most that was
    used at once.
    """

    tenant_id: TenantId
    owner: TenantId
    limit_id: LimitId
    meter: MeterName
    limit: int
    events: int
    refused: int
    refused_events: int
    refused_units: int
    first_refused_us: int
    over: int
    highest: int

    @property
    def share_ppm(self) -> int | None:
        """The highest use over the limit, in millionths; None where that says nothing."""
        if self.limit in (0, UNLIMITED):
            return None
        return self.highest * 1_000_000 // self.limit


@dataclass(slots=True)
class _Tally:
    meter: MeterName
    limit: int = 0
    events: int = 0
    refused: int = 0
    refused_events: int = 0
    refused_units: int = 0
    first_refused_us: int = 0
    over: int = 0
    highest: int = 0


@dataclass(slots=True)
class Findings:
    """Everything that a simulation has counted so far. Calls are operations of the ledger."""

    calls: int = 0
    events: int = 0
    refused_calls: int = 0
    refused_events: int = 0
    refunds: int = 0
    settled: int = 0
    unlimited_calls: int = 0
    first_us: int = 0
    last_us: int = 0
    unjudged: dict[Unjudged, int] = field(default_factory=dict)
    _tallies: dict[tuple[TenantId, TenantId, LimitId], _Tally] = field(default_factory=dict)
    _refused_tenants: set[TenantId] = field(default_factory=set)

    @property
    def refused_tenants(self) -> int:
        """How many tenants would have had a call refused."""
        return len(self._refused_tenants)

    def seen(self, events: int, at_us: int) -> None:
        """Count a call, whatever becomes of it."""
        self.calls += 1
        self.events += events
        self.first_us = self.first_us or at_us
        self.last_us = at_us

    def leave(self, why: Unjudged) -> None:
        """Count a call that could not be put to limits."""
        self.unjudged[why] = self.unjudged.get(why, 0) + 1

    def decided(
        self, tenant_id: TenantId, events: int, charges: Sequence[Charge], decision: Decided
    ) -> None:
        """Count what the limits made of a call."""
        if not charges:
            self.unlimited_calls += 1
        refusing = None if decision.allowed else _refusing(charges, decision)
        if refusing is not None:
            self.refused_calls += 1
            self.refused_events += events
            self._refused_tenants.add(tenant_id)
        met: set[int] = set()
        for place, (charge, reading) in enumerate(zip(charges, decision.readings, strict=True)):
            tally = self._tally(tenant_id, charge)
            tally.limit = reading.limit
            tally.highest = max(tally.highest, reading.used)
            if id(tally) not in met:
                # A limit with a counter for each value is met once by a call with several.
                met.add(id(tally))
                tally.events += events
            if place == refusing:
                tally.refused += 1
                tally.refused_events += events
                tally.refused_units += charge.amount
                tally.first_refused_us = tally.first_refused_us or decision.at_us
            elif decision.allowed and reading.state in _OVER:
                tally.over += 1

    def standings(self) -> list[Standing]:
        """Return every limit as it was met: the most refusals first, then the fullest."""
        found = [
            Standing(
                *key,
                meter=tally.meter,
                limit=tally.limit,
                events=tally.events,
                refused=tally.refused,
                refused_events=tally.refused_events,
                refused_units=tally.refused_units,
                first_refused_us=tally.first_refused_us,
                over=tally.over,
                highest=tally.highest,
            )
            for key, tally in self._tallies.items()
        ]
        return sorted(found, key=_rank)

    def _tally(self, tenant_id: TenantId, charge: Charge) -> _Tally:
        key = (tenant_id, tenant_of(charge.account), charge.limit_id)
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = _Tally(charge.meter)
        return found


def _rank(standing: Standing) -> tuple[int, int, str, str, str]:
    share = standing.share_ppm or 0
    return -standing.refused, -share, standing.tenant_id, standing.owner, standing.limit_id


def _refusing(charges: Sequence[Charge], decision: Decided) -> int:
    """Return the place of the charge that refused: ids alone are shared by a family's plans."""
    places = [
        place
        for place, (charge, reading) in enumerate(zip(charges, decision.readings, strict=True))
        if charge.limit_id == decision.refused_by
        and charge.on_exceed is OnExceed.REFUSE
        and reading.state is LimitState.EXCEEDED
    ]
    return places[0]
