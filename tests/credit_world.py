"""Counters, streams, ledgers and a catalog in memory, with tenants that have prepaid credits.

Guarantees: what the counters burn reaches the ledger when `drain` is called, and not before.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from tallygate.domain.catalog import Catalog, Limit, LimitKind, Meter, Plan, Tenant
from tallygate.domain.credit import NEVER_US, GrantAsked, GrantId
from tallygate.domain.decision import (
    Decided,
    LimitReading,
    Mode,
    Operation,
)
from tallygate.domain.entry import Burned
from tallygate.domain.event import BalanceBurn, StreamEntry
from tallygate.domain.ids import (
    LimitId,
    MeterName,
    OperationId,
    PlanName,
    SourceId,
    TenantId,
    account_of,
    shard_of,
    tenant_of,
)
from tallygate.domain.limit import charge
from tallygate.domain.window import Period
from tallygate.flow.credit import CreditParts, ExpireCredits, PublishCredits
from tallygate.flow.grant import Granting
from tallygate.flow.reset import ResetParts, Resetting
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.testing.catalog import FakeCatalogStore
from tallygate.testing.credit import FakeCounterEpochs, FakeCreditLedger, FakeResetAudit
from tallygate.testing.ledger import FakeLedger
from tallygate.testing.quota import FakeQuotaStore
from tallygate.testing.stream import FakeStreams, FakeUsageStream
from tests.usage_events import NOON_US

SHARDS: Final = 4
ACME: Final = TenantId("acme")
CREDITS: Final = LimitId("credits")
TOKENS: Final = MeterName("tokens")

BALANCE: Final = Limit(CREDITS, TOKENS, LimitKind.BALANCE, None, 0, overdraft=50, low_at=(20,))
DAILY: Final = Limit(LimitId("daily"), TOKENS, LimitKind.WINDOW, Period.DAY, 1_000)
PER_USER: Final = Limit(
    LimitId("per-user"), TOKENS, LimitKind.WINDOW, Period.DAY, 100, per="user_id"
)
PLAN: Final = Plan(PlanName("prepaid"), (BALANCE, DAILY, PER_USER))


def catalog(*limits: Limit) -> Catalog:
    """Return a catalog with one plan of these limits."""
    plan = replace(PLAN, limits=limits)
    return Catalog(meters={TOKENS: Meter(TOKENS)}, plans={plan.name: plan})


def grant(number: int = 1, amount: int = 100, **fields: object) -> GrantAsked:
    """Return a grant whose id is `grant-NUMBER`."""
    values: dict[str, object] = {
        "tenant_id": ACME,
        "limit_id": CREDITS,
        "grant_id": GrantId(f"grant-{number}"),
        "amount": amount,
        "expires_us": NEVER_US,
    }
    return GrantAsked(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


@dataclass(slots=True)
class CreditWorld:
    """All of it, and what was observed. The clock is the stores' too."""

    at_us: int = NOON_US
    told: list[tuple[str, object]] = field(default_factory=list)
    drained: dict[int, int] = field(default_factory=dict)
    number: int = 0
    ledger: FakeLedger = field(default_factory=FakeLedger)
    catalogs: FakeCatalogStore = field(default_factory=FakeCatalogStore)
    audit: FakeResetAudit = field(default_factory=FakeResetAudit)
    epochs: FakeCounterEpochs = field(default_factory=FakeCounterEpochs)
    credits: FakeCreditLedger = field(init=False)
    counters: FakeQuotaStore = field(init=False)
    streams: FakeStreams = field(init=False)

    def __post_init__(self) -> None:
        self.credits = FakeCreditLedger(self.ledger)
        self.counters = FakeQuotaStore(self.now_us)
        self.streams = FakeStreams(self.now_us, SHARDS)
        self.lose("e1")

    async def begin(self, *limits: Limit, parent: TenantId | None = None) -> None:
        """Write a catalog with these limits, by default all, and the tenant that they bind."""
        version = (await self.catalogs.newest()).version
        tenants = [Tenant(ACME, PLAN.name, parent=parent)]
        if parent is not None:
            tenants.append(Tenant(parent, PLAN.name))
        change = CatalogChange(catalog(*(limits or PLAN.limits)), tuple(tenants))
        await self.catalogs.write(change, version)

    def now_us(self) -> int:
        """Return the time of all stores."""
        return self.at_us

    def monotonic(self) -> float:
        """Return the same in seconds."""
        return self.at_us / 1e6

    def given(self, grants: int, rebuilt: int) -> None:
        """Keep it."""
        self.told.append(("given", (grants, rebuilt)))

    def refused(self, tenant_id: TenantId, limit_id: LimitId, outcome: str) -> None:
        """Keep it."""
        self.told.append(("refused", outcome))

    def waiting(self, balances: object) -> None:
        """Keep it."""
        self.told.append(("waiting", balances))

    def granting(self) -> Granting:
        """Return what grants."""
        return Granting(self.credits, self.catalogs, self)

    def resetting(self) -> Resetting:
        """Return what resets."""
        return Resetting(ResetParts(self.counters, self.audit, self.catalogs, self, SHARDS))

    def publish(self, balances_max: int = 10) -> PublishCredits:
        """Return what hands grants to counters, as a process that has just started."""
        return PublishCredits(
            CreditParts(
                ledger=self.credits,
                store=self.counters,
                stream=FakeUsageStream(self.streams, "credits"),
                epochs=self.epochs,
                catalogs=self.catalogs,
                clock=self,
                shards=SHARDS,
                observer=self,
                balances_max=balances_max,
            )
        )

    def expire(self) -> ExpireCredits:
        """Return what posts expiries."""
        return ExpireCredits(self.credits, self)

    def lose(self, epoch: str) -> None:
        """Lose every counter and stream; what is counted from now on is of that epoch."""
        self.counters.accounts.clear()
        self.drained.clear()
        self.epochs.found = {shard: f"{epoch}.{shard}" for shard in range(SHARDS)}

    async def use(self, amount: int, mode: Mode = Mode.CONSUME, root: TenantId = ACME) -> Decided:
        """Use so many units of the balance."""
        self.number += 1
        operation = self._operation(mode, amount, root)
        (outcome,) = await self.counters.decide([operation])
        assert isinstance(outcome, Decided), outcome
        return outcome

    async def left(self, root: TenantId = ACME) -> LimitReading:
        """Return the balance as the counters have it."""
        return (await self.use(0, Mode.CHECK, root)).readings[0]

    def _operation(self, mode: Mode, amount: int, root: TenantId) -> Operation:
        found = charge(BALANCE, account_of(ACME), Tenant(ACME, PLAN.name).calendar, amount, 0)
        return Operation(
            mode=mode,
            tenant_id=ACME,
            shard=shard_of(root, SHARDS),
            operation_id=OperationId(f"use-{self.number}"),
            charges=(found,),
            event_count=1,
        )

    async def drain(self) -> None:
        """Bring what was burnt since to the ledger, as ingest does."""
        burns: list[BalanceBurn] = []
        for shard, accounts in self.counters.accounts.items():
            for place in range(self.drained.get(shard, 0), len(accounts.stream)):
                entry = accounts.stream[place]
                source = SourceId(f"{entry.source_id}.{self.epochs.found[shard]}")
                found = [part for part in entry.parts if isinstance(part, Burned)]
                burns += [
                    BalanceBurn(
                        tenant_id=tenant_of(part.account),
                        limit_id=part.limit_id,
                        grant_seq=part.place,
                        amount=part.units,
                        source_id=source,
                        source_lane=shard,
                        entry_id=f"{place}-1",
                        number=number,
                        burned_at_us=entry.at_us,
                        counter_epoch=self.epochs.found[shard],
                    )
                    for number, part in enumerate(found)
                ]
            self.drained[shard] = len(accounts.stream)
        await self.ledger.persist(LedgerBatch((), burns=tuple(burns)))

    def hold_up(self, shard: int) -> StreamEntry:
        """Put an entry in a shard's stream that no ingester has stored yet."""
        return self.streams.add(StreamEntry(shard, "", self.at_us))

    async def release(self, entry: StreamEntry) -> None:
        """Store and acknowledge the entry."""
        stream = FakeUsageStream(self.streams, "ingester")
        await stream.read(100, 0)
        await stream.acknowledge([entry])
