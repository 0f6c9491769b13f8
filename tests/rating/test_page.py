"""The page on pricing: its catalog is good, its invoice is what comes of it, no key is missing."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from tallygate.adapters.catalog import prices
from tallygate.adapters.catalog.document import parse
from tallygate.domain import invoice_words as words
from tallygate.domain.credit import NEVER_US
from tallygate.domain.ids import LimitId, PlanName, TenantId
from tallygate.domain.invoice import Group, Invoice, Measured
from tallygate.domain.invoice_period import period_named
from tallygate.domain.price import ExchangeAt, Pay, PriceModel, Rounding, RoundPer
from tallygate.domain.purse import GrantLeft
from tallygate.domain.rating import Adjusted, Rating, invoice_of
from tallygate.domain.segment import segments, versions_of
from tallygate.domain.window import DAY_US, Calendar

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
ACME = TenantId("acme")
NOVEMBER = period_named("2026-11", Calendar())
DECEMBER = period_named("2026-12", Calendar())


def example() -> str:
    """Return the page's one YAML block."""
    (found,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def table(first: str) -> list[list[str]]:
    """Return the rows of the table whose first heading it is."""
    (found,) = re.findall(rf"^\| {first} \|.*?\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [
        [cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in found.splitlines()
    ]


def rating(**late: int) -> Rating:
    """Return what the page's invoice is made of, with so much more of some meters."""
    parsed = parse(example())
    (tenant,) = parsed.tenants
    change_us = NOVEMBER.start_us + 10 * DAY_US
    scaled = type(tenant)(ACME, PlanName("scale"), currency="EUR")
    versions = versions_of(ACME, [(0, tenant), (change_us, scaled)], [(0, parsed.catalog)])
    cut = segments(versions, NOVEMBER)
    assert [segment.plan for segment in cut] == ["start", "scale"]
    usage = []
    for meter, of, *quantities in table("meter"):
        key, _, value = of.partition("=")
        group: Group = ((key, value),) if of else ()
        for place, quantity in enumerate(quantities):
            usage += [
                Measured(place, selection, Decimal(quantity) + late.get(meter, 0), 1, group)
                for selection in cut[place].selections()
                if quantity and selection.meter == meter
            ]
    return Rating(
        tenant_id=ACME,
        period=NOVEMBER,
        currency="EUR",
        segments=cut,
        usage=usage,
        grants=[GrantLeft(LimitId("prepaid"), 1, "yearly", Decimal(900), 0, 0, NEVER_US)],
        rates={("USD", NOVEMBER.end_us): Decimal("0.8")},
    )


def shown(invoice: Invoice) -> list[list[str]]:
    """Return an invoice's lines as the page has them."""
    return [
        [
            *(words.whose(line, "UTC"), words.quantity(line)),
            *(words.working(line), str(line.amount)),
        ]
        for line in invoice.lines
    ]


def test_the_invoice_shown_is_the_one_that_is_made() -> None:
    """Every line stands there with its quantity, its working and its amount."""
    assert shown(invoice_of(rating())) == table("line")


def test_the_adjustment_shown_is_the_one_that_is_made() -> None:
    """What came late for November is on December's invoice, as by how much it costs more."""
    adjusted = Adjusted(rating(), rating(egress=20).usage)
    december = Rating(ACME, DECEMBER, "EUR", (), adjusted=(adjusted,))
    assert shown(invoice_of(december)) == table("adjustment")


KEYS = {*prices._PRICE, *prices._TIER, *prices._STEP, *prices._TERMS, *prices._CREDIT}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_example_has_every_key(key: str) -> None:
    """Whoever copies the example has seen all there is."""
    assert re.search(rf"\b{key}:", example())


CHOICES = [*PriceModel, *Rounding, *RoundPer, *Pay, *ExchangeAt]


@pytest.mark.parametrize("word", CHOICES)
def test_the_page_names_every_choice(word: str) -> None:
    """No choice is a secret."""
    assert f"`{word}`" in PAGE
