"""counters · stream · ledger ─▶ [ verify counters ] ─▶ differences, on a system that goes on.

If we die here, nothing has happened: counters are read, and not changed.

Guarantees: what is in flight is no difference. Counters are read first, all of a family at one
instant of their own time; then the stream; then the ledger, in one snapshot. What was accepted by
that instant is then in the snapshot, or it was in the stream: it cannot have left the stream before
the ledger had it. Usage that came later is left out by when it was accepted. So both sides are of
the same instant, to the unit.
Refuses to know: SQL, Redis, and how differences are shown.

What differs is looked at again: a limit, a family or a correction may have been changing just then.
Rates are not compared: what they hold drains as it comes, and the ledger does not tell in which
order a tenth of a second was. A counter that is lower than it should be passes, and is counted as
young, when its limit was another one at the beginning of its window.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.catalog import Catalog, Limit, LimitKind, Tenant, limits_of
from tallygate.domain.drift import BalanceBook, Check, Difference
from tallygate.domain.drift_counters import Slots, Unlike, unlike, unlike_balance
from tallygate.domain.errors import Overloaded
from tallygate.domain.event import BalanceBurn, UsageEvent
from tallygate.domain.hold import Account
from tallygate.domain.ids import AccountId, TenantId, scope_of, shard_of, tenant_of
from tallygate.domain.limit import charge
from tallygate.flow.event_usage import AddedUsage
from tallygate.flow.family import lineages
from tallygate.flow.limit_age import younger
from tallygate.flow.recount import TENANTS_PAGE, Recount, Recounted
from tallygate.flow.verify import CounterFindings
from tallygate.ports import Clock
from tallygate.ports.audit import AuditSnapshots, AuditUsage, CounterPage, CounterReads
from tallygate.ports.epochs import CounterStages, ShardState, Stage
from tallygate.ports.rebuild import Declared

# Read in one moment, in which Redis does nothing else: some milliseconds.
TENANTS_MAX: Final = 200
# Some hundred megabytes; more lag than that is told by metrics, and has to pass first.
IN_FLIGHT_MAX: Final = 200_000
# Corrections are made once a second.
ATTEMPTS_MAX: Final = 4
PAUSE_S: Final = 1.5

Note = Callable[[int], None]
# Accounts by shard and tenant. Those that come to light later are added.
Names = dict[int, dict[TenantId, set[AccountId]]]


@dataclass(frozen=True, slots=True)
class CounterParts:
    """What counters are compared through. `wait` pauses between looks, for seconds."""

    reads: CounterReads
    stages: CounterStages
    snapshots: AuditSnapshots
    declared: Declared
    clock: Clock
    shards: int
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(slots=True)
class _Group:
    """Families of one shard that are compared together, by their roots."""

    shard: int
    families: dict[TenantId, list[TenantId]] = field(default_factory=dict)

    @property
    def tenants(self) -> list[TenantId]:
        """All tenants of the families."""
        return [each for family in self.families.values() for each in family]


@dataclass(slots=True)
class _Findings:
    differences: list[Difference] = field(default_factory=list)
    compared: int = 0
    in_flight: int = 0
    young: int = 0
    shut: set[int] = field(default_factory=set)
    # The roots of families in which something differs.
    doubtful: set[TenantId] = field(default_factory=set)

    def add(self, other: "_Findings") -> None:
        """Add what another look has found."""
        self.differences += other.differences
        self.compared += other.compared
        self.in_flight += other.in_flight
        self.young += other.young
        self.shut |= other.shut
        self.doubtful |= other.doubtful


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a group has read."""

    group: _Group
    page: CounterPage
    catalog: Catalog
    lineages: Mapping[TenantId, tuple[Tenant, ...]]
    recounted: Mapping[AccountId, Recounted]
    books: Mapping[tuple[AccountId, str], BalanceBook]
    burns: Sequence[BalanceBurn]
    epoch: str

    @property
    def tenants(self) -> dict[TenantId, Tenant]:
        """All tenants of the group, parents included."""
        return {each.tenant_id: each for line in self.lineages.values() for each in line}

    def root(self, tenant_id: TenantId) -> TenantId:
        """Return the topmost parent of a tenant."""
        for lineage in self.lineages.values():
            if any(each.tenant_id == tenant_id for each in lineage):
                return lineage[-1].tenant_id
        return tenant_id


