"""A shard in Redis and its specification, side by side, driven by chosen steps at a moving time.

Owns the steps, and what must be equal after each. Refuses to know who chooses.

The steps were judged by 84 errors planted in the script, one operator or constant each: how a run
dies of one says more than how long it lives without. Where steps are left out or made rarer, plant
some again, at the edges of windows, buckets, holds, grants and memories above all.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from tallygate.adapters.redis import keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterStages
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.account import Accounts
from tallygate.domain.catalog import Limit
from tallygate.domain.decision import Decided, Mode, Operation, Reservation, ReservationState
from tallygate.domain.detail import Credit, Extension, Hold, Late, Rebuilt, Refund, Settlement
from tallygate.domain.ids import (
    AMOUNT_MAX,
    AccountId,
    EventId,
    ReservationId,
    SourceId,
    TenantId,
    account_of,
    numbered_in,
)
from tallygate.domain.limit import charge
from tallygate.domain.sliding import sliding_rule
from tallygate.domain.window import DAY_US, MINUTE_US, SECOND_US, Calendar
from tallygate.ports import ReservationKey
from tallygate.ports.epochs import Stage
from tests.property.shard_details import (
    any_balance,
    any_given,
    any_grants,
    any_name,
    any_portion,
    any_slot,
    events_given,
    turns,
)
from tests.property.shard_limits import Chooser, any_limit, changed_limit
from tests.property.shard_stored import Stored
from tests.property.shard_text import Conservation

START_US = 2**51
"""A fixed instant, in 2041, so that the same choices give the same run. Later than the server's
clock, by which keys expire, and which the virtual one must never fall behind."""

SHARD = 3
SHARDS = 16
SOURCE = SourceId("source-1")
MEMORY_MS = 600_000
TENANTS = [TenantId("acme"), TenantId("ümläut,;|"), TenantId("203.0.113.7")]
SCOPED = [account_of(TENANTS[0], "user_id", "a b;|,=\n"), account_of(TENANTS[0], "user_id", "")]
FAMILIES: list[tuple[AccountId, ...]] = [
    (account_of(TENANTS[0]),),
    (account_of(TENANTS[0]), SCOPED[0]),
    (SCOPED[1], account_of(TENANTS[0])),
    (account_of(TENANTS[1]),),
    (account_of(TENANTS[1]), account_of(TENANTS[2])),
]


class World:
    """One run: Redis, the model, the clock, and the plan in force."""

    def __init__(self, url: str, runner: asyncio.Runner, chooser: Chooser) -> None:
        self._run = cast(Callable[[Any], Any], runner.run)
        self._client = connect(url, 5_000)
        self._stored = Stored(url, SHARD)
        self._run(self._client.flushall())
        self.now_us = START_US
        self._store = RedisQuotaStore(
            self._client,
            StoreOptions(SOURCE, SHARDS, MEMORY_MS, opens_new=False, now_us=lambda: self.now_us),
        )
        self._stages = RedisCounterStages(self._client, SHARDS)
        self._model = Accounts(MEMORY_MS * 1000)
        self._choose = chooser
        self._plan: list[Limit] = []
        self._grants = 0
        self.outcomes: dict[str, int] = {}
        self._conservation = Conservation()
        # Whether the server has numbers no more that it had given out.
        self._rolled_back = False

    def begin(self) -> None:
        """Choose what the run begins with, and open the shard."""
        zone = self._choose.one_of(["UTC", "America/Havana", "Asia/Kolkata"])
        self._calendar = Calendar(zone, self.now_us - 40 * DAY_US)
        self._change_plan()
        self._run(self._store.open())
        self._begin()
        self._advance(Stage.OPEN)

    def close(self) -> None:
        """Close the connection."""
        self._stored.close()
        self._run(self._client.aclose())

    def step(self) -> None:
        """Do one thing, and compare everything."""
        does = self._choose.one_of(
            [
                *([self._decide] * 14),
                *([self._time_goes_on] * 4),
                self._clock_runs_back,
                self._clock_reaches_a_turn,
                self._change_plan,
                self._change_limit,
                self._change_limit,
                self._restart,
                self._lose,
                *([self._go_on] * 2),
            ]
        )
        does()
        self._stored.compare(self._model)
        self._conservation.check(self._model)

    def _time_goes_on(self) -> None:
        steps = [1, 100_000, SECOND_US, SECOND_US, 10 * SECOND_US, MINUTE_US, DAY_US, 30 * DAY_US]
        self.now_us += self._choose.one_of(steps)

    def _clock_runs_back(self) -> None:
        """As after a failover."""
        self.now_us -= self._choose.one_of([1, SECOND_US, 5 * SECOND_US])

    def _clock_reaches_a_turn(self) -> None:
        """To an instant at which something is over or begins: there are the errors by one."""
        grid = self._choose.one_of([SECOND_US, MINUTE_US, DAY_US, *self._widths()])
        self.now_us += grid - self.now_us % grid
        some = self._choose.one_of([[], [], *turns(self._model)])
        ahead = [each for each in some if self.now_us < each < self.now_us + 400 * DAY_US]
        if ahead:
            self.now_us = self._choose.one_of(ahead[-8:])

    def _widths(self) -> list[int]:
        return [sliding_rule(each.duration_us).width_us for each in self._plan if each.duration_us]

    def _restart(self) -> None:
        """The server forgets its scripts."""
        self._run(self._client.script_flush())

    def _begin(self) -> None:
        """Go on in the epoch that the shard has now."""
        epoch = self._run(self._stages.states())[SHARD].epoch
        assert epoch != self._model.epoch
        self._model.renew(epoch)
        self._stored.begin(epoch)
        self._conservation.open.clear()

    def _lose(self) -> None:
        """The counters are given up, by somebody else or, as numbers are missing, by the store."""
        source = numbered_in(SOURCE, self._model.epoch)
        last = self._model.sequences.get(source, 0)
        if last and not self._rolled_back and self._choose.one_of([True, False]):
            left = self._choose.integer(0, last - 1)
            self._run(self._client.hset(keys.meta(SHARD), source, str(left)))
            self._rolled_back = True
        elif not self._rolled_back:
            self._run(self._stages.renew(SHARD, self._model.epoch))
            self._begin()

    def _go_on(self) -> None:
        """The rebuilding comes to a stage, as far as the shard is not further."""
        if not self._rolled_back:
            self._advance(self._choose.one_of([Stage.SEEN, Stage.FILLED, *[Stage.OPEN] * 4]))

    def _advance(self, stage: Stage) -> None:
        later = self._run(self._stages.advance(SHARD, self._model.epoch, stage))
        assert later or stage is not Stage.OPEN or self._model.open
        self._model.open = self._model.open or stage is Stage.OPEN
        self._model.lost = False

    def _change_plan(self) -> None:
        count = self._choose.integer(1, 5)
        limits = [any_limit(self._choose) for _ in range(count)]
        self._plan = list({limit.limit_id: limit for limit in limits}.values())

    def _change_limit(self) -> None:
        index = self._choose.integer(0, len(self._plan) - 1)
        self._plan[index] = changed_limit(self._choose, self._plan[index])

    def _decide(self) -> None:
        operations = [self._operation() for _ in range(self._choose.integer(1, 4))]
        found = self._run(self._store.decide(operations))
        if self._rolled_back:
            self._begin()
            self._rolled_back = False
        before = {of: dict(account.holds) for of, account in self._model.accounts.items()}
        source = numbered_in(SOURCE, self._model.epoch)
        expected = self._model.decide(operations, source, self.now_us)
        assert found == expected, (operations, found, expected)
        for operation, outcome in zip(operations, expected, strict=True):
            name = f"{operation.mode.name} {type(outcome).__name__}"
            if isinstance(outcome, Decided):
                name += " allowed" if outcome.allowed else " refused"
            self.outcomes[name] = self.outcomes.get(name, 0) + 1
        self._stored.decided(operations, expected, self._model)
        self._conservation.now_us = self.now_us
        self._conservation.decided(operations, expected, before, self._model)

    def _operation(self) -> Operation:
        makes = self._choose.one_of(
            [
                *([self._use] * 8),
                *([self._reserve] * 4),
                *([self._resolve] * 5),
                self._late,
                self._extend,
                self._refund,
                self._refund,
                self._reset,
                self._reset,
                self._credit,
                self._credit,
                self._rebuild,
            ]
        )
        return makes()

    def _charges(self, family: Sequence[AccountId], amount: int) -> list[Any]:
        # Two windows back, the windows offered end at the instant at which the third begins.
        late = [900_000, 2 * SECOND_US, 2 * MINUTE_US, 40 * DAY_US, -900_000, -40 * DAY_US]
        skew_us = self._choose.one_of([*[0] * 15, *late])
        return [
            charge(limit, account, self._calendar, amount, self.now_us - skew_us)
            for account in family
            for limit in self._plan
        ]

    def _amount(self) -> int:
        # Small numbers around small limits meet often; large ones meet the edge of what is exact.
        small = [*range(1, 7)] * 3
        amount: int = self._choose.one_of([*small, AMOUNT_MAX, 2**52])
        return amount

    def _named(self, mode: Mode, content: int) -> dict[str, Any]:
        """Return the id, if any, and the fingerprint of an operation."""
        return {
            "operation_id": any_name(self._choose, mode),
            "fingerprint": f"{mode.value}{content:x}",
        }

    def _use(self) -> Operation:
        mode = self._choose.one_of([Mode.CONSUME] * 4 + [Mode.RECORD, Mode.CHECK, Mode.REJECT])
        family, amount = self._choose.one_of(FAMILIES), self._amount()
        named = self._named(mode, amount)
        if mode in (Mode.CHECK, Mode.REJECT):
            named["operation_id"] = None
        before_us = self._before_us()
        stores = mode is not Mode.CHECK
        return Operation(
            mode=mode,
            tenant_id=TENANTS[0],
            shard=SHARD,
            charges=() if mode is Mode.REJECT else tuple(self._charges(family, amount)),
            event_count=1 if stores else 0,
            event_time_us=self.now_us - before_us if before_us else 0,
            payload=f"payload\nof {amount}".encode() if stores else b"",
            reject_reason="EVENT_TIME_TOO_OLD" if mode is Mode.REJECT else "",
            deadline_us=self._choose.one_of([0, 0, 0, self.now_us, self.now_us - 1]),
            **named,
        )

    def _before_us(self) -> int:
        """Return how long ago something was used: often to the instant at which a window begins."""
        grid = self._choose.one_of([SECOND_US, MINUTE_US, DAY_US, *self._widths()])
        some = [0, 0, 0, 0, 1, -SECOND_US, SECOND_US, MINUTE_US, DAY_US, 31 * DAY_US]
        since = self.now_us % grid
        return self._choose.one_of([*some, since, since + 1, since + 59 * grid, since + 60 * grid])

    def _reserve(self) -> Operation:
        family, amount = self._choose.one_of(FAMILIES), self._choose.integer(1, 6)
        ttl_us = self._choose.one_of([1000, SECOND_US, 10 * SECOND_US, MINUTE_US, DAY_US])
        of = ReservationId(f"res|{self._choose.integer(0, 9)};")
        return Operation(
            mode=Mode.RESERVE,
            tenant_id=TENANTS[0],
            shard=SHARD,
            charges=tuple(self._charges(family, amount)),
            payload=b"events\nheld",
            detail=Hold(of, ttl_us),
            **self._named(Mode.RESERVE, amount),
        )

    def _known(self) -> tuple[ReservationId, Reservation | None]:
        """Choose a reservation; both know it alike."""
        kept = [(of, each.reservation) for (_, of), each in self._model.reservations.items()]
        known = [of for of, _ in kept][-6:] or [ReservationId("none")]
        held = [of for of, each in kept if each.state is ReservationState.HELD]
        live = [of for of in held if self._ends_us(of) > self.now_us]
        # Most often one that is held still, or nearly nothing would ever be settled.
        of = self._choose.one_of(self._choose.one_of([known, *[live or known] * 3]))
        found = self._model.reservation(TENANTS[0], of, self.now_us)
        if found is not None:
            assert (
                self._run(self._store.reservation(ReservationKey(SHARD, TENANTS[0], of))) == found
            )
        return of, found

    def _ends_us(self, of: ReservationId) -> int:
        return self._model.reservations[TENANTS[0], of].reservation.expires_us

    def _resolve(self) -> Operation:
        mode = self._choose.one_of([Mode.COMMIT, Mode.COMMIT, Mode.RELEASE, Mode.SETTLE])
        of, found = self._known()
        shares = found.shares if found is not None else ()
        portions = tuple(any_portion(self._choose, mode, share) for share in shares)
        excess = (
            0 if mode is Mode.RELEASE else self._choose.one_of([0, 0, 0, 1, 1, 5, 5, AMOUNT_MAX])
        )
        family = self._choose.one_of(FAMILIES)
        given = () if mode is Mode.COMMIT else any_given(self._choose)
        plain = not given and mode is not Mode.RELEASE
        payload, count = (b"settled", 2) if plain else events_given(given)
        return Operation(
            mode=mode,
            tenant_id=TENANTS[0],
            shard=SHARD,
            charges=tuple(self._charges(family, excess)) if mode is not Mode.RELEASE else (),
            event_count=count,
            payload=payload,
            detail=Settlement(
                of, portions, self._choose.one_of([True, False]), b"more", min(excess, 1), given
            ),
            **self._named(mode, excess),
        )

    def _late(self) -> Operation:
        """Calls whose reservation is lost: their units are counted without it."""
        given = any_given(self._choose)
        payload, count = events_given(given)
        used = replace(self._use(), mode=Mode.LATE, reject_reason="", detail=Late(given))
        named = self._named(Mode.LATE, count)
        return replace(used, event_count=count, payload=payload, **named)

    def _extend(self) -> Operation:
        of, found = self._known()
        ttl_us = self._choose.one_of([1000, SECOND_US, MINUTE_US])
        shares = found.shares if found is not None else ()
        extension = Extension(of, ttl_us, shares)
        return Operation(Mode.EXTEND, TENANTS[0], SHARD, detail=extension)

    def _refund(self) -> Operation:
        # As much as a reservation holds, so that what both give back meets the most that fits.
        family, units = self._choose.one_of(FAMILIES), self._choose.integer(1, 9)
        # The last few, and a new one: all units of the older ones have been given back.
        event = EventId(f"event-{max(0, len(self._model.refunded) - self._choose.integer(0, 3))}")
        before_us = self._before_us()
        return Operation(
            mode=Mode.REFUND,
            tenant_id=TENANTS[0],
            shard=SHARD,
            charges=tuple(self._charges(family, units)),
            event_count=1,
            payload=b"refund",
            event_time_us=self.now_us - before_us if before_us else 0,
            detail=Refund(event, units, 12, self._choose.one_of([True, False])),
            **self._named(Mode.REFUND, units),
        )

    def _reset(self) -> Operation:
        family = self._choose.one_of(FAMILIES)
        charges = self._charges(family, 0)
        return Operation(
            Mode.RESET, TENANTS[0], SHARD, charges=tuple(charges), **self._named(Mode.RESET, 0)
        )

    def _credit(self) -> Operation:
        choose = self._choose
        limit = any_balance(choose)
        grants = any_grants(choose, self._grants, self.now_us)
        self._grants = grants[-1].seq - 1 if grants else self._grants
        of = choose.one_of(FAMILIES)[0]
        bound = charge(limit, of, self._calendar, 0, self.now_us)
        detail = Credit(tuple(grants), choose.one_of([0, 0, 3]))
        return Operation(Mode.GRANT, TENANTS[0], SHARD, charges=(bound,), detail=detail)

    def _rebuild(self) -> Operation:
        of = self._choose.one_of(FAMILIES)[0]
        charges = self._charges([of], 0)
        slots = tuple(
            tuple(
                any_slot(self._choose, charge.rule, self.now_us)
                for _ in range(self._choose.integer(0, 3))
            )
            for charge in charges
        )
        return Operation(
            Mode.REBUILD, TENANTS[0], SHARD, charges=tuple(charges), detail=Rebuilt(slots)
        )
