"""Rating: from what a tenant used in a period, and the prices it had, to an invoice.

Guarantees: the same input gives the same invoice; the sum of its lines is its total; what belongs
to one price, group and segment is rounded once, however many lines show it.
Refuses to know: where usage, versions, grants and rates of exchange come from.

In the order of an invoice: what late usage of closed periods changes, period by period; fees in
advance; then segment by segment, price by price, group by group: what the price asks for, its
discount, its minimum, the credits that pay for it; then the segment's own discount and minimum,
which leave fees in advance alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.errors import NotFound, TooManyItems
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine, LineKind, Measured, Selection
from tallygate.domain.invoice_change import converted, differences
from tallygate.domain.money import exactly, total
from tallygate.domain.price import ZERO, ExchangeAt, Pay, Price, PriceId, PriceModel, Rounding
from tallygate.domain.price_lines import (
    CREDITS,
    Under,
    fee_lines,
    plan_lines,
    taken_back,
    usage_lines,
)
from tallygate.domain.purse import GrantLeft, GrantPlace, Purse, after
from tallygate.domain.segment import Segment
from tallygate.domain.tariff import Stretch
from tallygate.domain.window import Window, to_datetime

# Some megabytes as a document; whoever has more groups than that bills them as tenants.
LINES_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Ahead:
    """What fees in advance are worked out from.

    `paid` is the period under the plan of its first instant, which the invoice before this one
    has charged, None where the tenant had no plan by then; `following` the next period under the
    plan of its first instant. `previous_start_us` is when the period before began.
    """

    paid: Segment | None = None
    following: Segment | None = None
    previous_start_us: int = 0


NOTHING_AHEAD: Final = Ahead()


@dataclass(frozen=True, slots=True)
class Rating:
    """All that an invoice is made of.

    `rates` is what one of a currency is worth in the invoice's, by currency and the instant whose
    rate counts. `used` names the meters with usage in the period.
    """

    tenant_id: TenantId
    period: Window
    currency: str
    segments: tuple[Segment, ...]
    usage: Sequence[Measured] = ()
    grants: Sequence[GrantLeft] = ()
    rates: Mapping[tuple[str, int], Decimal] = field(default_factory=dict)
    ahead: Ahead = NOTHING_AHEAD
    used: Sequence[MeterName] = ()
    adjusted: tuple["Adjusted", ...] = ()


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A closed period whose late usage is billed now: as it was rated, and its usage with that.

    Its grants are those valid in it, with what they had before it burned any.
    """

    before: Rating
    usage: Sequence[Measured]


@exactly
def invoice_of(rating: Rating) -> Invoice:
    """Return the invoice.

    Raises `NotFound` where a rate of exchange is missing, `TooManyItems` for too many lines.
    """
    lines: list[InvoiceLine] = []
    for line in _all_lines(rating):
        if len(lines) == LINES_MAX:
            raise TooManyItems(f"the invoice has more than {LINES_MAX} lines", field="lines")
        lines.append(replace(line, number=len(lines) + 1))
    sums = {kind: total(each.amount for each in lines if each.kind is kind) for kind in LineKind}
    priced = {price.meter for segment in rating.segments for price in segment.prices}
    versions = [version for segment in rating.segments for version in segment.catalogs]
    return Invoice(
        tenant_id=rating.tenant_id,
        period=rating.period,
        currency=rating.currency,
        lines=tuple(lines),
        subtotal=sums[LineKind.FEE] + sums[LineKind.USAGE] + sums[LineKind.MINIMUM],
        discounts=sums[LineKind.DISCOUNT],
        credits=sums[LineKind.CREDITS],
        total=total(each.amount for each in lines),
        catalogs=tuple(dict.fromkeys(versions)),
        unpriced=tuple(meter for meter in rating.used if meter not in priced),
    )


