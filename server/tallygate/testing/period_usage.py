"""Billable usage added up event by event, from the ledger in memory.

Guarantees: passes the same contract tests as the reader of rollups in Postgres.
Refuses to know: buckets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.pieces import checked
from tallygate.ports.period_usage import MeterUsage
from tallygate.testing.ledger import FakeLedger


@dataclass(slots=True)
class FakePeriodUsage:
    """The `PeriodUsage` port over a `FakeLedger`; `meters` is what the catalog declares."""

    ledger: FakeLedger
    meters: Mapping[MeterName, Meter] = field(default_factory=dict)

    async def of_window(self, tenant_id: TenantId, from_us: int, to_us: int) -> list[MeterUsage]:
        """Return the usage of a window, by meter."""
        self.ledger.answer()
        window = checked(from_us, to_us)
        found: dict[MeterName, list[UsageEvent]] = {}
        for event in self.ledger.events.values():
            if event.tenant_id == tenant_id and window.holds(event.event_time_us):
                found.setdefault(event.meter, []).append(event)
        return [
            _usage(self.meters.get(name, Meter(name)), events)
            for name, events in sorted(found.items())
        ]


def _usage(meter: Meter, events: list[UsageEvent]) -> MeterUsage:
    used = [event.amount for event in events if not event.refund_of]
    quantity = {
        Aggregation.COUNT: len(used),
        Aggregation.SUM: sum(event.amount for event in events),
        Aggregation.MAX: max(used, default=0),
        Aggregation.MIN: min(used, default=0),
    }
    return MeterUsage(meter.name, (), quantity[meter.aggregation], len(used))
