"""What decides while the counters cannot be reached: each limit's own rule, and budgets.

Guarantees: pure; every limit of a call agrees or the call is not granted; budgets are debited for
all limits of a call or for none, and no budget is ever overdrawn.
Refuses to know: why the counters cannot be reached, and what becomes of what is granted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import (
    UNLIMITED,
    Catalog,
    Limit,
    OnExceed,
    OnOutage,
    Tenant,
    limits_of,
)
from tallygate.domain.decision import (
    Charge,
    Decided,
    LimitReading,
    LimitState,
    Mode,
    Operation,
    WindowRule,
)
from tallygate.domain.ids import AccountId, LimitId, TenantId, tenant_of

# A budget can only come back with the store, which is looked for at least this often.
RETRY_AFTER_US: Final = 2_000_000
DECIDABLE: Final = frozenset({Mode.CONSUME, Mode.RECORD})
"""What may be granted without the store. All else needs what only the store knows."""

Counter = tuple[AccountId, str]


@dataclass(frozen=True, slots=True)
class OutageRule:
    """What one limit says about an outage; `budget` is in units, for `LOCAL_BUDGET` only."""

    on_outage: OnOutage
    budget: int = 0


@dataclass(frozen=True, slots=True)
class Ungranted:
    """A limit does not let anything pass without the store."""

    limit_id: LimitId


REFUSING: Final = OutageRule(OnOutage.REFUSE)


def rules_of(
    catalog: Catalog,
    lineage: Sequence[Tenant],
    charges: Sequence[Charge],
    now_us: int,
    *,
    share_of: Callable[[int], int] = int,
) -> tuple[OutageRule, ...]:
    """Return the rule of each charge's limit; a limit that cannot be found any more refuses.

    `share_of` says what this process may spend of a budget that several have together.
    """
    limits: dict[tuple[TenantId, LimitId], Limit] = {
        (tenant.tenant_id, limit.limit_id): limit
        for tenant in lineage
        for limit in limits_of(catalog, tenant, now_us)
    }
    found = [limits.get((tenant_of(charge.account), charge.limit_id)) for charge in charges]
    return tuple(
        OutageRule(limit.on_outage, share_of(limit.local_budget)) if limit is not None else REFUSING
        for limit in found
    )


def opted_in(rules: Sequence[OutageRule]) -> bool:
    """Say whether a limit asks for grants without the store, which only memory holds."""
    return any(rule.on_outage is not OnOutage.REFUSE for rule in rules)


@dataclass(slots=True)
class LocalGrants:
    """What this process has granted since the counters were last known: units per counter."""

    granted: dict[Counter, int] = field(default_factory=dict)

    def judge(
        self, operation: Operation, rules: Sequence[OutageRule], now_us: int
    ) -> Decided | Ungranted:
        """Decide by the rules, one per charge. Nothing is debited: see `debit`.

        A budget that is used up refuses as a limit does; a limit without one leaves the call
        ungranted, which goes before.
        """
        if operation.mode is not Mode.RECORD:
            gating = [
                (charge, rule)
                for charge, rule in zip(operation.charges, rules, strict=True)
                if charge.on_exceed is OnExceed.REFUSE and charge.limit < UNLIMITED
            ]
            for charge, rule in gating:
                if rule.on_outage is OnOutage.REFUSE:
                    return Ungranted(charge.limit_id)
            budgeted = [pair for pair in gating if pair[1].on_outage is OnOutage.LOCAL_BUDGET]
            refusing = self._overdrawn(operation.charges, budgeted)
            if refusing is not None:
                return Decided(
                    allowed=False,
                    at_us=now_us,
                    readings=self._readings(operation.charges, rules, {}, refusing),
                    refused_by=refusing,
                    retry_after_us=RETRY_AFTER_US,
                    degraded=True,
                )
        return Decided(
            allowed=True,
            at_us=now_us,
            readings=self._readings(operation.charges, rules, _amounts(operation.charges)),
            degraded=True,
        )

    def debit(self, operation: Operation) -> None:
        """Count what the operation uses, for all of its limits."""
        for counter, amount in _amounts(operation.charges).items():
            self.granted[counter] = self.granted.get(counter, 0) + amount

    def _overdrawn(
        self, charges: Sequence[Charge], budgeted: Sequence[tuple[Charge, OutageRule]]
    ) -> LimitId | None:
        amounts = _amounts(charges)
        for charge, rule in budgeted:
            counter = (charge.account, charge.field)
            if self.granted.get(counter, 0) + amounts[counter] > rule.budget:
                return charge.limit_id
        return None

    def _readings(
        self,
        charges: Sequence[Charge],
        rules: Sequence[OutageRule],
        amounts: Mapping[Counter, int],
        refusing: LimitId | None = None,
    ) -> tuple[LimitReading, ...]:
        """Return what this process knows: its own grants, against the budget or the limit."""
        readings: list[LimitReading] = []
        for charge, rule in zip(charges, rules, strict=True):
            counter = (charge.account, charge.field)
            used = self.granted.get(counter, 0) + amounts.get(counter, 0)
            budgeted = rule.on_outage is OnOutage.LOCAL_BUDGET
            left = (rule.budget if budgeted else charge.limit) - used
            resets_at_us = charge.rule.turns_us if isinstance(charge.rule, WindowRule) else 0
            readings.append(
                LimitReading(
                    account=charge.account,
                    limit_id=charge.limit_id,
                    meter=charge.meter,
                    state=LimitState.EXCEEDED if charge.limit_id == refusing else LimitState.OK,
                    used=used,
                    limit=charge.limit,
                    remaining=max(0, left),
                    resets_at_us=resets_at_us,
                )
            )
        return tuple(readings)


def _amounts(charges: Sequence[Charge]) -> dict[Counter, int]:
    amounts: dict[Counter, int] = {}
    for charge in charges:
        counter = (charge.account, charge.field)
        amounts[counter] = amounts.get(counter, 0) + charge.amount
    return amounts
