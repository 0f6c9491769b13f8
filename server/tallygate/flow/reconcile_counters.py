"""counters · stream · ledger ─▶ [ reconcile counters ] ─▶ what counters have of a billing period.

If we die here, nothing has happened: counters are read, and not changed.

Guarantees: a counter is held against what the ledger and the stream say was counted by the instant
it was read at, as verification does it; what else the ledger has came later, or counts elsewhere.
Where no counter counts a period, or it cannot be read, that is said with its reason.
Refuses to know: SQL, Redis, and what a difference comes to.

A window limit counts a billing period where it is of all the tenant's usage of one meter: not per
value, not of some values, not weighed, and of a tenant that has none below it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from tallygate.domain.catalog import Aggregation, Catalog, Limit, LimitKind, Tenant, limits_of
from tallygate.domain.decision import Charge, WindowRule
from tallygate.domain.errors import Overloaded, TallygateError
from tallygate.domain.event import UsageEvent
from tallygate.domain.hold import Account
from tallygate.domain.ids import AccountId, LimitId, MeterName, TenantId, shard_of
from tallygate.domain.limit import charge
from tallygate.domain.reconcile import NONE, Absent, Figure, Reading, Step, Why
from tallygate.domain.usage_sum import Ask
from tallygate.domain.verdict import Counter
from tallygate.flow.event_usage import AddedUsage
from tallygate.flow.family import lineages
from tallygate.flow.limit_age import younger
from tallygate.flow.recount import Recount
from tallygate.flow.verify_counters import CounterParts
from tallygate.ports.audit import AuditUsage, CounterPage
from tallygate.ports.epochs import ShardState, Stage
from tallygate.ports.reconcile import PeriodAsked, StepReading

# As much as verification takes; more lag than that has to pass first.
IN_FLIGHT_MAX: Final = 200_000
ALL: Final = MeterName("")
PAST: Final = Absent(Why.NOT_KEPT, "counters are of the current period alone")
UNCOUNTED: Final = Absent(Why.NOT_KEPT, "no window limit counts the billing period")
PARENT: Final = Absent(Why.NOT_KEPT, "counters of a parent count its children's usage too")
YOUNG: Final = Absent(Why.NOT_KEPT, "the limit is younger than the period")
SHUT: Final = Absent(Why.UNKNOWN, "the counters are being rebuilt")
UNDECLARED: Final = Absent(Why.UNKNOWN, "no catalog is in effect")


class Below(Protocol):
    """Knows who is below whom."""

    async def tenants_below(self, ids: Sequence[TenantId]) -> list[TenantId]:
        """Return the tenants whose parent is one of these."""
        ...

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those of the tenants that are declared."""
        ...