class CounterAudit:
    """The `CounterCheck` of verification."""

    def __init__(self, parts: CounterParts) -> None:
        self._parts = parts

    async def compare(self, tenant_id: TenantId | None, note: Note) -> CounterFindings:
        """Compare the counters of a tenant, or of all; return what differs after three looks.

        Raises `BackendUnavailable`, and `Overloaded` when too much is in flight.
        """
        catalog = await self._parts.declared.effective(self._parts.clock.now_us())
        if catalog is None:
            return CounterFindings(unverified=("counters: no catalog is in effect",))
        states = {each.shard: each for each in await self._parts.stages.states()}
        wanted = [each for each in states.values() if each.stage is Stage.OPEN]
        reads = self._parts.reads
        names = {shard: dict(found) for shard, found in (await reads.accounts(wanted)).items()}
        total = _Findings()
        if tenant_id is None:
            total.shut.update(each.shard for each in states.values() if each not in wanted)
        for group in await self._groups(catalog, names, tenant_id):
            found = await self._look(group, catalog, states[group.shard], names)
            note(found.compared)
            for _ in range(ATTEMPTS_MAX - 1):
                if not found.doubtful:
                    break
                found = await self._again(group, catalog, names, found)
            total.add(found)
        return CounterFindings(
            differences=tuple(
                each for each in total.differences if tenant_id in (None, each.tenant_id)
            ),
            compared=total.compared,
            in_flight=total.in_flight,
            young=total.young,
            unverified=tuple(
                f"counters of shard {shard}: they are being rebuilt" for shard in sorted(total.shut)
            ),
        )

    async def _again(
        self,
        group: _Group,
        catalog: Catalog,
        names: Names,
        before: _Findings,
    ) -> _Findings:
        """Look once more at the families that differed, as they are by now."""
        await self._parts.wait(PAUSE_S)
        states = {each.shard: each for each in await self._parts.stages.states()}
        some = _Group(group.shard)
        async with self._parts.snapshots.snapshot() as usage:
            recount = self._recount(usage, catalog, self._parts.clock.now_us())
            for root in before.doubtful:
                family = await recount.family(root) or group.families.get(root, [root])
                some.families[root] = family
        found = await self._look(some, catalog, states[group.shard], names)
        found.compared = before.compared
        found.young += before.young
        return found

    async def _groups(
        self,
        catalog: Catalog,
        names: Names,
        tenant_id: TenantId | None,
    ) -> list[_Group]:
        """Return all families, by shard, in groups that are compared together."""
        async with self._parts.snapshots.snapshot() as usage:
            recount = self._recount(usage, catalog, self._parts.clock.now_us())
            if tenant_id is not None:
                known = await recount.family(tenant_id) or [tenant_id]
                families = await self._rooted(catalog, known)
            else:
                families = dict(await recount.families())
                known = [each for family in families.values() for each in family]
                strangers = {each for named in names.values() for each in named}.difference(known)
                for root, some in (await self._rooted(catalog, sorted(strangers))).items():
                    families[root] = [*families.get(root, ()), *some]
        groups: dict[int, list[_Group]] = {}
        for root, family in families.items():
            shard = shard_of(root, self._parts.shards)
            of_shard = groups.setdefault(shard, [_Group(shard)])
            if len(of_shard[-1].tenants) >= TENANTS_MAX:
                of_shard.append(_Group(shard))
            of_shard[-1].families[root] = family
        return [group for of_shard in groups.values() for group in of_shard]

    async def _rooted(
        self, catalog: Catalog, tenants: Sequence[TenantId]
    ) -> dict[TenantId, list[TenantId]]:
        """Return tenants by their roots; those that the catalog does not have are left out."""
        found: dict[TenantId, list[TenantId]] = {}
        for start in range(0, len(tenants), TENANTS_PAGE):
            page = tenants[start : start + TENANTS_PAGE]
            for tenant, line in (await lineages(self._parts.declared, catalog, page)).items():
                found.setdefault(line[-1].tenant_id, []).append(tenant)
        return found

    def _recount(self, usage: AuditUsage | AddedUsage, catalog: Catalog, at_us: int) -> Recount:
        return Recount(
            usage,
            self._parts.declared,
            catalog,
            shards=self._parts.shards,
            at_us=at_us,
            until_us=at_us + 1,
        )

    async def _look(
        self, group: _Group, catalog: Catalog, state: ShardState, names: Names
    ) -> _Findings:
        """Look at a group; once more, with them, if there are accounts that nobody knew of."""
        scoped = names.setdefault(group.shard, {})
        while True:
            found, unread = await self._look_once(group, catalog, state, scoped)
            # On a live system a value of a dimension may be used for the first time at any moment;
            # those that are new within one look are few.
            if not unread:
                return found
            for account in unread:
                scoped.setdefault(tenant_of(account), set()).add(account)

    async def _look_once(
        self,
        group: _Group,
        catalog: Catalog,
        state: ShardState,
        scoped: Mapping[TenantId, set[AccountId]],
    ) -> tuple[_Findings, set[AccountId]]:
        """Return what is found, and the accounts with usage of which the counters were not read."""
        if state.stage is not Stage.OPEN:
            return _Findings(shut={group.shard}), set()
        lines = dict(await lineages(self._parts.declared, catalog, group.tenants))
        members = {each.tenant_id for line in lines.values() for each in line}
        accounts = {AccountId(each) for each in members}
        accounts.update(*(scoped.get(each, set()) for each in members))
        page = await self._parts.reads.page(state, sorted(accounts))
        if not page.open:
            return _Findings(shut={group.shard}), set()
        events, burns = await self._in_flight(group.shard, page.at_us)
        async with self._parts.snapshots.snapshot() as usage:
            unseen = await usage.unseen(events) if events else []
            theirs = await lineages(
                self._parts.declared, catalog, sorted({each.tenant_id for each in unseen})
            )
            lines |= {
                tenant: line
                for tenant, line in theirs.items()
                if line[-1].tenant_id in group.families
            }
            added = AddedUsage(usage, [each for each in unseen if each.tenant_id in lines])
            recounted = await self._recount(added, catalog, page.at_us).of(sorted(lines))
            unread = {each.account for each in recounted} - accounts
            if unread:
                return _Findings(), unread
            books = await usage.books(sorted(members), page.at_us)
            unposted = await usage.unposted(burns) if burns else []
            look = _Look(
                group=group,
                page=page,
                catalog=catalog,
                lineages=lines,
                recounted={each.account: each for each in recounted},
                books={(AccountId(each.tenant_id), each.limit_id): each for each in books},
                burns=unposted,
                epoch=state.epoch,
            )
            found = await self._compared(look, usage)
        found.in_flight = len(unseen)
        return found, set()

    async def _in_flight(
        self, shard: int, until_us: int
    ) -> tuple[list[UsageEvent], list[BalanceBurn]]:
        events: list[UsageEvent] = []
        burns: list[BalanceBurn] = []
        async for entry in self._parts.reads.entries(shard, until_us):
            if entry.received_at_us <= until_us:
                events += entry.events
                burns += entry.burns
            if len(events) > IN_FLIGHT_MAX:
                raise Overloaded("too many events are in flight: let ingest catch up")
        return events, burns

    async def _compared(self, look: _Look, usage: AuditUsage) -> _Findings:
        found = _Findings()
        tenants = look.tenants
        for account, read in look.page.accounts.items():
            tenant = tenants[tenant_of(account)]
            for limit in _limits(look, tenant, account):
                found.compared += 1
                for unequal in _unlike(look, account, read, limit, tenant):
                    if unequal.found < unequal.expected and await self._young(
                        look, usage, tenant, limit, unequal.since_us
                    ):
                        found.young += 1
                        continue
                    found.doubtful.add(look.root(tenant.tenant_id))
                    found.differences.append(_difference(account, limit, unequal))
        return found

    async def _young(
        self, look: _Look, usage: AuditUsage, tenant: Tenant, limit: Limit, since_us: int
    ) -> bool:
        """Say whether the limit has been another one, or none, since the window began."""
        if limit.kind is LimitKind.BALANCE or not since_us:
            return False
        return await younger(usage, look.catalog, tenant, limit, since_us)


