"""ledger ─▶ [ recount ] ─▶ rebuild, verify: what each counter has to hold, from the events alone.

If we die here, nothing has happened: all of it is read again from a snapshot.

Guarantees: a window counts what was used in it and accepted in it; a sliding limit has its own
buckets; a refund takes from where its event was, and of an event of a meter that counts only when
all of it is taken back; what was used before a counter was last reset is left out. A rate has at
least what has not drained, and at most a sixtieth of its burst's time more.
Refuses to know: SQL, Redis, what reservations hold, and balances, whose books are kept elsewhere.

A tenant's parents are those of now, and so are its limits: usage below a former parent counts for
the new one, and a limit that is younger than its window counts all of the window. A refund of what
a reset has forgotten is taken off in full; a counter that was lower then kept 0.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog, Limit, Override, Tenant, limits_of
from tallygate.domain.decision import Charge, RateRule, SlidingRule, WindowRule
from tallygate.domain.event import NO_CONTEXT
from tallygate.domain.ids import (
    AMOUNT_MAX,
    AccountId,
    LimitId,
    MeterName,
    PlanName,
    TenantId,
    account_of,
    shard_of,
)
from tallygate.domain.limit import charge
from tallygate.domain.request import Item
from tallygate.domain.usage_sum import Ask, LastReset, UsageSum
from tallygate.domain.window import Calendar
from tallygate.flow.family import Tenants, lineages
from tallygate.flow.scope import Scope, matches, scope_of, value_of, weighings_of, weight_of
from tallygate.ports.recount import CountedUsage

# The end of year 9999: no store has to hold a later instant.
NEVER_US: Final = 253_402_300_799_999_999
TENANTS_PAGE: Final = 2_000
# Tenants whose sums are in memory at once, where no family is larger.
TENANTS_MAX: Final = 500
ASKS_MAX: Final = 1_000
RATE_SLOTS: Final = 60

Slots = tuple[tuple[int, int], ...]
_Shape = tuple[PlanName, Calendar, tuple[Override, ...]]
# Of a counter per value of a dimension: which value a sum counts for, or which it does not.
_Cuts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recounted:
    """What one account's counters have to hold: slots per charge, as of `detail.Rebuilt`."""

    shard: int
    account: AccountId
    charges: tuple[Charge, ...]
    slots: tuple[Slots, ...]


@dataclass(frozen=True, slots=True)
class _Measure:
    """One limit of a plan: a charge of 0 to be made an account's, and what is asked for it."""

    limit: Limit
    template: Charge
    scope: Scope | None
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class _Use:
    """Where a sum goes. `only` and `but` are of the dimension that has a counter per value."""

    measure: _Measure
    member: TenantId
    ask: Ask
    only: str | None = None
    but: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Counter:
    charge: Charge
    units: dict[int, int] = field(default_factory=dict)


_Counters = dict[AccountId, dict[str, _Counter]]


