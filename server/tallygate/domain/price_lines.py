"""The lines of one price, or of a plan's own terms, in one segment.

Guarantees: the lines of one price and group are together the exact amount, rounded once.
Refuses to know: which usage and which rates of exchange there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from tallygate.domain.invoice import Group, InvoiceLine, LineKind, Measured
from tallygate.domain.money import exactly, percent_of, rounded, share, shown, total
from tallygate.domain.price import (
    NO_LIMIT,
    ZERO,
    CreditTerms,
    DiscountStep,
    Price,
    Rounding,
    RoundPer,
)
from tallygate.domain.purse import Purse
from tallygate.domain.segment import Segment
from tallygate.domain.tariff import Asked, Stretch, charge_of, discount_percent, fee, for_usage

CREDITS: Final = "credits"


@dataclass(frozen=True, slots=True)
class Under:
    """Under what a segment's lines are made. `rate` is of `unit` in the invoice's currency."""

    segment: Segment
    of: Stretch
    currency: str
    unit: str
    rate: Decimal


@exactly
def fee_lines(price: Price, under: Under, purse: Purse) -> list[InvoiceLine]:
    """Return the lines of a flat price: the fee, its discount, the credits that pay for it."""
    asked = fee(price, under.of)
    lines = _Lines(price, under)
    lines.add(
        LineKind.FEE,
        asked.charged * under.rate,
        quantity=Decimal(1),
        parts=asked.parts,
        charged=asked.charged,
    )
    _settle(lines, asked, ZERO, purse)
    return lines.made


@exactly
def usage_lines(price: Price, measured: Measured, under: Under, purse: Purse) -> list[InvoiceLine]:
    """Return the lines of a price for usage of one group; none where it comes to nothing at all."""
    included = under.segment.included_in(price)
    asked = for_usage(price, measured.quantity, included, under.of, under.unit)
    if not (measured.quantity or measured.count or price.minimum):
        return []
    amount = asked.charged * under.rate
    if price.round_per is RoundPer.TIER:
        rounding = _rounding(price, under)
        each = (charge_of(part) * under.rate for part in asked.parts)
        amount = total(rounded(coins, under.currency, rounding) for coins in each)
    lines = _Lines(price, under, measured.group)
    lines.add(
        LineKind.USAGE,
        amount,
        quantity=measured.quantity,
        count=measured.count,
        included=asked.included,
        parts=asked.parts,
        charged=asked.charged,
    )
    _settle(lines, asked, measured.quantity, purse)
    return lines.made


@exactly
def taken_back(lines: Sequence[InvoiceLine]) -> list[InvoiceLine]:
    """Return the lines that take others back, as they were paid before."""
    return [
        replace(
            line,
            amount=-line.amount,
            exact=-line.exact,
            charged=-line.charged,
            quantity=-line.quantity,
            parts=tuple(replace(part, units=-part.units) for part in line.parts),
        )
        for line in lines
    ]


@exactly
def plan_lines(under: Under, of_prices: Sequence[InvoiceLine]) -> list[InvoiceLine]:
    """Return a plan's own discount, and what is missing from its minimum.

    The discount is of what is left to pay; what credits have paid counts towards the minimum.
    """
    terms, made = under.segment.terms, []
    due = total(line.amount for line in of_prices)
    steps = [DiscountStep(step.start * under.rate, step.percent) for step in terms.discount]
    percent = discount_percent(steps, due, under.of, prorate=True) if due > 0 else ZERO
    spent = due - total(line.amount for line in of_prices if line.kind is LineKind.CREDITS)
    if percent:
        exact = -percent_of(due, percent)
        amount = rounded(exact, under.currency, terms.rounding)
        made.append(_line(under, LineKind.DISCOUNT, amount, exact, percent=percent))
        spent += amount
    least = share(terms.minimum, under.of.part_us, under.of.whole_us)
    missing = rounded(least * under.rate, under.currency, terms.rounding) - spent
    if terms.minimum and missing > 0:
        exact = least * under.rate - spent
        made.append(_line(under, LineKind.MINIMUM, missing, exact, charged=shown(least)))
    return made


class _Lines:
    """The lines of one price and group: each is what the rounded total changes by."""

    def __init__(self, price: Price, under: Under, group: Group = ()) -> None:
        self.price = price
        self.under = under
        self.made: list[InvoiceLine] = []
        self.exact = ZERO
        self._rounded = ZERO
        self._rounding = _rounding(price, under)
        self._shared = {
            "price_id": price.price_id,
            "model": price.model,
            "group": group,
            "description": price.description,
            "selection": under.segment.selection(price) if price.meter else None,
        }

    def add(self, kind: LineKind, exact: Decimal, **fields: Any) -> None:  # noqa: ANN401
        """Add a line for so much more, before rounding."""
        self.exact += exact
        now = rounded(self.exact, self.under.currency, self._rounding)
        amount = now - self._rounded
        self._rounded = now
        if "charged" in fields:
            fields["charged"] = shown(fields["charged"])
        made = _line(self.under, kind, amount, exact, **self._shared, **fields)
        self.made.append(made)


def _settle(lines: _Lines, asked: Asked, reached: Decimal, purse: Purse) -> None:
    """Add a price's discount, what is missing from its minimum, and the credits that pay."""
    price, under = lines.price, lines.under
    percent = discount_percent(price.discount, reached, under.of, prorate=price.prorate)
    charged = asked.charged
    if percent and lines.exact:
        lines.add(LineKind.DISCOUNT, -percent_of(lines.exact, percent), percent=percent)
        charged -= percent_of(charged, percent)
    least = price.minimum
    if price.prorate:
        least = share(least, under.of.part_us, under.of.whole_us)
    if price.minimum and lines.exact < least * under.rate:
        lines.add(LineKind.MINIMUM, least * under.rate - lines.exact, charged=least)
        charged = least
    if not price.in_credits:
        return
    credit = under.segment.terms.credit or CreditTerms(ZERO)
    if credit.balance == NO_LIMIT:
        return
    for burn in purse.burn(credit.balance, under.segment.window, charged):
        lines.add(LineKind.CREDITS, -burn.units * under.rate, charged=-burn.units, burn=burn)


def _rounding(price: Price, under: Under) -> Rounding:
    return price.rounding or under.segment.terms.rounding


def _line(
    under: Under,
    kind: LineKind,
    amount: Decimal,
    exact: Decimal,
    **fields: Any,  # noqa: ANN401  a line's own fields, by name
) -> InvoiceLine:
    return InvoiceLine(
        number=0,
        kind=kind,
        plan=under.segment.plan,
        segment=under.segment.window,
        amount=amount,
        exact=shown(exact),
        unit=under.unit,
        rate=under.rate,
        share=(under.of.part_us, under.of.whole_us),
        **fields,
    )
