"""ledger ─▶ [ simulate ] ─▶ operator: who would have been refused when, under another catalog.

If we die here, nothing has happened: the ledger is only read, and nothing is kept.

Guarantees: usage is decided by the specification that the script in Redis is held to, at the
instants at which it was accepted; memory is bounded by the counters that still count and by the
tenants, never by the events.
Refuses to know: where the ledger lies, and how findings are shown.

What the ledger does not say is not made up: it has no refused calls, no holds, and no word on
whether an event had asked first. So every event is taken as one that asks. Credits are those that
were granted, each from when it was.
"""

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, assert_never

from tallygate.domain.account import Accounts
from tallygate.domain.catalog import LINEAGE_MAX, Catalog, Tenant, default_tenant
from tallygate.domain.credit import NEVER_US, CreditGrant, burn_down_order
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    ConcurrencyRule,
    Decided,
    Mode,
    Operation,
    Overflowed,
    RateRule,
    Rule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.detail import (
    Credit,
    Refund,
)
from tallygate.domain.errors import (
    CounterOverflow,
    NotFound,
    TallygateError,
    TooManyLimits,
    UnknownMeter,
    UnknownTenant,
)
from tallygate.domain.event import UsageEvent
from tallygate.domain.ids import (
    AccountId,
    EventId,
    LimitId,
    PlanName,
    SourceId,
    TenantId,
    tenant_of,
)
from tallygate.domain.request import Item
from tallygate.domain.simulation import Findings, Unjudged
from tallygate.flow.bind import Binder, suspended_in
from tallygate.ports import ParsedCatalog
from tallygate.ports.credit import CreditQuery
from tallygate.ports.replay import ReplayQuery, UsageReplay

# Lineages are asked for again and again by tenants that are busy at the same time.
LINEAGES_MAX: Final = 50_000
# A refund mostly follows its event within minutes; only refused events are kept here.
REFUSED_MAX: Final = 200_000
# A balance lives by at most 64 grants; a longer past is read in a few more pages.
GRANTS_PAGE: Final = 100
# Looking for counters that are over costs a look at each, so it waits until they have doubled.
SWEEP_MIN: Final = 10_000
_SOURCE: Final = SourceId("simulation")


class DeclaredTenants(Protocol):
    """Knows the tenants that a document leaves out, as applying it would leave them."""

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        ...


class GrantHistory(Protocol):
    """Knows the credits that were granted."""

    async def grants(self, query: CreditQuery) -> list[CreditGrant]:
        """Return a tenant's grants in burn-down order, at most `query.limit`."""
        ...


class UnknownPlan(NotFound):
    """The catalog has no such plan."""