def _limits(look: _Look, tenant: Tenant, account: AccountId) -> Iterable[Limit]:
    """Iterate over the limits whose counters the account has, by what the tenant has now."""
    per = scope_of(account).partition("=")[0]
    for limit in limits_of(look.catalog, tenant, look.page.at_us):
        if limit.per == per:
            yield limit


def _unlike(
    look: _Look, account: AccountId, read: Account, limit: Limit, tenant: Tenant
) -> Iterable[Unlike]:
    at_us = look.page.at_us
    template = charge(limit, account, tenant.calendar, 0, at_us)
    stored, held = read.counters.get(template.field), read.held(template.field)
    if limit.kind is LimitKind.BALANCE:
        book = look.books.get((account, limit.limit_id))
        if book is None or book.published_epoch != look.epoch:
            return ()  # its counters have not been given it: refused until they have
        burns = [
            (each.grant_seq, each.amount)
            for each in look.burns
            if (each.tenant_id, each.limit_id) == (tenant.tenant_id, limit.limit_id)
        ]
        return unlike_balance(stored, held, book, burns, at_us)
    slots: Slots = ()
    recounted = look.recounted.get(account)
    if recounted is not None:
        for each, found in zip(recounted.charges, recounted.slots, strict=True):
            if each.field == template.field:
                slots = found
    return unlike(template, stored, held, slots, at_us)


def _difference(account: AccountId, limit: Limit, unequal: Unlike) -> Difference:
    scope = scope_of(account)
    return Difference(
        check=Check.BALANCE if limit.kind is LimitKind.BALANCE else Check.COUNTER,
        what=f"{limit.limit_id} {scope}".strip(),
        tenant_id=tenant_of(account),
        where=unequal.where,
        expected=unequal.expected,
        found=unequal.found,
        detail="the counter is not what the ledger and what is in flight come to",
    )
