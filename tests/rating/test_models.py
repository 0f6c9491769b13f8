"""Each price model at its edges: nothing, a boundary, one beside it, all a meter can hold."""

from dataclasses import replace
from decimal import Decimal

import pytest

from tallygate.domain.catalog import UNLIMITED
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.invoice import LineKind
from tallygate.domain.price import DiscountStep, Price, PriceModel, Rounding, RoundPer, Terms
from tests.rating.parts import EUR, bill, d, plan, price, tiers

STEPS = tiers((100, "0.10", "0"), (1000, "0.05", "2"), (None, "0.01", "7"))
GRADUATED = price(PriceModel.GRADUATED, tiers=STEPS)
VOLUME = price(PriceModel.VOLUME, tiers=STEPS)
PACKAGE = price(PriceModel.PACKAGE, amount=d("5"), size=1000)
UNIT = price(amount=d("0.002"))
HUGE = str(AMOUNT_MAX)


@pytest.mark.parametrize(
    ("of", "quantity", "total"),
    [
        (UNIT, 0, "0"),
        (UNIT, 1, "0.00"),
        (UNIT, 1000, "2.00"),
        (UNIT, HUGE, "18014398509481.98"),
        (GRADUATED, 0, "0"),
        (GRADUATED, 99, "9.90"),
        (GRADUATED, 100, "10.00"),
        (GRADUATED, 101, "12.05"),
        (GRADUATED, 1000, "57.00"),
        (GRADUATED, 1001, "64.01"),
        (GRADUATED, HUGE, "90071992547463.91"),
        (VOLUME, 0, "0"),
        (VOLUME, 100, "10.00"),
        (VOLUME, 101, "7.05"),
        (VOLUME, 1000, "52.00"),
        (VOLUME, 1001, "17.01"),
        (VOLUME, HUGE, "90071992547416.91"),
        (PACKAGE, 0, "0"),
        (PACKAGE, 1, "5.00"),
        (PACKAGE, 1000, "5.00"),
        (PACKAGE, 1001, "10.00"),
        (PACKAGE, HUGE, "45035996273705.00"),
    ],
)
def test_a_quantity_costs(of: Price, quantity: str | int, total: str) -> None:
    """What a quantity costs is exact, however large it is."""
    assert bill(plan(of), quantity).total == d(total)


@pytest.mark.parametrize(
    ("of", "quantity", "total"),
    [
        (UNIT, 499, "0"),
        (UNIT, 500, "0"),
        (UNIT, 1500, "2.00"),
        (GRADUATED, 500, "0"),
        (GRADUATED, 601, "12.05"),
        (VOLUME, 600, "10.00"),
        (PACKAGE, 500, "0"),
        (PACKAGE, 501, "5.00"),
        (PACKAGE, 1501, "10.00"),
    ],
)
def test_included_units_come_off_first(of: Price, quantity: int, total: str) -> None:
    """Tiers and packages begin with the first unit that is not included."""
    invoice = bill(plan(replace(of, included=500)), quantity)
    assert invoice.total == d(total)
    assert invoice.lines[0].included == 500


@pytest.mark.parametrize(
    ("of", "total"),
    [(UNIT, "-1.00"), (GRADUATED, "0"), (VOLUME, "0"), (PACKAGE, "0")],
)
def test_more_refunds_than_usage(of: Price, total: str) -> None:
    """Where every unit costs alike they are given back; where nobody can say, nothing is."""
    assert bill(plan(of), -500).total == d(total)
    assert bill(plan(replace(of, included=1)), -500).total == 0


@pytest.mark.parametrize(
    ("currency", "percent", "quantity", "total"),
    [
        ("EUR", "2.9", 10_000, "2.90"),
        ("EUR", "2.9", 17, "0.00"),
        ("JPY", "2.9", 10_000, "290"),
        ("KWD", "2.9", 10_000, "0.290"),
        ("KWD", "100", 1, "0.001"),
    ],
)
def test_percentages_are_of_the_smallest_unit(
    currency: str, percent: str, quantity: int, total: str
) -> None:
    """A meter of money counts cents, yen or fils; the percentage is of what they come to."""
    of = price(PriceModel.PERCENTAGE, percent=d(percent))
    invoice = bill(plan(of, terms=Terms(currency=currency)), quantity, currency=currency)
    assert invoice.total == d(total)