def rates_asked(rating: Rating) -> set[tuple[str, int]]:
    """Return which rates the invoice may ask for: currencies, each with the instant that counts."""
    asked: set[tuple[str, int]] = set()
    before = Window(rating.ahead.previous_start_us, rating.period.start_us)
    billed: list[tuple[Segment | None, Window]] = [(rating.ahead.paid, before)]
    billed += [(each, rating.period) for each in (*rating.segments, rating.ahead.following)]
    for segment, window in billed:
        if segment is not None:
            currencies = {price.currency for price in segment.prices if price.currency}
            at_us = _counting_us(segment, window)
            asked |= {(each, at_us) for each in currencies | {segment.terms.currency}}
    for each in rating.adjusted:
        asked.add((each.before.currency, _converting(rating)[0]))
    return {each for each in asked if each[0] != rating.currency}


def _all_lines(rating: Rating) -> Iterator[InvoiceLine]:
    """Iterate over what late usage changes, then over the period's own lines."""
    burned: dict[GrantPlace, Decimal] = {}
    known = {(each.limit_id, each.seq): each for each in rating.grants}
    for adjusted in rating.adjusted:
        for each in adjusted.before.grants:
            # Used up before, and perhaps given back.
            if each.starts_us < rating.period.end_us and rating.period.start_us < each.expires_us:
                known.setdefault((each.limit_id, each.seq), replace(each, left=ZERO))
        for line in _adjustment(rating, adjusted, burned):
            if line.burn is not None:
                place = (line.burn.limit_id, line.burn.seq)
                burned[place] = burned.get(place, ZERO) + line.burn.units
            yield line
    yield from _lines(replace(rating, grants=after([*known.values()], burned)))


def _adjustment(
    rating: Rating, adjusted: Adjusted, burned: Mapping[GrantPlace, Decimal]
) -> list[InvoiceLine]:
    """Return by how much late usage changes what a closed period came to, in its own rates."""
    was = adjusted.before
    was = replace(was, grants=after(was.grants, burned))
    made: Sequence[InvoiceLine] = differences(
        [*_lines(was)], [*_lines(replace(was, usage=adjusted.usage))]
    )
    if was.currency != rating.currency:
        at_us, rounding = _converting(rating)
        made = converted(made, _rate(rating, was.currency, at_us), rating.currency, rounding)
    return [replace(line, adjusts=was.period) for line in made]


def _converting(rating: Rating) -> tuple[int, Rounding]:
    """Return the instant and the rounding by which other periods' currencies are converted."""
    if not rating.segments:
        return rating.period.end_us, Rounding.HALF_EVEN
    last = rating.segments[-1]
    return _counting_us(last, rating.period), last.terms.rounding


def _lines(rating: Rating) -> Iterator[InvoiceLine]:
    yield from _ahead(rating)
    purse = Purse(rating.grants)
    once: set[PriceId] = set()
    used: dict[tuple[int, Selection], list[Measured]] = {}
    for measured in rating.usage:
        used.setdefault((measured.segment, measured.selection), []).append(measured)
    for place, segment in enumerate(rating.segments):
        of = _stretch(rating, segment.window)
        made: list[InvoiceLine] = []
        for price in segment.prices:
            if _is_ahead(price):
                continue
            under = _under(rating, segment, price, of)
            if price.model is not PriceModel.FLAT:
                selection = segment.selection(price)
                found = used.get((place, selection), [])
                if not found and not price.per:
                    # A minimum is asked for without usage, too.
                    found = [Measured(place, selection, ZERO, 0)]
                for measured in sorted(found, key=lambda each: each.group):
                    made += usage_lines(price, measured, under, purse)
            elif not _had(once, price):
                made += fee_lines(price, under, purse)
        yield from made
        if segment.terms.minimum or segment.terms.discount:
            yield from plan_lines(_under(rating, segment, None, of), made)


