"""`make bench-scripts`: what an operation costs Redis by its shape, and what is stored of it.

Owns the shapes: alone and with 63 others, by number and kind of limits, and by mode. Guarantees:
every ratio is of two figures of this run, taken in turns. Refuses to know: Python's part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.redis_cost import (
    SHARD,
    Calls,
    Cost,
    Costs,
    decide,
    limit,
    rate,
    run,
    server,
    tenant,
    windows,
)
from tallygate.adapters.redis.quota_store import RedisQuotaStore
from tallygate.commands.output import Cell, Sheet, show
from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Given, Hold, Portion, Settlement
from tallygate.domain.ids import OperationId, ReservationId
from tallygate.domain.window import DAY_US
from tallygate.ports import ReservationKey

ROUNDS = 12
LONE_CALLS = 48
TOGETHER = 64
TOGETHER_CALLS = 4
GIVEN = 256
TENANTS = 2_000
EVENTS = 6_400
ONE = tenant(1)
LIMITS = (1, 2, 4, 8, 16, 32)
STORED_LIMITS = (1, 2, 8)

Batches = list[list[Operation]]


@dataclass(frozen=True, slots=True)
class Shape:
    """Operations of one kind. `prepare` is done before each round, and not measured."""

    name: str
    batch: int
    make: Callable[[Calls], Operation]


def _two() -> list[Limit]:
    return [*windows(1), rate()]


def shapes() -> list[Shape]:
    """Return all that is measured without a preparation; the first is what ratios are to."""

    def consume(limits: Sequence[Limit], **changes: object) -> Callable[[Calls], Operation]:
        return lambda calls: calls.one(ONE, calls.charges(limits, ONE), **changes)

    def both(name: str, make: Callable[[Calls], Operation]) -> list[Shape]:
        return [Shape(name, 1, make), Shape(name, TOGETHER, make)]

    found = both("window and rate", consume(_two()))
    for count in LIMITS:
        found += both(f"{count} windows" if count > 1 else "1 window", consume(windows(count)))
    for name, each in (
        ("rate", rate()),
        ("sliding", limit("sliding", LimitKind.SLIDING, period=None, duration_us=DAY_US)),
        ("concurrency", limit("jobs", LimitKind.CONCURRENCY, period=None)),
    ):
        found += both(name, consume([each]))
    found += both("check", consume(_two(), mode=Mode.CHECK, operation_id=None, fingerprint="",
                                   event_count=0, payload=b""))  # fmt: skip
    found += both("record", consume(_two(), mode=Mode.RECORD))
    again = Calls().one(ONE, Calls().charges(_two(), ONE), operation_id=OperationId("again"))
    found += both("repeat", lambda _: again)
    return found


class Phases:
    """Reservations, and what settles them, in turns."""

    def __init__(self, costs: Costs, store: RedisQuotaStore, calls: Calls) -> None:
        self._costs = costs
        self._store = store
        self._calls = calls
        self._count = 0
        self.found = {name: Cost() for name in ("reserve", "commit", "release", "settle")}

    async def round(self) -> None:
        """Reserve, and commit or release; then settle what a lease granted, per call of it."""
        for mode, name in ((Mode.COMMIT, "commit"), (Mode.RELEASE, "release")):
            names = await self._reserve("reserve", LONE_CALLS, 1)
            settling = [[await self._settled(mode, of)] for of in names]
            await self._measure(name, LONE_CALLS, settling)
        (lease,) = await self._reserve(None, 1, GIVEN)
        await self._measure("settle", GIVEN, [[await self._settled(Mode.SETTLE, lease)]])

    async def _reserve(self, name: str | None, count: int, units: int) -> list[ReservationId]:
        self._count += count
        names = [ReservationId(f"r-{self._count}-{n}") for n in range(count)]
        charges = self._calls.charges(windows(1), ONE, units)
        changes = {"mode": Mode.RESERVE, "event_count": 0}
        batches = [
            [self._calls.one(ONE, charges, detail=Hold(of, DAY_US), **changes)] for of in names
        ]
        if name is None:
            await decide(self._store, batches)
        else:
            await self._measure(name, count, batches)
        return names

    async def _settled(self, mode: Mode, of: ReservationId) -> Operation:
        found = await self._store.reservation(ReservationKey(SHARD, ONE, of))
        assert found is not None
        portions: list[Portion] = []
        for share in found.shares:
            units = tuple(piece.amount for piece in share.pieces)
            none = (0,) * len(units)
            portions.append(
                Portion(share, *((none, units) if mode is Mode.RELEASE else (units, none)))
            )
        plain = self._calls.one(ONE, ())
        detail = Settlement(of, tuple(portions))
        match mode:
            case Mode.SETTLE:
                given = [self._calls.one(ONE, ()) for _ in range(GIVEN)]
                runs = Given(
                    tuple(each.operation_id for each in given),
                    tuple(each.fingerprint for each in given),
                    1,
                    len(plain.payload),
                )
                payload = b"".join(each.payload for each in given)
                detail = replace(detail, given=(runs,))
                return replace(plain, mode=mode, payload=payload, event_count=GIVEN, detail=detail)
            case Mode.RELEASE:
                return replace(plain, mode=mode, payload=b"", event_count=0, detail=detail)
            case _:
                return replace(plain, mode=mode, detail=detail)

    async def _measure(self, name: str, operations: int, batches: Batches) -> None:
        async def work() -> None:
            await decide(self._store, batches)

        await self._costs.measure(self.found[name], operations, work)


async def measured(costs: Costs) -> list[tuple[Cell, ...]]:
    """Measure every shape in turns; return the table's rows."""
    store, calls = costs.store(), Calls()
    found = [(shape, Cost()) for shape in shapes()]
    phases = Phases(costs, store, calls)
    for number in range(ROUNDS + 1):
        for shape, cost in found:
            count = LONE_CALLS if shape.batch == 1 else TOGETHER_CALLS
            batches = [[shape.make(calls) for _ in range(shape.batch)] for _ in range(count)]

            async def work(batches: Batches = batches) -> None:
                await decide(store, batches)

            # The first round brings everything to where it is used; nothing of it counts.
            await costs.measure(cost if number else Cost(), count * shape.batch, work)
        await phases.round()
    plain = {shape.batch: cost.cpu_us for shape, cost in found[:2]}
    rows = [_row(shape.name, shape.batch, cost, plain[shape.batch]) for shape, cost in found]
    rows += [
        _row(name, 1, cost, plain[1]) for name, cost in phases.found.items() if name != "settle"
    ]
    rows.append(_row(f"settle, per call of {GIVEN}", GIVEN, phases.found["settle"], plain[64]))
    return rows