@dataclass(frozen=True, slots=True)
class SimulateParts:
    """What a simulation works with. `note` hears how many events have been read."""

    catalog: ParsedCatalog
    tenants: DeclaredTenants
    replay: UsageReplay
    grants: GrantHistory
    note: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Whose usage and from when, and the plan that these tenants are put on, None for their own."""

    query: ReplayQuery = field(default_factory=ReplayQuery)
    plan: PlanName | None = None


class Simulate:
    """Decides recorded usage anew."""

    def __init__(self, parts: SimulateParts, options: SimulateOptions) -> None:
        self._parts = parts
        self._options = options
        self._catalog: Catalog = replace(parts.catalog.catalog, version=1)
        self._families = _Families(parts.catalog, parts.tenants, options)
        self._binder = Binder()
        self._counters = _Counters()
        self._credits = _Credits(parts.grants)
        self._refused: OrderedDict[tuple[TenantId, EventId], None] = OrderedDict()
        self._findings = Findings()

    async def run(self) -> Findings:
        """Decide every call in the order of its acceptance. Raises `UnknownPlan`."""
        plan = self._options.plan
        if plan is not None and plan not in self._catalog.plans:
            raise UnknownPlan(f"the catalog has no plan {plan!r}", field="plan")
        pages = self._parts.replay.events(self._options.query)
        async with aclosing(calls_of(pages)) as calls:
            async for events in calls:
                await self._look_at(events)
                self._parts.note(len(events))
        return self._findings

    async def _look_at(self, events: Sequence[UsageEvent]) -> None:
        first = events[0]
        self._findings.seen(len(events), first.received_at_us)
        self._findings.settled += sum(bool(event.reservation_id) for event in events)
        try:
            await self._call(events, await self._families.lineage(first.tenant_id))
        except TallygateError as error:
            self._findings.leave(_why(error))

    async def _call(self, events: Sequence[UsageEvent], lineage: tuple[Tenant, ...]) -> None:
        if suspended_in(lineage) is not None:
            self._findings.leave(Unjudged.SUSPENDED)
            return
        for event in events:
            if event.amount < 0:
                self._give_back(event, lineage)
        used = [event for event in events if event.amount > 0]
        if not used:
            return
        charges, at_us = self._charges(used, lineage), used[0].received_at_us
        for charge in charges:
            if isinstance(charge.rule, BalanceRule):
                for grant in await self._credits.due(charge, at_us):
                    self._counters.decide(_granting(charge, grant), at_us)
        outcome = self._counters.decide(_operation(Mode.CONSUME, used, charges), at_us)
        if isinstance(outcome, Overflowed):
            self._findings.leave(Unjudged.OVERFLOW)
            return
        self._findings.decided(used[0].tenant_id, len(used), charges, outcome)
        if not outcome.allowed:
            self._remember_refused(used)

    def _give_back(self, event: UsageEvent, lineage: tuple[Tenant, ...]) -> None:
        self._findings.refunds += 1
        if (event.tenant_id, event.refund_of) in self._refused:
            self._findings.leave(Unjudged.REFUND_OF_REFUSED)
            return
        taken = replace(event, amount=-event.amount)
        operation = _operation(Mode.REFUND, [taken], self._charges([taken], lineage))
        detail = Refund(event.refund_of, taken.amount, taken.amount)
        self._counters.decide(replace(operation, detail=detail), event.received_at_us)

    def _charges(
        self, events: Sequence[UsageEvent], lineage: tuple[Tenant, ...]
    ) -> tuple[Charge, ...]:
        items = [Item(event.meter, event.amount, event.dimensions) for event in events]
        first = events[0]
        charges = self._binder.charges(
            self._catalog, lineage, items, first.context, first.received_at_us
        )
        # Holds are not in the ledger.
        return tuple(each for each in charges if not isinstance(each.rule, ConcurrencyRule))

    def _remember_refused(self, events: Sequence[UsageEvent]) -> None:
        for event in events:
            self._refused[event.tenant_id, event.event_id] = None
        while len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)


class _Families:
    """Tenants with those above them, as the catalog would have them."""

    def __init__(
        self, parsed: ParsedCatalog, declared: DeclaredTenants, options: SimulateOptions
    ) -> None:
        self._catalog = parsed.catalog
        self._named = {tenant.tenant_id: tenant for tenant in parsed.tenants}
        self._declared = declared
        self._options = options
        self._held: OrderedDict[TenantId, tuple[Tenant, ...]] = OrderedDict()

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Return the tenant, its parent, and so on to the topmost. Raises `UnknownTenant`."""
        found = self._held.get(tenant_id)
        if found is None:
            found = self._held[tenant_id] = await self._look_up(tenant_id)
            if len(self._held) > LINEAGES_MAX:
                self._held.popitem(last=False)
        if not found:
            raise UnknownTenant(field="tenant_id")
        return found

    async def _look_up(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        lineage: list[Tenant] = []
        name: TenantId | None = tenant_id
        # A document may hang its tenants under declared ones that hang under its own.
        while name is not None and len(lineage) < LINEAGE_MAX:
            tenant = self._named.get(name) or (await self._declared.tenants_named([name])).get(name)
            tenant = tenant or default_tenant(self._catalog, name)
            if tenant is None:
                # Kept as well, as it would be asked for with each of its events.
                return ()
            lineage.append(self._moved(tenant))
            name = tenant.parent
        return tuple(lineage)

    def _moved(self, tenant: Tenant) -> Tenant:
        plan, only = self._options.plan, self._options.query.tenant_id
        if plan is None or only not in (None, tenant.tenant_id):
            return tenant
        # Overrides are of the limits of the plan that the tenant has now.
        return replace(tenant, plan=plan, overrides=())


class _Credits:
    """Grants as they were made, each handed out once, when its time has come."""

    def __init__(self, history: GrantHistory) -> None:
        self._history = history
        self._to_come: dict[tuple[AccountId, LimitId], deque[CreditGrant]] = {}

    async def due(self, charge: Charge, now_us: int) -> list[CreditGrant]:
        """Return the grants of a balance that were made by now and not returned before."""
        key = (charge.account, charge.limit_id)
        to_come = self._to_come.get(key)
        if to_come is None:
            to_come = self._to_come[key] = deque(await self._read(*key))
        due: list[CreditGrant] = []
        while to_come and to_come[0].created_at_us <= now_us:
            due.append(to_come.popleft())
        return due

    async def _read(self, account: AccountId, limit_id: LimitId) -> list[CreditGrant]:
        found: list[CreditGrant] = []
        after: tuple[str, int, int, int] | None = None
        while True:
            query = CreditQuery(tenant_of(account), limit_id, GRANTS_PAGE, after)
            page = await self._history.grants(query)
            found += page
            if len(page) < GRANTS_PAGE:
                return sorted(found, key=lambda grant: grant.seq)
            after = burn_down_order(page[-1])


def _granting(charge: Charge, grant: CreditGrant) -> Operation:
    whole = replace(grant, remaining=grant.amount).as_counted()
    return Operation(
        mode=Mode.GRANT,
        tenant_id=grant.tenant_id,
        shard=0,
        charges=(replace(charge, amount=0),),
        detail=Credit((whole,)),
    )


class _Counters:
    """The accounts, without what no decision can depend on any more."""

    def __init__(self) -> None:
        # Nothing is asked twice, so that no operation has to be remembered.
        self._accounts = Accounts(memory_us=0)
        # When each counter is as if it had never been.
        self._over_us: dict[tuple[AccountId, str], int] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._over_us)

    def decide(self, operation: Operation, at_us: int) -> Decided | Overflowed:
        """Decide one operation at the instant of its acceptance."""
        [outcome] = self._accounts.decide([operation], _SOURCE, at_us)
        # They are for a stream and for refunds of the same event, of which the ledger has the
        # outcome already.
        self._accounts.stream.clear()
        self._accounts.refunded.clear()
        assert isinstance(outcome, Decided | Overflowed), outcome
        if isinstance(outcome, Decided) and outcome.allowed:
            for charge, reading in zip(operation.charges, outcome.readings, strict=True):
                over_us = _over_us(charge.rule, reading.resets_at_us, at_us)
                self._over_us[charge.account, charge.field] = over_us
            if len(self._over_us) >= self._sweep_at:
                self._sweep(at_us)
        return outcome

    def _sweep(self, now_us: int) -> None:
        accounts = self._accounts.accounts
        for (account, name), over_us in [*self._over_us.items()]:
            if over_us <= now_us:
                del self._over_us[account, name]
                accounts[account].counters.pop(name, None)
        for account in [name for name, each in accounts.items() if not each.counters]:
            del accounts[account]
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._over_us))