def _ahead(rating: Rating) -> Iterator[InvoiceLine]:
    """Iterate over fees in advance: what was paid of this period set right, the next one's."""
    paid, following, purse = rating.ahead.paid, rating.ahead.following, Purse(())
    before = Window(rating.ahead.previous_start_us, rating.period.start_us)
    whole = _stretch(rating, rating.period)
    once: set[PriceId] = set()
    for price in _ahead_of(paid):
        assert paid is not None
        if not price.prorate:
            once.add(price.price_id)
        elif not _stays(rating, price):
            under = _under(rating, paid, price, whole, before)
            yield from taken_back(fee_lines(price, under, purse))
    for segment in rating.segments:
        for price in _ahead_of(segment):
            if _had(once, price) or (price.prorate and _stays(rating, price)):
                continue
            # What was paid ahead is left at the rate of exchange at which it was paid.
            billed = before if _alike(paid, segment, price) else None
            under = _under(rating, segment, price, _stretch(rating, segment.window), billed)
            yield from fee_lines(price, under, purse)
    for price in _ahead_of(following):
        assert following is not None
        yield from fee_lines(price, _under(rating, following, price, whole), purse)


def _stays(rating: Rating, price: Price) -> bool:
    """Say whether a fee that was paid ahead is asked for alike throughout the period."""
    covered = sum(each.window.end_us - each.window.start_us for each in rating.segments)
    whole = covered == rating.period.end_us - rating.period.start_us
    return whole and all(_alike(rating.ahead.paid, each, price) for each in rating.segments)


def _alike(paid: Segment | None, segment: Segment, price: Price) -> bool:
    """Say whether a segment asks for the same fee as was paid ahead."""
    return (
        paid is not None
        and price in paid.prices
        and price in segment.prices
        and _sense(paid, price) == _sense(segment, price)
    )


def _had(once: set[PriceId], price: Price) -> bool:
    """Say whether a fee that is asked for once a period was asked for; note that it is now."""
    if price.prorate:
        return False
    had = price.price_id in once
    once.add(price.price_id)
    return had


def _sense(segment: Segment, price: Price) -> tuple[object, ...]:
    """Return what a plan's terms have to say of a fee."""
    terms = segment.terms
    return (price.currency or terms.currency, price.rounding or terms.rounding, terms.exchange_at)


def _is_ahead(price: Price) -> bool:
    return price.model is PriceModel.FLAT and price.pay is Pay.ADVANCE


def _ahead_of(segment: Segment | None) -> list[Price]:
    return [price for price in segment.prices if _is_ahead(price)] if segment is not None else []


def _stretch(rating: Rating, window: Window) -> Stretch:
    whole_us = rating.period.end_us - rating.period.start_us
    return Stretch(window.end_us - window.start_us, whole_us)


def _counting_us(segment: Segment, billed: Window) -> int:
    """Return the instant whose rate of exchange counts."""
    at_end = segment.terms.exchange_at is ExchangeAt.PERIOD_END
    return billed.end_us if at_end else billed.start_us


def _under(
    rating: Rating,
    segment: Segment,
    price: Price | None,
    of: Stretch,
    billed: Window | None = None,
) -> Under:
    """Return under what a price's lines are made, or the plan's own without a price."""
    terms = segment.terms
    currency = price.currency if price is not None and price.currency else terms.currency
    in_credits = price is not None and price.in_credits
    if in_credits:
        currency = terms.currency
    rate = _rate(rating, currency, _counting_us(segment, billed or rating.period))
    if in_credits and terms.credit is not None:
        return Under(segment, of, rating.currency, CREDITS, rate * terms.credit.price)
    return Under(segment, of, rating.currency, currency, rate)


def _rate(rating: Rating, currency: str, at_us: int) -> Decimal:
    if currency == rating.currency:
        return Decimal(1)
    found = rating.rates.get((currency, at_us))
    if found is None:
        day = to_datetime(at_us).date().isoformat()
        message = f"there is no rate of {currency} in {rating.currency} for {day}"
        raise NotFound(message, field="exchange_rate")
    return found