@dataclass(frozen=True, slots=True)
class _Counted:
    """A limit that counts an ask's period."""

    ask: int
    tenant: Tenant
    limit: Limit
    charge: Charge


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a shard has read."""

    page: CounterPage
    catalog: Catalog
    usage: AuditUsage
    expected: Mapping[tuple[AccountId, str], int]
    used: Mapping[tuple[TenantId, MeterName], int]
    reset: frozenset[tuple[TenantId, LimitId]]


class CounterFigures:
    """The `FigureSource` of counters."""

    def __init__(self, parts: CounterParts, below: Below) -> None:
        self._parts = parts
        self._below = below

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return what counters have of the periods that go on, and why of others they have none."""
        try:
            return await self._figures(asked)
        except TallygateError as error:
            absent = Absent(Why.UNKNOWN, f"counters: {error.message}")
            return [_all(number, absent) for number in range(len(asked))]

    async def _figures(self, asked: Sequence[PeriodAsked]) -> list[StepReading]:
        parts, now_us = self._parts, self._parts.clock.now_us()
        catalog = await parts.declared.effective(now_us)
        if catalog is None:
            return [_all(number, UNDECLARED) for number in range(len(asked))]
        current = {number: each for number, each in enumerate(asked) if each.period.holds(now_us)}
        found = [_all(number, PAST) for number in range(len(asked)) if number not in current]
        parents = await self._parents([each.tenant.tenant_id for each in current.values()])
        lines = await lineages(
            parts.declared, catalog, [each.tenant.tenant_id for each in current.values()]
        )
        shards: dict[int, list[_Counted]] = {}
        for number, each in current.items():
            tenant = each.tenant
            if tenant.tenant_id in parents:
                found.append(_all(number, PARENT))
                continue
            found.append(_all(number, UNCOUNTED))
            line = lines.get(tenant.tenant_id, (tenant,))
            shard = shard_of(line[-1].tenant_id, parts.shards)
            shards.setdefault(shard, []).extend(_counted(number, each, catalog, now_us))
        states = {each.shard: each for each in await parts.stages.states()}
        for shard, counted in shards.items():
            found += await self._shard(states[shard], catalog, counted) if counted else []
        return found

    async def _parents(self, ids: Sequence[TenantId]) -> set[TenantId]:
        children = await self._below.tenants_below(ids)
        tenants = await self._below.tenants_named(children)
        return {each.parent for each in tenants.values() if each.parent is not None}

    async def _shard(
        self, state: ShardState, catalog: Catalog, counted: Sequence[_Counted]
    ) -> list[StepReading]:
        parts = self._parts
        accounts = sorted({AccountId(each.tenant.tenant_id) for each in counted})
        if state.stage is not Stage.OPEN:
            return [_of(each, SHUT) for each in counted]
        page = await parts.reads.page(state, accounts)
        if not page.open:
            return [_of(each, SHUT) for each in counted]
        events = await self._in_flight(state.shard, page.at_us)
        async with parts.snapshots.snapshot() as usage:
            look = await self._look(page, catalog, usage, counted, events)
            return [_of(each, await _figure(each, look)) for each in counted]

    async def _look(
        self,
        page: CounterPage,
        catalog: Catalog,
        usage: AuditUsage,
        counted: Sequence[_Counted],
        events: Sequence[UsageEvent],
    ) -> _Look:
        parts = self._parts
        tenants = sorted({each.tenant.tenant_id for each in counted})
        unseen = await usage.unseen(events) if events else []
        added = AddedUsage(usage, [each for each in unseen if each.tenant_id in tenants])
        recount = Recount(
            added,
            parts.declared,
            catalog,
            shards=parts.shards,
            at_us=page.at_us,
            until_us=page.at_us + 1,
        )
        expected = {
            (account.account, made.field): sum(units for _, units in slots)
            for account in await recount.of(tenants)
            for made, slots in zip(account.charges, account.slots, strict=True)
        }
        asks = [
            Ask(each.tenant.tenant_id, each.limit.meter, _starts(each), 0, page.at_us + 1)
            for each in counted
        ]
        used = {
            (asks[each.ask].tenant_id, asks[each.ask].meter): each.units
            for each in await added.sums(asks)
        }
        resets = await usage.resets(tenants)
        return _Look(
            page=page,
            catalog=catalog,
            usage=usage,
            expected=expected,
            used=used,
            reset=frozenset((each.tenant_id, each.limit_id) for each in resets),
        )

    async def _in_flight(self, shard: int, until_us: int) -> list[UsageEvent]:
        events: list[UsageEvent] = []
        async for entry in self._parts.reads.entries(shard, until_us):
            if entry.received_at_us <= until_us:
                events += entry.events
            if len(events) > IN_FLIGHT_MAX:
                raise Overloaded("too many events are in flight: let ingest catch up")
        return events


async def _figure(each: _Counted, look: _Look) -> Figure | Absent:
    """Return what a counter has, what it is due, and what was put elsewhere."""
    tenant_id, limit, name = each.tenant.tenant_id, each.limit, each.charge.field
    read = look.page.accounts.get(AccountId(tenant_id), Account())
    stored, starts = read.counters.get(name), _starts(each)
    counter = stored if isinstance(stored, Counter) and stored.at_us == starts else Counter()
    # What reservations hold is no usage yet.
    held = sum(units for place, units in read.held(name) if place == starts)
    units = counter.amount - held
    due = look.expected.get((AccountId(tenant_id), name), 0)
    if units < due and await younger(look.usage, look.catalog, each.tenant, limit, starts):
        return YOUNG
    elsewhere = Decimal(look.used.get((tenant_id, limit.meter), 0) - due)
    reset = (tenant_id, limit.limit_id) in look.reset
    return Figure(
        Decimal(units),
        late=NONE if reset else elsewhere,
        aside=elsewhere if reset else NONE,
        due=Decimal(due),
    )


def _counted(number: int, asked: PeriodAsked, catalog: Catalog, now_us: int) -> list[_Counted]:
    """Return a limit for each meter of which one counts the whole period."""
    found: dict[MeterName, _Counted] = {}
    tenant = asked.tenant
    for limit in limits_of(catalog, tenant, now_us):
        meter = catalog.meters.get(limit.meter)
        if (
            limit.kind is not LimitKind.WINDOW
            or limit.per
            or limit.where
            or meter is None
            or meter.weights
            or meter.aggregation is not Aggregation.SUM
        ):
            continue
        made = charge(limit, AccountId(tenant.tenant_id), tenant.calendar, 0, now_us)
        rule = made.rule
        if isinstance(rule, WindowRule) and (rule.starts_us, rule.turns_us) == (
            asked.period.start_us,
            asked.period.end_us,
        ):
            found.setdefault(limit.meter, _Counted(number, tenant, limit, made))
    return list(found.values())


def _starts(each: _Counted) -> int:
    assert isinstance(each.charge.rule, WindowRule)
    return each.charge.rule.starts_us


def _of(each: _Counted, figure: Figure | Absent) -> StepReading:
    return StepReading(each.ask, each.limit.meter, Reading(Step.COUNTER, figure))


def _all(number: int, absent: Absent) -> StepReading:
    return StepReading(number, ALL, Reading(Step.COUNTER, absent))
