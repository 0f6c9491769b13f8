"""Turns that chosen steps meet too seldom: told one by one, in Redis and in the specification."""

import asyncio
from collections.abc import Sequence

from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.epochs import RedisCounterEpochs
from tallygate.adapters.redis.quota_store import RedisQuotaStore, StoreOptions
from tallygate.domain.account import Accounts
from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.decision import (
    Decided,
    Mode,
    Operation,
)
from tallygate.domain.detail import (
    Credit,
    Grant,
    Hold,
    Portion,
    Refund,
    Settlement,
)
from tallygate.domain.ids import AMOUNT_MAX, EventId, ReservationId, SourceId, numbered_in
from tallygate.domain.window import MINUTE_US, SECOND_US, Period
from tests.builders import ACME, SHARDS, charges, rate, window

START_US = 2**51
SOURCE = SourceId("source-1")
MEMORY_MS = 600_000
ONE = ReservationId("one")


def step(
    mode: Mode, limit: Limit, amount: int, now_us: int = START_US, **fields: object
) -> Operation:
    """Return an operation on one limit."""
    asked = charges([limit], amount, at_us=now_us)
    return Operation(mode, ACME, 3, charges=asked, **fields)  # type: ignore[arg-type]


def agreed(url: str, steps: Sequence[tuple[int, Operation]]) -> list[int]:
    """Run the steps in both, which must not differ; return what was used after each."""

    async def run() -> list[int]:
        client, model, used, now = connect(url, 5_000), Accounts(MEMORY_MS * 1000), [], [0]
        options = StoreOptions(SOURCE, SHARDS, MEMORY_MS, now_us=lambda: now[0])
        try:
            store = RedisQuotaStore(client, options)
            await store.open()
            source = numbered_in(SOURCE, (await RedisCounterEpochs(client, SHARDS).epochs())[3])
            for now_us, operation in steps:
                now[0] = now_us
                (expected,) = model.decide([operation], source, now_us)
                assert await store.decide([operation]) == [expected]
                assert isinstance(expected, Decided)
                used.append(expected.readings[-1].used if expected.readings else -1)
        finally:
            await client.aclose()
        return used

    return asyncio.run(run())


def test_a_refund_and_a_release_never_fill_a_grant_over_its_size(redis_url: str) -> None:
    """A grant that a refund has filled takes no more from a reservation that is released."""
    prepaid = window("prepaid", 0, kind=LimitKind.BALANCE, period=None)
    given = Credit((Grant(1, 0, START_US, AMOUNT_MAX, 10, 10),))
    model = Accounts(MEMORY_MS * 1000)
    first = [
        step(Mode.GRANT, prepaid, 0, detail=given),
        step(Mode.RESERVE, prepaid, 5, detail=Hold(ONE, MINUTE_US)),
    ]
    model.decide(first, SOURCE, START_US)
    found = model.reservation(ACME, ONE, START_US)
    assert found is not None
    back = Settlement(ONE, (Portion(found.shares[0], (0,), (5,)),), False, b"", 0)
    rest = [
        step(Mode.REFUND, prepaid, 5, event_count=1, detail=Refund(EventId("e"), 5, 9)),
        Operation(Mode.RELEASE, ACME, 3, detail=back),
        step(Mode.CHECK, prepaid, 0),
    ]
    steps = [(START_US, each) for each in [*first, *rest]]
    assert agreed(redis_url, steps) == [0, 5, 0, -1, 0]


def test_a_reset_forgets_what_is_held_of_an_older_window(redis_url: str) -> None:
    """What a reservation holds of the window before is no part of the one that is reset."""
    short = window("short", 9, period=Period.SECOND)
    after = START_US + SECOND_US
    steps = [
        (START_US, step(Mode.RESERVE, short, 2, detail=Hold(ONE, MINUTE_US))),
        (after, step(Mode.CONSUME, short, 1, after, event_count=1)),
        (after, step(Mode.RESET, short, 0, after)),
    ]
    assert agreed(redis_url, steps) == [2, 1, 0]


def test_a_debt_over_a_lower_burst_stays(redis_url: str) -> None:
    """Usage that has happened does not lower a bucket's debt to a burst that has become less."""
    full, lower = (rate(limit=10, period=Period.DAY, burst=burst) for burst in (9, 2))
    steps = [
        (START_US, step(Mode.CONSUME, full, 9, event_count=1)),
        (START_US, step(Mode.RECORD, lower, 1, event_count=1)),
        (START_US, step(Mode.CHECK, full, 0)),
    ]
    assert agreed(redis_url, steps) == [9, 9, 9]


def test_a_full_balance_loses_the_oldest_grant_that_is_used_up(redis_url: str) -> None:
    """With all the grants that are kept, one more takes the place of the oldest used up."""
    prepaid = window("prepaid", 0, kind=LimitKind.BALANCE, period=None)
    units = {seq: 0 if seq in (7, 9) else seq for seq in range(1, 66)}
    grants = [Grant(seq, 0, START_US, AMOUNT_MAX, seq, left) for seq, left in units.items()]
    steps = [
        (START_US, step(Mode.GRANT, prepaid, 0, detail=Credit(tuple(grants[:64])))),
        (START_US, step(Mode.GRANT, prepaid, 0, detail=Credit(tuple(grants[64:])))),
    ]
    assert agreed(redis_url, steps) == [16, 9]