def _over_us(rule: Rule, resets_at_us: int, now_us: int) -> int:
    """Return when a counter that was changed now counts for nothing any more."""
    match rule:
        case WindowRule():
            return rule.turns_us
        case RateRule():
            return resets_at_us
        case SlidingRule():
            return now_us + (rule.buckets + 1) * rule.width_us
        case BalanceRule():
            return NEVER_US
        case ConcurrencyRule():
            raise AssertionError("is not simulated")
        case _:
            assert_never(rule)


async def calls_of(
    pages: AsyncGenerator[Sequence[UsageEvent], None],
) -> AsyncGenerator[list[UsageEvent], None]:
    """Iterate over the events of each call: those of one operation that were accepted at once."""
    call: list[UsageEvent] = []
    async with aclosing(pages):
        async for page in pages:
            for event in page:
                if call and not _together(call[0], event):
                    yield call
                    call = []
                call.append(event)
    if call:
        yield call


def _together(one: UsageEvent, other: UsageEvent) -> bool:
    return (
        one.operation_id == other.operation_id
        and one.tenant_id == other.tenant_id
        and one.received_at_us == other.received_at_us
        and one.context == other.context
    )


def _operation(mode: Mode, events: Sequence[UsageEvent], charges: tuple[Charge, ...]) -> Operation:
    first = events[0]
    return Operation(
        mode=mode,
        tenant_id=first.tenant_id,
        shard=0,
        charges=charges,
        # Of an event that asked, when it was accepted; of one that was late, when it took place.
        event_time_us=first.event_time_us,
    )


def _why(error: TallygateError) -> Unjudged:
    """Return what keeps a call from its limits. Raises the error where it is no such thing."""
    for kind, why in _REASONS.items():
        if isinstance(error, kind):
            return why
    raise error


_REASONS: Final = {
    UnknownMeter: Unjudged.UNKNOWN_METER,
    UnknownTenant: Unjudged.UNKNOWN_TENANT,
    TooManyLimits: Unjudged.TOO_MANY_LIMITS,
    CounterOverflow: Unjudged.OVERFLOW,
}
