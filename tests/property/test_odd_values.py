"""Values that no one should send: each has a defined result, and what counts is exact to the unit.

The specification is a sum of Python's own whole numbers per tenant. Redis' script counts in
doubles, so that a unit lost at 2^53 would show here.
"""

import asyncio
import itertools
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallygate.domain.catalog import OnExceed
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.gen.v1 import quota_pb2, usage_pb2
from tests.api.phases import Pair, item, pair
from tests.builders import CatalogInMemory, catalog, window
from tests.sidecar import failure

WAYS = ("CheckAndConsume", "RecordUsage", "Reserve", "Check")
AMOUNTS = (
    *(0, -1, -(2**63), 1, 2, AMOUNT_MAX // 2, AMOUNT_MAX - 2, AMOUNT_MAX - 1, AMOUNT_MAX),
    *(2**53, 2**53 + 1, 2**62, 2**63 - 1),
)
# One name in four forms: Latin, with a Cyrillic and a full-width letter, and with another case.
# Then one letter in its two forms, and names as long as they may be.
NAMES = (
    *("acme", "\u0430cme", "\uff41cme", "ACME", "caf\u00e9", "cafe\u0301"),
    *("x" * 118, "\U0001f600" * 118),
)
NOBODY = ("", " ", "acme\u200b", "acme\x00", "a b", "x" * 129, "\u202eemca")
HARD_MAX = AMOUNT_MAX - 1

examples = itertools.count()


@dataclass(frozen=True, slots=True)
class Asked:
    """One call."""

    way: str
    tenant: str
    amount: int
    dimensions: int = 0


@dataclass(slots=True)
class Model:
    """What ought to be counted: by tenant under a limit that allows all, and one that does not."""

    counted: Counter[str] = field(default_factory=Counter)

    def expect(self, asked: Asked) -> str:
        """Count a call; return what it has to be answered."""
        if not 1 <= asked.amount <= AMOUNT_MAX:
            return "amount"
        if asked.dimensions > 16:
            return "dimensions"
        total = self.counted[asked.tenant] + asked.amount
        if asked.way != "RecordUsage" and total > HARD_MAX:
            return "refused"
        if total > AMOUNT_MAX:
            return "COUNTER_OVERFLOW"
        if asked.way != "Check":
            self.counted[asked.tenant] = total
        return "allowed"


calls = st.builds(
    Asked,
    st.sampled_from(WAYS),
    st.sampled_from(NAMES) | st.text("abc\u00e4\u4e2d", min_size=1, max_size=8),
    st.sampled_from(AMOUNTS) | st.integers(-(2**63), 2**63 - 1) | st.integers(1, AMOUNT_MAX),
    st.sampled_from((0, 0, 0, 1, 16, 17)),
)
EDGE = [
    Asked("CheckAndConsume", "acme", AMOUNT_MAX - 2),
    Asked("RecordUsage", "acme", 1),
    Asked("Check", "acme", 1),
    Asked("RecordUsage", "acme", 1),
    Asked("RecordUsage", "acme", 1),
    Asked("Reserve", "\u0430cme", AMOUNT_MAX - 1),
    Asked("Reserve", "acme", 2**53 + 1),
]


async def answered(side: Pair, asked: Asked, tenant: str) -> str:
    """Call, and say what came of it in the model's words."""
    dimensions = {f"k{n}": "v" for n in range(asked.dimensions)}
    items = [] if asked.way == "RecordUsage" else [_item(asked, dimensions)]
    call: Any  # of any of these methods
    match asked.way:
        case "CheckAndConsume":
            call = side.a.CheckAndConsume(
                quota_pb2.CheckAndConsumeRequest(tenant_id=tenant, items=items)
            )
        case "Check":
            call = side.a.Check(quota_pb2.CheckRequest(tenant_id=tenant, items=items))
        case "Reserve":
            call = side.a.Reserve(quota_pb2.ReserveRequest(tenant_id=tenant, items=items))
        case _:
            event = usage_pb2.RecordUsageRequest(
                tenant_id=tenant, meter="requests", amount=asked.amount, dimensions=dimensions
            )
            call = side.usage.RecordUsage(event)
    try:
        reply = await call
    except grpc.aio.AioRpcError:
        told = await failure(call)
        if told.reason != "INVALID_FIELD":
            return told.reason
        assert told.code is grpc.StatusCode.INVALID_ARGUMENT
        [field_] = told.fields
        return field_.rpartition(".")[2].partition("[")[0]
    return "allowed" if getattr(reply, "allowed", True) else "refused"


def _item(asked: Asked, dimensions: dict[str, str]) -> quota_pb2.Item:
    return item(asked.amount, dimensions=dimensions)


def test_every_amount_has_a_defined_result_and_none_is_rounded(redis_url: str) -> None:
    """Amounts, names and dimensions of any kind: the model's answer, and its sums to the unit."""
    limits = (window("soft", 10, on_exceed=OnExceed.ALLOW), window("hard", HARD_MAX))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        opened = pair(redis_url, CatalogInMemory(catalog(*limits)))
        side = runner.run(stack.enter_async_context(opened))
        try:

            @settings(max_examples=30)
            @example(EDGE)
            @given(st.lists(calls, min_size=1, max_size=12))
            def judge(asked: list[Asked]) -> None:
                runner.run(judged(side, asked, f"{next(examples)}"))

            judge()
        finally:
            runner.run(stack.aclose())


async def judged(side: Pair, asked: list[Asked], suffix: str) -> None:
    """Make the calls, each tenant new by its suffix; compare answers and counters."""
    model = Model()
    for each in asked:
        expected = model.expect(each)
        assert await answered(side, each, each.tenant + suffix) == expected, each
    for tenant in {each.tenant for each in asked}:
        units = model.counted[tenant]
        assert await side.used(tenant + suffix) == {"soft": units, "hard": units}


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_cannot_be_is_refused_by_field(redis_url: str, way: str) -> None:
    """Empty, unseen, or too long: the tenant's field is named, and nothing is counted."""
    async with pair(redis_url, CatalogInMemory(catalog(window()))) as side:
        for name in NOBODY:
            assert await answered(side, Asked(way, name, 1), name) == "tenant_id", ascii(name)
        assert await side.events() == []


async def test_confusable_names_are_strangers(redis_url: str) -> None:
    """Names that look alike share no counter, no limit's remainder, and no operation."""
    async with pair(redis_url, CatalogInMemory(catalog(window(limit=10)))) as side:
        for units, name in enumerate(NAMES, 1):
            request = quota_pb2.CheckAndConsumeRequest(
                tenant_id=name, items=[item(units)], operation_id="same"
            )
            reply = await side.a.CheckAndConsume(request)
            assert (reply.allowed, reply.replayed) == (True, False)
        for units, name in enumerate(NAMES, 1):
            assert await side.used(name) == {"monthly": units}
