"""The decorator: plain, asynchronous and yielding functions, charged by what they came to."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tallygate_client import AsyncClient, QuotaExceeded
from tallygate_client.metered import FunctionCall, current_cost, metered
from tallygate_client.metering import Rules, TenantMissing

from tests.middleware.world import REQUESTS_MAX, World

ONE: Rules[FunctionCall] = Rules(tenant="org", cost={"requests": 1})
LENGTH: Rules[FunctionCall] = Rules(
    tenant="org", cost=lambda call: {"tokens": len(call.arguments["text"])}
)


def test_calls_are_made_up_to_the_limit(metered_world: World, tenant: str) -> None:
    """The call beyond the limit never begins; what raises is not charged."""
    made = []

    @metered(metered_world.client, ONE)
    def work(org: str, number: int) -> int:
        """Work."""
        made.append(number)
        if number < 0:
            raise ValueError
        return number

    assert work.__doc__ == "Work."
    with pytest.raises(ValueError):
        work(tenant, -1)
    for number in range(REQUESTS_MAX):
        assert work(tenant, number=number) == number
    with pytest.raises(QuotaExceeded) as refused:
        work(tenant, 99)
    assert refused.value.decision.refused_by == "requests-monthly"
    assert made == [-1, 0, 1, 2]
    metered_world.settles(tenant, REQUESTS_MAX)
    with pytest.raises(TenantMissing):
        work("", 1)


def test_the_result_says_what_it_came_to(metered_world: World, tenant: str) -> None:
    """The amount comes from the arguments, from the result, or from within."""

    @metered(metered_world.client, LENGTH, actual=lambda result: {"tokens": len(result)})
    def shorten(org: str, text: str) -> str:
        return text[:4]

    @metered(metered_world.client, LENGTH)
    def inside(org: str, text: str) -> None:
        current_cost().add("tokens", 1)
        current_cost().add("tokens", 2)
        with pytest.raises(ValueError, match="no item has the meter 'requests'"):
            current_cost().set("requests", 1)

    shorten(tenant, "a long text")
    metered_world.settles(tenant, 4, "tokens")
    inside(tenant, "a long text")
    metered_world.settles(tenant, 7, "tokens")
    with pytest.raises(LookupError):
        current_cost()


def test_what_is_yielded_adds_up(metered_world: World, tenant: str) -> None:
    """A generator is charged by what it gave, also where nobody asked for the rest."""

    @metered(metered_world.client, LENGTH, each=lambda word: {"tokens": len(word)})
    def words(org: str, text: str) -> Iterator[str]:
        yield from text.split()

    assert list(words(tenant, "one three")) == ["one", "three"]
    metered_world.settles(tenant, 8, "tokens")
    for word in words(tenant, "three one"):
        assert word == "three"
        break
    metered_world.settles(tenant, 13, "tokens")


async def test_asynchronous_functions_are_charged_alike(metered_world: World, tenant: str) -> None:
    """Coroutines and asynchronous generators, by the asynchronous client."""
    async with AsyncClient(metered_world.address, timeout=10) as client:

        @metered(client, LENGTH, actual=lambda result: {"tokens": len(result)})
        async def shorten(org: str, text: str) -> str:
            return text[:4]

        @metered(client, LENGTH, each=lambda word: {"tokens": len(word)})
        async def words(org: str, text: str) -> AsyncIterator[str]:
            for word in text.split():
                yield word

        @metered(client, ONE)
        async def fails(org: str) -> None:
            raise ValueError

        assert await shorten(tenant, "a long text") == "a lo"
        assert metered_world.used(tenant, "tokens") == 4
        assert [word async for word in words(tenant, "one three")] == ["one", "three"]
        assert metered_world.used(tenant, "tokens") == 12
        with pytest.raises(ValueError):
            await fails(tenant)
        assert metered_world.used(tenant) == 0
