"""`make bench-limits`: what each kind of limit costs Redis, beside a plain window in one run.

Owns the cases and what is counted: commands within the script, and the script's own time, both as
the server's `INFO commandstats` has them. Guarantees: every ratio is of two figures of this run,
taken in turns; figures are the fastest fifth of the rounds, as others use the machine too.
Refuses to know: budgets, gRPC and the network.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.catalog import UNLIMITED, Limit, LimitKind, OnExceed
from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
)
from tallygate.domain.detail import (
    Credit,
    Grant,
    Hold,
    Portion,
    Settlement,
)
from tallygate.domain.ids import (
    AMOUNT_MAX,
    AccountId,
    LimitId,
    MeterName,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
    account_of,
)
from tallygate.domain.limit import charge
from tallygate.domain.window import DAY_US, Calendar, Period
from tallygate.ports import ReservationKey

ROUNDS = 25
CALLS = 20
BATCH = 64
SHARD = 1
PLENTY = 10**12
TENANT = TenantId("tenant")
PARENTS = [TenantId("tenant"), TenantId("team"), TenantId("organisation")]
CALENDAR = Calendar("UTC", 0)
PAYLOAD = b"x" * 120
MODES = ("check", "consume", "record", "reserve", "commit", "release")
SLIDING_US = 360 * DAY_US
# The server reads its clock in every call; those of the measuring itself are no part of it.
NOT_OURS = {"evalsha", "info"}


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of limit: how to bind it, and what to do before it is measured."""

    name: str
    limit: Limit
    accounts: Sequence[AccountId] = (account_of(TENANT),)
    live_buckets: int = 0
    grants: int = 0

    def charges(self, amount: int) -> tuple[Charge, ...]:
        """Bind the limit to each account."""
        now_us = time.time_ns() // 1000
        return tuple(charge(self.limit, of, CALENDAR, amount, now_us) for of in self.accounts)