@pytest.mark.parametrize(
    ("rounding", "amount", "total"),
    [
        (Rounding.HALF_EVEN, "0.125", "0.12"),
        (Rounding.HALF_EVEN, "0.135", "0.14"),
        (Rounding.HALF_EVEN, "0.1250000001", "0.13"),
        (Rounding.HALF_UP, "0.125", "0.13"),
        (Rounding.HALF_UP, "0.124999999999", "0.12"),
        (Rounding.UP, "0.120000000001", "0.13"),
        (Rounding.UP, "0.12", "0.12"),
        (Rounding.DOWN, "0.129999999999", "0.12"),
    ],
)
def test_ties_and_what_is_beside_them(rounding: Rounding, amount: str, total: str) -> None:
    """A price is rounded as it says; one that says nothing, as its plan's terms say."""
    assert bill(plan(price(amount=d(amount), rounding=rounding)), 1).total == d(total)
    assert bill(plan(price(amount=d(amount)), terms=replace(EUR, rounding=rounding)), 1).total == d(
        total
    )


@pytest.mark.parametrize(
    ("currency", "total"), [("JPY", "1235"), ("KWD", "1234.568"), ("USD", "1234.57")]
)
def test_each_currency_has_its_coins(currency: str, total: str) -> None:
    """Yen have no decimals, dinars three; a sum of lines has them too."""
    invoice = bill(
        plan(price(amount=d("1234.5675")), terms=Terms(currency=currency)), 1, currency=currency
    )
    assert str(invoice.total) == total
    assert str(invoice.lines[0].amount) == total


def test_tiers_may_be_rounded_by_themselves() -> None:
    """Each tier is then a whole number of coins; by the line, only their sum is."""
    steps = tiers((1, "0.005", "0"), (2, "0.005", "0"), (None, "0.005", "0"))
    of = price(PriceModel.GRADUATED, tiers=steps, rounding=Rounding.HALF_UP)
    assert bill(plan(of), 3).total == d("0.02")
    assert bill(plan(replace(of, round_per=RoundPer.TIER)), 3).total == d("0.03")


def test_a_volume_discount_is_off_everything() -> None:
    """The highest step that is reached counts, for all units; a boundary reaches it."""
    steps = (DiscountStep(Decimal(0), d("1")), DiscountStep(Decimal(100), d("10")))
    of = price(amount=d("1"), discount=steps)
    found = {quantity: bill(plan(of), quantity).total for quantity in (1, 99, 100, 101)}
    assert found == {1: d("0.99"), 99: d("98.01"), 100: d("90.00"), 101: d("90.90")}
    kinds = [line.kind for line in bill(plan(of), 100).lines]
    assert kinds == [LineKind.USAGE, LineKind.DISCOUNT]


def test_a_price_is_rounded_once_whatever_its_lines() -> None:
    """Usage and discount round to 0.01 and 0.00 alone; together they are 0.005, so 0.00."""
    of = price(amount=d("0.0060"), discount=(DiscountStep(Decimal(0), d("20")),))
    invoice = bill(plan(of), 1)
    assert [line.amount for line in invoice.lines] == [d("0.01"), d("-0.01")]
    assert invoice.total == 0


def test_a_minimum_is_filled_up() -> None:
    """A line says what is missing; usage above the minimum has none, no usage has all of it."""
    of = price(amount=d("1"), minimum=d("10"))
    assert [line.amount for line in bill(plan(of), 4).lines] == [d("4.00"), d("6.00")]
    assert [line.amount for line in bill(plan(of), 10).lines] == [d("10.00")]
    assert bill(plan(of)).total == d("10.00")


def test_the_plans_own_discount_and_minimum() -> None:
    """A plan's discount comes off what its prices come to; its minimum is of what is left."""
    terms = replace(EUR, minimum=d("20"), discount=(DiscountStep(d("10"), d("50")),))
    assert bill(plan(price(amount=d("1")), terms=terms), 9).total == d("20.00")
    invoice = bill(plan(price(amount=d("1")), terms=terms), 100)
    assert [invoice.subtotal, invoice.discounts, invoice.total] == [d("100"), d("-50"), d("50")]
    assert [line.kind for line in invoice.lines] == [LineKind.USAGE, LineKind.DISCOUNT]


def test_unlimited_units_have_no_end() -> None:
    """What is included without limit is free, also where its sum is beyond any one number."""
    free = price(amount=d("1"), included=UNLIMITED)
    assert bill(plan(free), str(AMOUNT_MAX + 7)).total == 0
