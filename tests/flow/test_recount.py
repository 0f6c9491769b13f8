"""Recounting: counters made from the ledger's events are those that deciding has left."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from tallygate.domain.account import Accounts
from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    Tenant,
    Weight,
)
from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
    RateRule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.detail import Refund
from tallygate.domain.event import NO_CONTEXT, EventContext, UsageEvent
from tallygate.domain.ids import (
    EventId,
    LimitId,
    MeterName,
    OperationId,
    SourceId,
    TenantId,
    shard_of,
)
from tallygate.domain.request import Item
from tallygate.domain.sliding import Buckets
from tallygate.domain.usage_sum import LastReset
from tallygate.domain.verdict import Counter
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Calendar, Period
from tallygate.flow.bind import Binder
from tallygate.flow.event_usage import AddedUsage
from tallygate.flow.recount import Recount, Recounted
from tallygate.ports import LedgerBatch
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.recount import FakeUsageSnapshots
from tests.builders import REQUESTS, SHARDS, catalog, tenant, window

# Not long before midnight in Kolkata, so that a run crosses it.
START_US = 1_790_000_000_000_000 + 4 * HOUR_US
CALLS, TOKENS = MeterName("calls"), MeterName("tokens")
METERS = {
    REQUESTS: Meter(REQUESTS),
    CALLS: Meter(CALLS, Aggregation.COUNT),
    TOKENS: Meter(TOKENS, weights=(Weight(CALLS, 3, "sku", (("big", 7),)), Weight(REQUESTS, 2))),
}


def soft(name: str, **fields: object) -> Limit:
    """Return a limit that counts and never refuses."""
    return window(name, 50, on_exceed=OnExceed.ALLOW, **fields)


def limits() -> Catalog:
    """Return a plan with limits of every kind that events tell of, all soft."""
    sliding = {"kind": LimitKind.SLIDING, "period": None, "duration_us": 10 * MINUTE_US}
    return catalog(
        soft("hourly", period=Period.HOUR),
        soft("daily", period=Period.DAY),
        soft("per-user", period=Period.DAY, per="user"),
        soft("eu", where=(("region", ("eu", "uk")),)),
        soft("calls", meter=CALLS, period=Period.DAY),
        soft("tokens", meter=TOKENS, period=Period.WEEK),
        soft("slid", **sliding),
        soft("slid-calls", meter=CALLS, per="subject_id", **sliding),
        soft("rate", kind=LimitKind.RATE, period=Period.MINUTE, burst=30),
        window("held", kind=LimitKind.CONCURRENCY, period=None),
        meters=METERS,
    )


class Known:
    """Tenants by name: a root, two below it, and one of its own on the default plan."""

    def __init__(self) -> None:
        kolkata = Calendar("Asia/Kolkata", START_US - DAY_US)
        root = tenant("root", calendar=kolkata)
        below = [tenant(name, parent=root.tenant_id) for name in ("left", "right")]
        self.tenants = {each.tenant_id: each for each in (root, *below)}

    async def tenants_named(self, ids: Sequence[TenantId]) -> Mapping[TenantId, Tenant]:
        """Return those that are declared."""
        return {each: self.tenants[each] for each in ids if each in self.tenants}

    def lineage(self, name: TenantId) -> tuple[Tenant, ...]:
        """Return a tenant and its parents."""
        found = self.tenants.get(name) or tenant(name)
        return (found, *(self.lineage(found.parent) if found.parent else ()))


@dataclass
class World:
    """One shard as the specification has it, and the ledger of what it accepted."""

    seed: int
    catalog: Catalog = field(default_factory=limits)
    known: Known = field(default_factory=Known)
    accounts: Accounts = field(default_factory=lambda: Accounts(900 * SECOND_US))
    ledger: FakeLedger = field(default_factory=FakeLedger)
    now_us: int = START_US
    number: int = 0

    def __post_init__(self) -> None:
        self.choice = random.Random(self.seed)
        self.binder = Binder()
        self.snapshots = FakeUsageSnapshots(self.ledger)
        self.left: dict[EventId, int] = {}

    async def step(self) -> None:
        """Let time pass; record, refund or reset."""
        choice = self.choice
        self.now_us += choice.choice((1, SECOND_US, 20 * SECOND_US, 5 * MINUTE_US))
        match choice.randint(0, 9):
            case 0:
                self.reset()
            case 1 | 2 if self.left:
                await self.refund(choice.choice(list(self.left)))
            case _:
                await self.record()

    async def record(self) -> None:
        """Record one event, sometimes of the past or of a moment to come."""
        choice = self.choice
        back = choice.choice((0, 0, 0, -3 * SECOND_US, 2 * MINUTE_US, 90 * MINUTE_US, DAY_US))
        self.number += 1
        found = UsageEvent(
            event_id=EventId(f"event-{self.number}"),
            tenant_id=TenantId(choice.choice(("root", "left", "right", "alone"))),
            meter=choice.choice((REQUESTS, CALLS, TOKENS)),
            amount=choice.randint(1, 9),
            event_time_us=self.now_us - back,
            operation_id=OperationId(f"op-{self.number}"),
            context=EventContext(subject_id=choice.choice(("", "s1")), sku="big"),
            dimensions=choice.choice(({}, {"user": "u1"}, {"user": "u2", "region": "eu"})),
        )
        await self.accept(found, Mode.RECORD, found.amount, None)
        self.left[found.event_id] = found.amount

    async def refund(self, name: EventId) -> None:
        """Take a part of an event back, or all of it."""
        found = next(each for each in self.ledger.events.values() if each.event_id == name)
        units = self.choice.choice((self.left[name], self.choice.randint(1, self.left[name])))
        self.left[name] -= units
        if not self.left[name]:
            del self.left[name]
        self.number += 1
        taken = replace(
            found, event_id=EventId(f"event-{self.number}"), amount=-units, refund_of=name
        )
        detail = Refund(name, units, found.amount, found.meter == CALLS)
        await self.accept(taken, Mode.REFUND, units, detail)

    async def accept(
        self, event: UsageEvent, mode: Mode, units: int, detail: Refund | None
    ) -> None:
        """Have the event counted and stored."""
        item = Item(event.meter, units, event.dimensions)
        lineage = self.known.lineage(event.tenant_id)
        charges = self.binder.charges(self.catalog, lineage, [item], event.context, self.now_us)
        operation = Operation(
            mode,
            event.tenant_id,
            0,
            charges=charges,
            event_count=1,
            event_time_us=event.event_time_us,
            payload=b"x",
            detail=detail,
        )
        (outcome,) = self.accounts.decide([operation], event.source_id, self.now_us)
        assert isinstance(outcome, Decided)
        stored = replace(event, received_at_us=self.now_us, source_seq=outcome.first_seq)
        await self.ledger.persist(LedgerBatch((stored,)))

    def reset(self) -> None:
        """Set one counter back."""
        name = TenantId(self.choice.choice(("root", "left")))
        item = Item(REQUESTS, 0, {"user": "u1"})
        lineage = self.known.lineage(name)[:1]
        charges = self.binder.charges(self.catalog, lineage, [item], NO_CONTEXT, self.now_us)
        found = self.choice.choice([each for each in charges if each.limit_id != "held"])
        self.now_us += 1
        operation = Operation(Mode.RESET, name, 0, charges=(found,))
        (outcome,) = self.accounts.decide([operation], SourceId("s"), self.now_us)
        assert isinstance(outcome, Decided)
        scope = found.account.partition(" ")[2]
        limit = LimitId(found.limit_id)
        self.snapshots.resets.append(LastReset(name, limit, scope, self.now_us))
        # A refund of what a reset has forgotten takes from what came after it, but not below 0.
        self.left.clear()

    async def recounted(self) -> dict[tuple[str, str], tuple[Charge, dict[int, int]]]:
        """Return the slots of every counter as the ledger has them."""
        found: list[Recounted] = []
        async with self.snapshots.snapshot() as usage:
            recount = Recount(usage, self.known, self.catalog, shards=SHARDS, at_us=self.now_us)
            async for part in recount.accounts(families=1):
                found += part
        assert len({each.account for each in found}) == len(found)
        for each in found:
            root = self.known.lineage(TenantId(each.account.split(" ")[0]))[-1]
            assert each.shard == shard_of(root.tenant_id, SHARDS)
        return {
            (each.account, charge.field): (charge, dict(slots))
            for each in found
            for charge, slots in zip(each.charges, each.slots, strict=True)
        }

    def counted(self, charge: Charge, stored: object) -> dict[int, int]:
        """Return what a stored counter holds that counts still."""
        match charge.rule, stored:
            case WindowRule(starts_us=starts), Counter(at, amount):
                return {at: amount} if at == starts and amount else {}
            case SlidingRule(width, buckets), Buckets(units):
                first = self.now_us // width - buckets
                return {place: found for place, found in units if place >= first}
            case _:
                return {}


@pytest.mark.parametrize("seed", range(12))
async def test_recounts_what_was_counted(seed: int) -> None:
    """After any run of records, refunds and resets, windows and buckets are equal to the unit."""
    world = World(seed)
    for _ in range(150):
        await world.step()
    recounted = await world.recounted()
    templates = {
        (charge.account, charge.field): charge
        for name in ("root", "left", "right", "alone")
        for user in ({}, {"user": "u1"}, {"user": "u2", "region": "eu"})
        for subject in ("", "s1")
        for charge in world.binder.charges(
            world.catalog,
            world.known.lineage(TenantId(name)),
            [Item(meter, 0, user) for meter in METERS],
            EventContext(subject_id=subject),
            world.now_us,
        )
    }
    checked = 0
    for (account, name), charge in templates.items():
        held = world.accounts.accounts.get(charge.account)
        stored = held.counters.get(name) if held is not None else None
        _, slots = recounted.pop((account, name), (charge, {}))
        if isinstance(charge.rule, RateRule):
            _check_rate(charge, charge.rule, stored, slots, world.now_us)
            continue
        assert slots == world.counted(charge, stored), (account, name)
        checked += bool(slots)
    assert not recounted
    assert checked > 10


def _check_rate(
    charge: Charge, rule: RateRule, stored: object, slots: Mapping[int, int], now_us: int
) -> None:
    """A rate has never less than what was left of its debt, and at most one slot's drain more."""
    debt = 0
    if isinstance(stored, Counter):
        debt = max(0, stored.amount - (now_us - stored.at_us) * rule.drain)
    left = -(-debt // rule.weight)
    found = slots.get(0, 0)
    assert left <= found <= left + 1 + charge.limit // 60 + 1, (charge.account, charge.field)


async def test_adds_what_is_not_in_the_ledger_yet() -> None:
    """Events in memory beside a snapshot count as if they were in it."""
    world = World(2)
    for _ in range(20):
        await world.record()
    whole = await world.recounted()
    events = list(world.ledger.events.items())
    world.ledger.events = dict(events[:12])
    async with world.snapshots.snapshot() as usage:
        added = AddedUsage(usage, [event for _, event in events[12:]])
        recount = Recount(added, world.known, world.catalog, shards=SHARDS, at_us=world.now_us)
        found = [each async for part in recount.accounts() for each in part]
    slots = {
        (each.account, charge.field): (charge, dict(held))
        for each in found
        for charge, held in zip(each.charges, each.slots, strict=True)
    }
    assert slots == whole


async def test_leaves_out_an_epoch_and_other_shards() -> None:
    """What was counted in the epoch that is rebuilt is there already."""
    world = World(1)
    await world.record()
    (stored,) = world.ledger.events.values()
    world.ledger.events = {key: replace(stored, counter_epoch="new") for key in world.ledger.events}
    async with world.snapshots.snapshot() as usage:
        at_us = world.now_us
        rest = Recount(
            usage, world.known, world.catalog, shards=SHARDS, at_us=at_us, but_epochs=["new"]
        )
        assert [part async for part in rest.accounts() if part] == []
        whole = Recount(usage, world.known, world.catalog, shards=SHARDS, at_us=at_us)
        (found,) = [part async for part in whole.accounts()]
        shard = found[0].shard
        assert [part async for part in whole.accounts({shard})] == [found]
        assert [part async for part in whole.accounts({(shard + 1) % SHARDS})] == []
        sooner = Recount(
            usage, world.known, world.catalog, shards=SHARDS, at_us=at_us, until_us=at_us
        )
        assert [part async for part in sooner.accounts() if part] == []
        family = await whole.family(stored.tenant_id)
        assert await whole.of(family) == found
