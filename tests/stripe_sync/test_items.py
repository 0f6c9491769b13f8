"""Amounts that were worked out here become invoice items, each line once."""

import json
from typing import Any

import pytest

from tallygate.commands.charge_lines import charge_lines
from tallygate.domain.errors import InvalidField
from tallygate.domain.stripe_intent import ChargeLine
from tallygate.flow.stripe_items import IntendItems
from tallygate_fake_stripe import Fault, FaultKind
from tests.stripe_world import CUSTOMER, HOUR_S, StripeWorld, stripe_world

LINE = {
    "tenant": "acme",
    "id": "in-1/requests",
    "meter": "requests",
    "amount": 1_250,
    "currency": "EUR",
    "description": "1,250 requests",
    "from": "2026-01-01",
    "to": "2026-02-01T00:00:00Z",
}
ITEMS = "/v1/invoiceitems"


def lines(*changes: dict[str, Any]) -> list[ChargeLine]:
    """Return a line for each change of the usual one."""
    return charge_lines(json.dumps({"lines": [{**LINE, **each} for each in changes]}))


async def intend(world: StripeWorld, *changes: dict[str, Any]) -> tuple[int, int, int]:
    """Give lines; return how many are new, known, and without a customer."""
    catalog = await world.catalogs.newest()
    intending = IntendItems(world.intents, world.catalogs, world.clock)
    counts = await intending.intend(catalog.destinations[0], lines(*changes))
    return counts.new, counts.known, counts.without_customer


async def items(world: StripeWorld) -> list[tuple[int, str]]:
    """Return the customer's items at Stripe, by amount and currency."""
    found = (
        await world.client()
        .stripe()
        .v1.invoice_items.list_async({"customer": CUSTOMER}, {"api_key": world.key})
    )
    return sorted((each.amount, each.currency) for each in found.data)


async def test_a_line_is_one_item(postgres_dsn: str) -> None:
    """However often it is given and sent, a line is one item; a tenant without customer none."""
    async with stripe_world(postgres_dsn) as world:
        other = {"id": "in-1/fee", "amount": -300}
        assert await intend(world, {}, other, {"tenant": "ghost"}) == (2, 0, 1)
        assert await intend(world, {}, other) == (0, 2, 0)
        await world.send()
        await world.send()
        assert await items(world) == [(-300, "eur"), (1_250, "eur")]
        assert await world.states() == {"delivered": 2}


async def test_a_line_that_differs_is_refused(postgres_dsn: str) -> None:
    """The same line with another amount, or currency, is a mistake that nobody pays for."""
    async with stripe_world(postgres_dsn) as world:
        await intend(world, {})
        for change in ({"amount": 1_251}, {"currency": "USD"}, {"amount": 1, "from": "2026-01-02"}):
            with pytest.raises(InvalidField, match="another amount"):
                await intend(world, change, {"id": "new"})
        assert await world.states() == {"pending": 1}


@pytest.mark.parametrize(
    "kind", [FaultKind.ERROR_AFTER, FaultKind.DROP_AFTER, FaultKind.DROP_BEFORE]
)
async def test_an_item_in_doubt_is_looked_up(postgres_dsn: str, kind: FaultKind) -> None:
    """Stripe knows no identifier of items: one in doubt for a day is found, or made once more."""
    async with stripe_world(postgres_dsn) as world:
        await intend(world, {})
        world.stripe.faults.add(Fault(kind, path=ITEMS, count=1))
        await world.send()
        assert await world.states() == {"ambiguous": 1}
        if kind is not FaultKind.ERROR_AFTER:
            world.pass_s(26 * HOUR_S)
        for _ in range(6):
            world.pass_s(60)
            await world.send()
        assert await items(world) == [(1_250, "eur")]
        assert set(await world.states()) <= {"delivered", "settled"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 1.5}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 10**12}, "amount"),
        ({"from": "soon"}, "from"),
        ({"id": 5}, "id"),
        ({"tenant": "a b"}, "tenant"),
        ({"price": 1}, "price"),
    ],
)
def test_a_bad_line_is_named(change: dict[str, Any], field: str) -> None:
    """A document with one bad field is refused by that field."""
    with pytest.raises(InvalidField) as refused:
        lines(change)
    assert refused.value.field == f"lines[0].{field}"


async def test_a_list_that_cannot_be_is_refused(postgres_dsn: str) -> None:
    """A line twice, one that ends before it begins, and money of nowhere are named."""
    async with stripe_world(postgres_dsn) as world:
        bad: list[list[dict[str, Any]]] = [
            [{}, {}],
            [{"to": "2026-01-01"}],
            [{"currency": "EURO"}],
            [{"id": ""}],
        ]
        for changes in bad:
            with pytest.raises(InvalidField):
                await intend(world, *changes)
        assert await world.states() == {}