@dataclass(slots=True)
class Cost:
    """What one operation cost, round by round."""

    us: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)

    @property
    def script_us(self) -> float:
        """The mean of the fastest fifth."""
        best = sorted(self.us)[: max(1, len(self.us) // 5)]
        return sum(best) / len(best)

    @property
    def typical_commands(self) -> float:
        """The median, as an account's key is given a longer life once in a while."""
        return sorted(self.commands)[len(self.commands) // 2]


def _limit(name: str, kind: LimitKind, **fields: object) -> Limit:
    values: dict[str, object] = {"period": None, "limit": PLENTY, **fields}
    return Limit(
        limit_id=LimitId(name),
        meter=MeterName("requests"),
        kind=kind,
        on_exceed=OnExceed.REFUSE,
        **values,  # type: ignore[arg-type]
    )


def cases() -> list[Case]:
    """Return every kind that is measured; the first is what the rest is compared with."""
    window = _limit("window", LimitKind.WINDOW, period=Period.DAY)
    rate = _limit("rate", LimitKind.RATE, period=Period.SECOND, limit=10**6, burst=10**6)
    sliding = _limit("sliding", LimitKind.SLIDING, duration_us=SLIDING_US)
    balance = _limit("balance", LimitKind.BALANCE, limit=0)
    unlimited = _limit("unlimited", LimitKind.WINDOW, period=Period.DAY, limit=UNLIMITED)
    return [
        Case("window", window),
        Case("window, per dimension", window, (account_of(TENANT, "user_id", "u-1"),)),
        Case("window, 3 levels", window, [account_of(each) for each in PARENTS]),
        Case("unlimited", unlimited),
        Case("rate", rate),
        Case("sliding, 1 live bucket", sliding, live_buckets=1),
        Case("sliding, 60 live buckets", sliding, live_buckets=60),
        Case("concurrency", _limit("jobs", LimitKind.CONCURRENCY)),
        Case("balance, 1 grant", balance, grants=1),
        Case("balance, 64 grants", balance, grants=64),
    ]


class Meter:
    """One server, one store, and what they cost."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._store = RedisQuotaStore(client, StoreOptions(SourceId("bench"), 16, 600_000))
        self._number = 0

    async def decide(self, operations: Sequence[Operation]) -> None:
        """Decide, and make sure that all of it was allowed."""
        outcomes = await self._store.decide(operations)
        refused = [each for each in outcomes if not isinstance(each, Decided) or not each.allowed]
        assert not refused, refused

    async def _stats(self) -> tuple[float, float]:
        """Return the script's time so far in us, and the commands that scripts have run."""
        stats = await self._client.info("commandstats")
        commands = sum(
            each["calls"]
            for name, each in stats.items()
            if name.removeprefix("cmdstat_") not in NOT_OURS
        )
        return stats.get("cmdstat_evalsha", {"usec": 0})["usec"], commands

    async def measure(self, cost: Cost, batches: Sequence[Sequence[Operation]]) -> None:
        """Decide the batches, each in a call of its own, and note what an operation cost."""
        us, commands = await self._stats()
        for batch in batches:
            await self.decide(batch)
        us_after, commands_after = await self._stats()
        operations = sum(len(batch) for batch in batches)
        cost.us.append((us_after - us) / operations)
        cost.commands.append((commands_after - commands) / operations)

    def one(self, mode: Mode, case: Case, of: ReservationId | None = None) -> Operation:
        """Return a call of one unit, as the sidecar would send it."""
        self._number += 1
        stores = mode in (Mode.CONSUME, Mode.RECORD)
        return Operation(
            mode=mode,
            tenant_id=TENANT,
            shard=SHARD,
            operation_id=None if mode is Mode.CHECK else OperationId(f"op-{self._number}"),
            fingerprint="0123456789abcdef",
            charges=case.charges(1),
            event_count=1 if stores else 0,
            payload=b"" if mode is Mode.CHECK else PAYLOAD,
            detail=Hold(of, DAY_US) if of is not None else None,
        )

    async def resolve(self, mode: Mode, case: Case, of: ReservationId) -> Operation:
        """Return what uses up, or gives back, all that a reservation holds."""
        found = await self._store.reservation(ReservationKey(SHARD, TENANT, of))
        assert found is not None
        portions: list[Portion] = []
        for share in found.shares:
            units = tuple(piece.amount for piece in share.pieces)
            none = (0,) * len(units)
            pair = (units, none) if mode is Mode.COMMIT else (none, units)
            portions.append(Portion(share, *pair))
        self._number += 1
        commits = mode is Mode.COMMIT
        return Operation(
            mode=mode,
            tenant_id=TENANT,
            shard=SHARD,
            operation_id=OperationId(f"op-{self._number}"),
            fingerprint="0123456789abcdef",
            charges=case.charges(0) if commits else (),
            event_count=1 if commits else 0,
            payload=PAYLOAD if commits else b"",
            detail=Settlement(of, tuple(portions), False, b"", 0),
        )

    async def prepare(self, case: Case) -> None:
        """Bring an empty server to where the case is measured."""
        await self._client.flushall()
        now_us = time.time_ns() // 1000
        width_us = SLIDING_US // 60
        for number in range(1, case.live_buckets):
            old = self.one(Mode.RECORD, case)
            changes = {"event_time_us": now_us - number * width_us}
            await self.decide([_changed(old, **changes)])
        if case.grants:
            grants = tuple(
                Grant(seq, 0, now_us, AMOUNT_MAX, PLENTY, PLENTY)
                for seq in range(1, case.grants + 1)
            )
            given = self.one(Mode.GRANT, case)
            await self.decide(
                [_changed(given, operation_id=None, payload=b"", detail=Credit(grants, 0))]
            )

    async def round(self, case: Case, costs: dict[str, Cost]) -> None:
        """Measure every mode once."""
        for name, mode in (
            ("check", Mode.CHECK), ("consume", Mode.CONSUME), ("record", Mode.RECORD)
        ):  # fmt: skip
            calls = [[self.one(mode, case)] for _ in range(CALLS)]
            await self.measure(costs[name], calls)
        for name, mode in (("commit", Mode.COMMIT), ("release", Mode.RELEASE)):
            names = [ReservationId(f"{name}-{self._number}-{n}") for n in range(CALLS)]
            await self.measure(
                costs["reserve"], [[self.one(Mode.RESERVE, case, of)] for of in names]
            )
            calls = [[await self.resolve(mode, case, of)] for of in names]
            await self.measure(costs[name], calls)


def _changed(operation: Operation, **changes: object) -> Operation:
    return Operation(**{name: getattr(operation, name) for name in Operation.__slots__} | changes)


async def main() -> None:
    """Measure every case in turns with the first, then print one table."""
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        async with EmbeddedRedis(folder) as server:
            client = connect(server.url, 5_000)
            try:
                rows = await _measured(Meter(client))
                version = (await client.info("server"))["redis_version"]
            finally:
                await client.aclose()
    columns = ("kind", *MODES)
    counted = [(name, *(_commands(each) for each in costs)) for name, costs, _ in rows]
    timed = [(name, *(_ratio(each, plain) for each in costs)) for name, costs, plain in rows]
    name, _, plain = rows[0]
    sheets = [
        Sheet(f"commands per call, Redis {version}", columns, counted),
        Sheet(f"script time; 1 is {plain.script_us:.0f} us, a consume of a {name}", columns, timed),
    ]
    show(sheets, as_json=False)


async def _measured(meter: Meter) -> list[tuple[str, list[Cost | None], Cost]]:
    """Return each case's costs by mode, and the plain consume's of the same minute."""
    plain, *_ = cases()
    rows: list[tuple[str, list[Cost | None], Cost]] = []
    for case in cases():
        reference, costs = Cost(), {name: Cost() for name in MODES}
        await meter.prepare(case)
        for _ in range(ROUNDS):
            await meter.round(case, costs)
            await meter.measure(reference, [[meter.one(Mode.CONSUME, plain)] for _ in range(CALLS)])
        rows.append((case.name, list(costs.values()), reference))
    together = Cost()
    for _ in range(ROUNDS):
        await meter.measure(together, [[meter.one(Mode.CONSUME, plain) for _ in range(BATCH)]])
    consumed = [together if name == "consume" else None for name in MODES]
    rows.append((f"{plain.name}, {BATCH} at once", consumed, rows[-1][2]))
    return rows


def _commands(cost: Cost | None) -> Cell:
    return f"{cost.typical_commands:.3g}" if cost is not None else ""


def _ratio(cost: Cost | None, reference: Cost) -> Cell:
    return f"{cost.script_us / reference.script_us:.2f}" if cost is not None else ""


if __name__ == "__main__":
    asyncio.run(main())
