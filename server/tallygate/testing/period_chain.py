"""Which billing periods tenants have, in memory.

Guarantees: passes the same contract tests as the chains in Postgres.
Refuses to know: calendars.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window


@dataclass(slots=True)
class FakePeriodChains:
    """The `PeriodChains` port, over what a test puts into `kept`, by start."""

    kept: dict[TenantId, list[Window]] = field(default_factory=dict)

    async def around(
        self, ids: Sequence[TenantId], from_us: int, to_us: int
    ) -> Mapping[TenantId, Sequence[Window]]:
        """Return the periods that touch a stretch, and their neighbours."""
        found: dict[TenantId, Sequence[Window]] = {}
        for tenant_id in sorted(set(ids)):
            kept = self.kept.get(tenant_id, [])
            before = [each for each in kept if each.end_us <= from_us]
            after = [each for each in kept if each.start_us > to_us]
            within = [each for each in kept if each.end_us > from_us and each.start_us <= to_us]
            if around := [*before[-1:], *within, *after[:1]]:
                found[tenant_id] = around
        return found
