"""catalog ─▶ [ stripe catalog ] ─▶ an account's meters and prices: planned, shown, then done.

If we die here between two steps, the next plan holds what is left.

Guarantees: nothing is done before it was planned, and nothing is deleted; done twice, the second
time nothing is left to do.
Refuses to know: Stripe's interface.
"""

from collections.abc import Sequence

from tallygate.domain.catalog import Catalog
from tallygate.domain.errors import NotFound
from tallygate.domain.stripe_meters import MeterStep, Step, steps, wanted_of
from tallygate.domain.stripe_prices import PriceStep, PriceStepKind, lookup_keys, price_steps
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import Way
from tallygate.ports.stripe import StripeMeters, StripePrices


class SyncCatalog:
    """Brings an account's meters and prices in line with the catalog."""

    def __init__(self, meters: StripeMeters, prices: StripePrices) -> None:
        self._meters = meters
        self._prices = prices

    async def plan(self, catalog: Catalog, destination: str) -> list[MeterStep]:
        """Return what is to be done. Raises `NotFound`, `StripeSilent` and `StripeRefused`."""
        if not any(each.name == destination and each.stripe for each in catalog.destinations):
            raise NotFound(f"the catalog has no destination {destination} of kind stripe")
        wanted = [
            wanted_of(meter, sync) for meter, sync in synced(catalog, destination, Way.METER_EVENTS)
        ]
        return list(steps(wanted, await self._meters.meters()))

    async def plan_prices(self, catalog: Catalog, destination: str) -> list[PriceStep]:
        """Return what is to be done about prices. Raises `StripeSilent` and `StripeRefused`."""
        has = await self._prices.prices(lookup_keys(catalog, destination))
        return list(price_steps(catalog, destination, has))

    async def apply_prices(self, planned: Sequence[PriceStep]) -> int:
        """Do what was planned, meters being there; return how many prices were made."""
        done = 0
        for each in planned:
            made = each.step in (PriceStepKind.CREATE, PriceStepKind.REPLACE)
            if made and each.wanted is not None:
                await self._prices.create_price(each.wanted)
                done += 1
        return done

    async def apply(self, planned: Sequence[MeterStep]) -> int:
        """Do what was planned, but for conflicts; return how many steps were done."""
        done = 0
        for each in planned:
            match each.step:
                case Step.CREATE:
                    await self._meters.create_meter(each.wanted)
                case Step.REACTIVATE:
                    await self._meters.reactivate_meter(each.wanted.meter_id)
                case Step.RENAME:
                    name = each.wanted.display_name
                    await self._meters.rename_meter(each.wanted.meter_id, name)
                case Step.KEEP | Step.CONFLICT:
                    continue
            done += 1
        return done
