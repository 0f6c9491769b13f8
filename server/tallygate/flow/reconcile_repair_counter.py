"""drift of a counter ─▶ [ reconcile repair counter ] ─▶ a correction that the counter is due.

If we die here, the correction is noted or it is not; `flow/correct.py` gives it to the counter.

Guarantees: a correction is noted only where it reaches the counter that is off, and no other.
Refuses to know: Redis, and how corrections are given.
"""

from dataclasses import dataclass

from tallygate.domain.catalog import limits_of
from tallygate.domain.reconcile import Pair, Repair, Step
from tallygate.flow.reconcile_repair import BY_HAND
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.repair import CounterDues, Outcome


@dataclass(frozen=True, slots=True)
class CounterRepair:
    """The `StepRepair` of counters."""

    dues: CounterDues
    catalogs: CatalogStore
    clock: Clock

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Note what the counter is due, where no other counter counts the same usage."""
        now_us = self.clock.now_us()
        catalog = await self.catalogs.effective(now_us)
        tenant = await self.catalogs.tenant(pair.tenant_id)
        limits = limits_of(catalog, tenant, now_us) if tenant is not None else ()
        counting = [each for each in limits if each.meter == pair.meter]
        weighed = any(
            weight.meter == pair.meter
            for meter in catalog.meters.values()
            for weight in meter.weights
        )
        if tenant is None or tenant.parent is not None or weighed or len(counting) != 1:
            # A correction is given to all counters of the usage, and only one is off.
            return Outcome.BY_HAND, BY_HAND[Step.COUNTER]
        if not apply:
            return Outcome.WOULD, "a correction is noted, and given to the counter"
        if not await self.dues.owe(pair, int(repair.units), now_us):
            return Outcome.WOULD, "a correction waits already, or counters are made anew"
        return Outcome.DONE, "a correction is noted, and given to the counter"