def _row(name: str, batch: int, cost: Cost, plain_us: float) -> tuple[Cell, ...]:
    return (
        name,
        batch,
        f"{cost.script_us:.1f}",
        f"{cost.cpu_us:.1f}",
        f"{cost.cpu_us / plain_us:.2f}",
        f"{cost.commands:.2f}",
        f"{cost.bytes_sent:.0f}",
    )


async def stored(costs: Costs) -> list[tuple[Cell, ...]]:
    """Return what Redis keeps, in bytes of its own counting."""
    rows: list[tuple[Cell, ...]] = []
    for count in STORED_LIMITS:
        quiet = {"operation_id": None, "fingerprint": "", "event_count": 0, "payload": b""}
        calls = Calls()
        each = [
            calls.one(of, calls.charges(windows(count), of), **quiet)
            for of in map(tenant, range(TENANTS))
        ]
        rows.append((f"a tenant, limits: {count}", await _kept(costs, each, TOGETHER)))
    calls = Calls()
    charges = calls.charges(_two(), ONE)
    nameless = {"operation_id": None, "fingerprint": ""}
    for batch in (1, TOGETHER):
        each = [calls.one(ONE, charges, **nameless) for _ in range(EVENTS)]
        rows.append((f"an event in the stream, {batch} at once", await _kept(costs, each, batch)))
    streamed = rows[-1][1]
    each = [calls.one(ONE, charges) for _ in range(EVENTS)]
    both = await _kept(costs, each, TOGETHER)
    assert isinstance(both, int)
    assert isinstance(streamed, int)
    rows.append(("a remembered operation, limits: 2", both - streamed))
    rows.append(("its event's payload", len(each[0].payload)))
    return rows


async def _kept(costs: Costs, operations: Sequence[Operation], batch: int) -> int:
    """Return how many bytes an operation leaves behind on a server that was empty."""
    await costs.client.flushall()
    store = costs.store()
    # What is there before the first: the shards' keys, one stream.
    await decide(store, [[replace(operations[0], tenant_id=tenant(10**7))]])
    before = await costs.used_bytes()
    await decide(store, [operations[n : n + batch] for n in range(0, len(operations), batch)])
    return round((await costs.used_bytes() - before) / len(operations))


async def main() -> None:
    """Measure, then print the tables."""
    async with server() as costs:
        version = (await costs.client.info("server"))["redis_version"]
        columns = ("operation", "at once", "script us", "CPU us", "ratio", "commands", "bytes sent")
        rows = await measured(costs)
    async with server("--appendonly", "no") as costs:
        kept = await stored(costs)
    sheets = [
        Sheet(f"an operation, Redis {version}", columns, rows),
        Sheet("bytes kept", ("what", "bytes"), kept),
    ]
    show(sheets, as_json=False)


if __name__ == "__main__":
    run(main())