class Recount:
    """Recounts accounts from one snapshot, as of `at_us`, by a catalog and its tenants.

    Usage counted in `but_epochs` is left out, and so is what was accepted from `until_us` on.
    """

    def __init__(
        self,
        usage: CountedUsage,
        tenants: Tenants,
        catalog: Catalog,
        *,
        shards: int,
        at_us: int,
        but_epochs: Sequence[str] = (),
        until_us: int = NEVER_US,
    ) -> None:
        self._usage = usage
        self._tenants = tenants
        self._catalog = catalog
        self._shards = shards
        self._at_us = at_us
        self._but_epochs = but_epochs
        self._until_us = until_us
        self._weighings = weighings_of(catalog)
        self._shapes: dict[_Shape, tuple[_Measure, ...]] = {}

    async def accounts(
        self, shards: Collection[int] | None = None, families: int = TENANTS_MAX
    ) -> AsyncIterator[list[Recounted]]:
        """Iterate over the accounts of these shards, or of all, family by family.

        At least `families` tenants are read at once. Accounts that used nothing are left out.
        """
        chunk: list[TenantId] = []
        for family in (await self.families(shards)).values():
            chunk += family
            if len(chunk) >= families:
                yield await self.of(chunk)
                chunk = []
        if chunk:
            yield await self.of(chunk)

    async def family(self, tenant_id: TenantId) -> list[TenantId]:
        """Return the tenants of a family that have used anything, for `of`."""
        found = await lineages(self._tenants, self._catalog, [tenant_id])
        if tenant_id not in found:
            return []
        root = found[tenant_id][-1].tenant_id
        return (await self._by_root(None, root)).get(root, [])

    async def of(self, ids: Sequence[TenantId]) -> list[Recounted]:
        """Return the accounts that usage of these tenants counts in, sorted by name.

        An account of a parent is whole only when all below it are among them.
        """
        found = await lineages(self._tenants, self._catalog, ids)
        named = {tenant.tenant_id for lineage in found.values() for tenant in lineage}
        cuts = _cuts(await self._usage.resets(sorted(named)))
        uses: dict[Ask, list[_Use]] = {}
        for tenant_id, lineage in found.items():
            for member in lineage:
                for measure in self._measures(member):
                    cut = cuts.get((member.tenant_id, measure.limit.limit_id), {})
                    for use in _uses(measure, member.tenant_id, tenant_id, cut):
                        uses.setdefault(use.ask, []).append(use)
        counters: _Counters = {}
        asks = list(uses)
        for start in range(0, len(asks), ASKS_MAX):
            part = asks[start : start + ASKS_MAX]
            for each in await self._usage.sums(part, self._but_epochs):
                for use in uses[part[each.ask]]:
                    _count(counters, use, each)
        roots = {
            tenant.tenant_id: lineage[-1].tenant_id
            for lineage in found.values()
            for tenant in lineage
        }
        return list(self._recounted(counters, roots))

    async def families(
        self, shards: Collection[int] | None = None
    ) -> dict[TenantId, list[TenantId]]:
        """Return the tenants that have used anything, by their root: names alone."""
        return await self._by_root(shards, None)

    async def _by_root(
        self, shards: Collection[int] | None, root: TenantId | None
    ) -> dict[TenantId, list[TenantId]]:
        """Return the tenants that have used anything by their roots: names alone."""
        families: dict[TenantId, list[TenantId]] = {}
        after = ""
        while page := await self._usage.tenants(after, TENANTS_PAGE):
            after = page[-1]
            found = await lineages(self._tenants, self._catalog, page)
            for tenant_id, lineage in found.items():
                top = lineage[-1].tenant_id
                if root is not None and top != root:
                    continue
                if shards is None or shard_of(top, self._shards) in shards:
                    families.setdefault(top, []).append(tenant_id)
        return families

    def _measures(self, tenant: Tenant) -> tuple[_Measure, ...]:
        shape = (tenant.plan, tenant.calendar, tenant.overrides)
        found = self._shapes.get(shape)
        if found is None:
            made = (
                self._measure(limit, tenant)
                for limit in limits_of(self._catalog, tenant, self._at_us)
            )
            found = self._shapes[shape] = tuple(each for each in made if each is not None)
        return found

    def _measure(self, limit: Limit, tenant: Tenant) -> _Measure | None:
        template = charge(limit, AccountId(""), tenant.calendar, 0, self._at_us)
        span = _span(template, self._at_us)
        if span is None:
            return None
        scope = scope_of(limit, self._weighings)
        meters = [limit.meter, *(scope.weighings if scope is not None else ())]
        asks = tuple(
            replace(
                span,
                meter=name,
                received_until_us=min(span.received_until_us, self._until_us),
                fields=scope.fields(name) if scope is not None else (),
                counted=self._counts(name),
            )
            for name in dict.fromkeys(meters)
        )
        return _Measure(limit, template, scope, asks)

    def _counts(self, name: MeterName) -> bool:
        meter = self._catalog.meters.get(name)
        return meter is not None and meter.aggregation is Aggregation.COUNT

    def _recounted(
        self, counters: _Counters, roots: Mapping[TenantId, TenantId]
    ) -> Iterable[Recounted]:
        for account in sorted(counters):
            charges: list[Charge] = []
            slots: list[Slots] = []
            for counter in counters[account].values():
                found = _slots(counter, self._at_us)
                if found:
                    charges.append(counter.charge)
                    slots.append(found)
            if charges:
                root = roots[TenantId(account.partition(" ")[0])]
                shard = shard_of(root, self._shards)
                yield Recounted(shard, account, tuple(charges), tuple(slots))


