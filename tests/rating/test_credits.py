"""Prices in credits: grants pay in their order, what they do not pay is billed."""

from dataclasses import replace
from decimal import Decimal

from tallygate.domain.ids import AMOUNT_MAX, LimitId
from tallygate.domain.invoice import LineKind
from tallygate.domain.price import CreditTerms, DiscountStep, PriceId, PriceModel, Terms
from tallygate.domain.purse import GrantLeft, Purse
from tallygate.domain.window import DAY_US, Window
from tests.rating.parts import EUR, NOVEMBER, bill, d, plan, price, tiers

PREPAID = LimitId("prepaid")
TERMS = replace(EUR, credit=CreditTerms(d("0.01"), PREPAID))


def grant(seq: int, left: str, **fields: object) -> GrantLeft:
    """Return a grant that never expires, with other fields replaced."""
    made = GrantLeft(PREPAID, seq, f"grant-{seq}", d(left), 0, 0, AMOUNT_MAX)
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


def test_a_rate_card_in_credits() -> None:
    """Credits have a price in money; without grants, all of them are billed."""
    of = price(amount=d("2.5"), in_credits=True)
    (line,) = bill(plan(of, terms=TERMS), 1001).lines
    assert (line.charged, line.unit, line.rate) == (d("2502.5"), "credits", d("0.01"))
    assert line.amount == d("25.02")


def test_grants_pay_first() -> None:
    """Each grant has a line; what is left is billed, and all of it is rounded once."""
    of = price(amount=d("2.5"), in_credits=True)
    invoice = bill(plan(of, terms=TERMS), 1001, grants=[grant(1, "1000"), grant(2, "0.1")])
    assert [line.amount for line in invoice.lines] == [d("25.02"), d("-10.00"), d("0.00")]
    assert (invoice.subtotal, invoice.credits, invoice.total) == (
        *(d("25.02"), d("-10"), d("15.02")),
    )
    assert [line.burn.units for line in invoice.lines if line.burn] == [1000, d("0.1")]


def test_grants_that_pay_all_leave_nothing() -> None:
    """Not a cent is left to pay, whatever was rounded."""
    of = price(PriceModel.GRADUATED, in_credits=True, tiers=tiers((None, "0.333", "0")))
    invoice = bill(plan(of, terms=TERMS), 7, grants=[grant(1, "100")])
    assert invoice.total == 0
    assert [line.kind for line in invoice.lines] == [LineKind.USAGE, LineKind.CREDITS]


def test_burn_down_order() -> None:
    """Priority, then expiry, then age; only for a time of which the grant's has some."""
    purse = Purse(
        [
            # It expires first, but its priority is the last.
            grant(1, "5", priority=2, expires_us=NOVEMBER.end_us),
            grant(2, "5", priority=1),
            grant(3, "5", priority=1, expires_us=31 * DAY_US),
            grant(4, "5", priority=1),
            grant(5, "5", expires_us=NOVEMBER.start_us),
            grant(6, "5", starts_us=NOVEMBER.end_us),
            replace(grant(7, "5"), limit_id=LimitId("other")),
        ]
    )
    assert [each.seq for each in purse.burn(PREPAID, NOVEMBER, d("18"))] == [3, 2, 4, 1]
    assert purse.burn(PREPAID, NOVEMBER, Decimal(9))[0].units == 2
    assert purse.burn(PREPAID, Window(0, 1), Decimal(1)) == []


def test_one_purse_pays_for_all_lines() -> None:
    """What the first price burns is gone for the second."""
    first = price(amount=d("1"), in_credits=True)
    second = replace(first, price_id=PriceId("second"))
    invoice = bill(plan(first, second, terms=TERMS), 60, grants=[grant(1, "100")])
    assert [line.burn.units for line in invoice.lines if line.burn] == [60, 40]
    assert invoice.total == d("0.20")


def test_discount_and_minimum_come_before_credits() -> None:
    """Credits pay what is left after the discount, and what the minimum asks for."""
    of = price(
        amount=d("1"),
        in_credits=True,
        minimum=d("50"),
        discount=(DiscountStep(Decimal(0), d("50")),),
    )
    invoice = bill(plan(of, terms=TERMS), 60, grants=[grant(1, "45")])
    assert [line.kind for line in invoice.lines] == [
        *(LineKind.USAGE, LineKind.DISCOUNT, LineKind.MINIMUM, LineKind.CREDITS)
    ]
    assert invoice.total == d("0.05")


def test_credits_count_towards_a_plans_minimum() -> None:
    """What grants have paid is spent; a plan's discount is off what is left to pay."""
    terms = replace(TERMS, minimum=d("2"), discount=(DiscountStep(Decimal(0), d("10")),))
    of = price(amount=d("1"), in_credits=True)
    invoice = bill(plan(of, terms=terms), 150, grants=[grant(1, "100")])
    assert [line.amount for line in invoice.lines] == [
        *(d("1.50"), d("-1.00"), d("-0.05"), d("0.55"))
    ]
    assert invoice.total == d("1.00")


def test_credits_without_a_balance_are_only_a_price() -> None:
    """Terms may say what a credit costs, and that no grants pay for it."""
    terms = Terms(currency="EUR", credit=CreditTerms(d("0.01")))
    of = price(amount=d("1"), in_credits=True)
    assert bill(plan(of, terms=terms), 100, grants=[grant(1, "100")]).total == d("1.00")
