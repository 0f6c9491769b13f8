"""drifts towards Stripe ─▶ [ reconcile repair money ] ─▶ intents: planned, or said again.

If we die here, an intent and its send are there whole or not at all; the next look finds what is
still missing.

Guarantees: what was refused, or is not in Stripe's sum, is said again under another identifier, and
replaces what it repeats, so that it counts once. Where no choice of sends explains a sum to the
last unit, people decide.
Refuses to know: Postgres, and Stripe's interface.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from typing import Final

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.ids import PlanName, TenantId
from tallygate.domain.reconcile import Pair, Repair, Step
from tallygate.domain.stripe_intent import IntentId, SendState, made_again
from tallygate.domain.stripe_retry import is_too_old
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import Way
from tallygate.flow.reconcile_repair import BY_HAND
from tallygate.flow.stripe_plan import PlanObserver, PlanParts, StripePlanner
from tallygate.ports import CatalogStore, Clock
from tallygate.ports.repair import Outcome
from tallygate.ports.stripe_store import LeftSend, StripeIntents, StripeUpkeep

PAGE: Final = 1_000
# Sends of one customer's meter in one period: by the minute, a month has 44,640.
SENDS_MAX: Final = 50_000
# All choices of so many out of so few are tried.
CHOSEN_MAX: Final = 2
CHOICES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class MoneyParts:
    """What repairs towards Stripe work with."""

    intents: StripeIntents
    upkeep: StripeUpkeep
    catalogs: CatalogStore
    clock: Clock
    observer: PlanObserver


class OneTenant:
    """What a planner asks of a `CatalogStore`, as if there were one tenant alone."""

    def __init__(self, catalogs: CatalogStore, tenant_id: TenantId) -> None:
        self._catalogs = catalogs
        self._tenant_id = tenant_id

    async def effective(self, at_us: int) -> Catalog:
        """Return the catalog in effect."""
        return await self._catalogs.effective(at_us)

    async def tenants_page(
        self, after: TenantId | None, count: int, plan: PlanName | None
    ) -> list[Tenant]:
        """Return the one tenant, as the first page and the last."""
        tenant = await self._catalogs.tenant(self._tenant_id)
        return [tenant] if tenant is not None and after is None else []


@dataclass(frozen=True, slots=True)
class IntentRepair:
    """The `StepRepair` of intents: the planner writes what usage has and intents have not."""

    parts: MoneyParts

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Plan all windows of the tenant anew."""
        if not apply:
            return Outcome.WOULD, "the tenant's windows are planned anew"
        parts, intended = self.parts, 0
        catalog = await parts.catalogs.effective(parts.clock.now_us())
        for name in _accounts(catalog, pair):
            plan = PlanParts(
                parts.intents,
                # A planner asks no more of it.
                OneTenant(parts.catalogs, pair.tenant_id),  # type: ignore[arg-type]
                parts.clock,
                parts.observer,
            )
            intended += (await StripePlanner(name, plan).run_once()).intended
        return (Outcome.DONE, f"{intended} intents") if intended else _by_hand(repair.step)


@dataclass(frozen=True, slots=True)
class SendRepair:
    """The `StepRepair` of sends: what Stripe refused, or has not in its sum, is said again."""

    parts: MoneyParts

    async def carry_out(self, pair: Pair, repair: Repair, *, apply: bool) -> tuple[Outcome, str]:
        """Replace the sends that explain what is missing, to the unit."""
        if repair.units <= 0:
            return _by_hand(repair.step)
        parts, now_us = self.parts, self.parts.clock.now_us()
        lost = [SendState.REJECTED, SendState.TOO_OLD]
        states = lost if repair.step is Step.SENT else [SendState.DELIVERED, SendState.SETTLED]
        catalog = await parts.catalogs.effective(now_us)
        tenant = await parts.catalogs.tenant(pair.tenant_id)
        for name in _accounts(catalog, pair):
            sends = await self._sends(name, states, pair)
            chosen = [
                each
                for each in chosen_of(sends, repair.units)
                if not each.doubtful and not is_too_old(each.intent, now_us)
            ]
            if tenant is None or sum(each.intent.quantity for each in chosen) != repair.units:
                continue
            if not apply:
                return Outcome.WOULD, f"{len(chosen)} sends are said again"
            replacements = [
                made_again(each.intent, each.intent_id, customer=tenant.stripe_customer_id)
                for each in chosen
            ]
            await parts.upkeep.replace(name, replacements, now_us)
            return Outcome.DONE, f"{len(chosen)} sends are said again"
        return _by_hand(repair.step)

    async def _sends(self, name: str, states: Sequence[SendState], pair: Pair) -> list[LeftSend]:
        found: list[LeftSend] = []
        after = IntentId(0)
        while True:
            page = await self.parts.upkeep.left(name, states, after=after, limit=PAGE)
            found += [each for each in page if _within(each, pair)]
            if len(page) < PAGE or len(found) > SENDS_MAX:
                return found
            after = page[-1].intent_id


def chosen_of(sends: Sequence[LeftSend], units: Decimal) -> Sequence[LeftSend]:
    """Return sends that are worth so many units: all, one, or two; none where none are."""
    for choice in _choices(sends):
        if sum(each.intent.quantity for each in choice) == units:
            return choice
    return ()


def _choices(sends: Sequence[LeftSend]) -> Iterator[Sequence[LeftSend]]:
    yield sends
    for count in range(1, CHOSEN_MAX + 1):
        yield from combinations(sends if count == 1 else sends[:CHOICES_MAX], count)


def _within(each: LeftSend, pair: Pair) -> bool:
    place = each.intent.place
    return (place.tenant_id, place.meter) == (pair.tenant_id, pair.meter) and (
        pair.period.start_us <= place.start_us < pair.period.end_us
    )


def _accounts(catalog: Catalog, pair: Pair) -> list[str]:
    """Return the accounts that are told of a meter's usage by meter events."""
    return [
        account.name
        for account in catalog.destinations
        if account.stripe is not None
        and any(
            meter.name == pair.meter for meter, _ in synced(catalog, account.name, Way.METER_EVENTS)
        )
    ]


def _by_hand(step: Step) -> tuple[Outcome, str]:
    return Outcome.BY_HAND, BY_HAND[step]