def _span(template: Charge, at_us: int) -> Ask | None:
    """Return what is asked for a limit but for whose and what; None where events do not tell."""
    nobody, nothing = TenantId(""), MeterName("")
    match template.rule:
        case WindowRule(starts_us=starts, turns_us=turns):
            return Ask(nobody, nothing, starts, starts, turns)
        case SlidingRule(width_us=width, buckets=buckets):
            first = max(0, (at_us // width - buckets) * width)
            return Ask(nobody, nothing, first, first, NEVER_US, slot_us=width)
        case RateRule(weight, drain, period) if template.limit > 0:
            drained_us = -(-template.limit * weight // drain)
            slot_us = max(1, drained_us // RATE_SLOTS)
            first = max(0, at_us - drained_us - slot_us)
            since = max(0, first - period)
            return Ask(nobody, nothing, since, first, NEVER_US, slot_us, period)
        case _:
            return None


def _uses(measure: _Measure, member: TenantId, tenant_id: TenantId, cuts: _Cuts) -> Iterable[_Use]:
    """Iterate over what is asked of a tenant's usage for a limit of its own or of a parent."""
    per = measure.limit.per
    for template in measure.asks:
        ask = replace(template, tenant_id=tenant_id)
        if not per:
            yield _Use(measure, member, _since(ask, cuts.get("", 0)))
            continue
        yield _Use(measure, member, ask, but=frozenset(cuts))
        for value, reset_at_us in cuts.items():
            yield _Use(measure, member, _since(ask, reset_at_us), only=value)


def _since(ask: Ask, reset_at_us: int) -> Ask:
    """Return the ask for what was accepted after a reset."""
    return replace(ask, received_from_us=max(ask.received_from_us, reset_at_us + 1))


def _count(counters: _Counters, use: _Use, found: UsageSum) -> None:
    measure, scope = use.measure, use.measure.scope
    weight, value, per = 1, "", measure.limit.per
    if scope is not None:
        item = Item(use.ask.meter, 0, dict(zip(use.ask.fields, found.values, strict=True)))
        weighed = weight_of(scope, item, NO_CONTEXT)
        if weighed is None or not matches(scope, item, NO_CONTEXT):
            return
        weight = weighed
        value = value_of(per, item, NO_CONTEXT) if per else ""
    if use.only not in (None, value) or value in use.but:
        return
    account = account_of(use.member, per, value)
    fields = counters.setdefault(account, {})
    template = measure.template
    counter = fields.get(template.field)
    if counter is None:
        counter = fields[template.field] = _Counter(replace(template, account=account))
    counter.units[found.slot] = counter.units.get(found.slot, 0) + found.units * weight


def _slots(counter: _Counter, at_us: int) -> Slots:
    """Return the slots of a counter in which anything is."""
    rule = counter.charge.rule
    units = {slot: min(found, AMOUNT_MAX) for slot, found in counter.units.items() if found > 0}
    match rule:
        case WindowRule(starts_us=starts):
            return tuple((starts, found) for found in units.values())
        case RateRule():
            left = _outstanding(units, rule, counter.charge.limit, at_us)
            return ((0, left),) if left else ()
        case _:
            return tuple(sorted(units.items()))


def _outstanding(units: Mapping[int, int], rule: RateRule, burst: int, at_us: int) -> int:
    """Return the units of a bucket that have not drained, all of a slot taken to be of its end."""
    brim = burst * rule.weight
    drained_us = -(-brim // rule.drain)
    slot_us = max(1, drained_us // RATE_SLOTS)
    debt, last_us = 0, 0
    for slot, found in sorted(units.items()):
        now_us = min(at_us, (slot + 1) * slot_us)
        debt = max(0, debt - max(0, now_us - last_us) * rule.drain)
        # It has happened, but nobody goes into debt beyond the bucket.
        debt = min(brim, debt + found * rule.weight)
        last_us = now_us
    debt = max(0, debt - max(0, at_us - last_us) * rule.drain)
    return -(-debt // rule.weight)


def _cuts(resets: Iterable[LastReset]) -> dict[tuple[TenantId, LimitId], dict[str, int]]:
    """Return when counters were reset, by limit and by the value of its dimension."""
    found: dict[tuple[TenantId, LimitId], dict[str, int]] = {}
    for each in resets:
        value = each.scope.partition("=")[2]
        found.setdefault((each.tenant_id, each.limit_id), {})[value] = each.reset_at_us
    return found
