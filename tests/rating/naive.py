"""A naive rater: event by event and unit by unit, on fractions, as the page on prices tells it.

Owns nothing of the product: it shares the declarations of prices with it, and no rule. Whatever it
does is slow and plain, so that it can be read beside the page.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from tallygate.domain.catalog import Meter, Plan
from tallygate.domain.price import (
    ExchangeAt,
    Pay,
    Price,
    PriceModel,
    Rounding,
    RoundPer,
)
from tests.rating.naive_usage import Use, measure

COINS = {"USD": 100, "EUR": 100, "JPY": 1, "KWD": 1000}


@dataclass
class NaiveGrant:
    """A prepaid grant while it is burned."""

    priority: int
    expires_us: int
    seq: int
    starts_us: int
    left: Fraction


@dataclass
class Story:
    """What happened to a tenant: which plan it had from when on, what it used, what is due."""

    start_us: int
    end_us: int
    currency: str
    plans: Sequence[tuple[int, Plan]]
    uses: Sequence[Use]
    meters: dict[str, Meter]
    grants: list[NaiveGrant] = field(default_factory=list)
    rates: dict[tuple[str, int], Fraction] = field(default_factory=dict)


def total_due(story: Story) -> Fraction:
    """Return what the tenant owes."""
    return sum((amount for _, amount in dues(story)), Fraction(0))


def dues(story: Story) -> Iterator[tuple[tuple[object, ...], Fraction]]:
    """Iterate over what is due for each price in each stretch and group, in coins."""
    yield from advance_dues(story)
    asked_once: set[str] = set()
    for start, end, plan in stretches(story):
        spent = Fraction(0)
        due = Fraction(0)
        part = Fraction(end - start, story.end_us - story.start_us)
        for price in plan.prices:
            if price.model is PriceModel.FLAT and price.pay is Pay.ADVANCE:
                continue
            if price.model is PriceModel.FLAT and not price.prorate:
                if price.price_id in asked_once:
                    continue
                asked_once.add(price.price_id)
            for group, amount, paid in price_dues(story, plan, price, (start, end)):
                yield (price.price_id, start, group), amount
                due += amount
                spent += amount + paid
        rate = rate_of(story, plan, plan.terms.currency, story.start_us, story.end_us)
        best = Fraction(0)
        highest = Fraction(-1)
        for step in plan.terms.discount:
            start_at = Fraction(step.start) * rate * part
            if due >= start_at and Fraction(step.start) > highest:
                highest, best = Fraction(step.start), Fraction(step.percent)
        if due > 0 and best:
            off = to_coins(-due * best / 100, story.currency, plan.terms.rounding)
            yield ("discount", start), off
            spent += off
        if plan.terms.minimum:
            least = to_coins(
                Fraction(plan.terms.minimum) * part * rate, story.currency, plan.terms.rounding
            )
            if least > spent:
                yield ("minimum", start), least - spent


def price_dues(
    story: Story, plan: Plan, price: Price, within: tuple[int, int]
) -> Iterator[tuple[object, Fraction, Fraction]]:
    """Iterate over group, what is due in coins, and what credits pay of it in coins."""
    part = Fraction(within[1] - within[0], story.end_us - story.start_us)
    scale = part if price.prorate else Fraction(1)
    rate = rate_of(
        story,
        plan,
        plan.terms.currency if price.in_credits else price.currency or plan.terms.currency,
        story.start_us,
        story.end_us,
    )
    if price.in_credits:
        assert plan.terms.credit is not None
        rate *= Fraction(plan.terms.credit.price)
    rounding = price.rounding or plan.terms.rounding
    for group, quantity in quantities(story, price, within):
        if price.model is PriceModel.FLAT:
            amounts = [Fraction(price.amount) * scale]
        else:
            if quantity is None:
                continue
            amounts = unit_by_unit(price, plan, quantity, scale)
        if price.round_per is RoundPer.TIER:
            worth = sum(
                (to_coins(each * rate, story.currency, rounding) for each in amounts), Fraction(0)
            )
        else:
            worth = sum(amounts, Fraction(0)) * rate
        credits_due = sum(amounts, Fraction(0))
        best, highest = Fraction(0), Fraction(-1)
        for step in price.discount:
            reached = abs(quantity or Fraction(0))
            if reached >= Fraction(step.start) * scale and Fraction(step.start) > highest:
                highest, best = Fraction(step.start), Fraction(step.percent)
        worth -= worth * best / 100
        credits_due -= credits_due * best / 100
        least = Fraction(price.minimum) * scale
        if price.minimum and worth < least * rate:
            worth, credits_due = least * rate, least
        before = to_coins(worth, story.currency, rounding)
        if price.in_credits and plan.terms.credit is not None and plan.terms.credit.balance:
            worth -= burn(story, within, credits_due) * rate
        after = to_coins(worth, story.currency, rounding)
        yield group, after, before - after


def quantities(
    story: Story, price: Price, within: tuple[int, int]
) -> Iterator[tuple[object, Fraction | None]]:
    """Iterate over groups with what was used, None where nothing was and nothing is asked for."""
    if price.model is PriceModel.FLAT:
        yield (), Fraction(0)
        return
    meter = story.meters[price.meter]
    until = [use for use in story.uses if use.at_us < within[1]]
    mine = [use for use in until if use.meter == price.meter and wanted(price, use)]
    used = [use for use in mine if use.at_us >= within[0]]
    if not price.per:
        found = measure(meter, mine, *within)
        nothing = not used and not found and not price.minimum
        yield (), None if nothing else found
        return
    for value in sorted({dict(use.dimensions).get(price.per, "") for use in mine}):
        of_value = [use for use in mine if dict(use.dimensions).get(price.per, "") == value]
        found = measure(meter, of_value, *within)
        if found or any(use in of_value for use in used):
            yield ((price.per, value),), found


def wanted(price: Price, use: Use) -> bool:
    """Say whether a price is for an event."""
    found = dict(use.dimensions)
    return all(found.get(key, "") in values for key, values in price.where)


def unit_by_unit(price: Price, plan: Plan, quantity: Fraction, scale: Fraction) -> list[Fraction]:
    """Return what is asked for, tier by tier, by taking one unit after the other."""
    included = price.included
    for limit in plan.limits:
        if price.above and limit.limit_id == price.above:
            included = limit.limit
    linear = price.model in (PriceModel.PER_UNIT, PriceModel.PERCENTAGE) and not included
    if price.model is PriceModel.PERCENTAGE:
        coins = COINS[price.currency or plan.terms.currency]
        each = Fraction(price.percent) / 100 / coins
    else:
        each = Fraction(price.amount)
    if quantity < 0:
        return [quantity * each] if linear else []
    free = whole_up(included * scale)
    if quantity > 10_000 or quantity.denominator > 1:
        return by_length(price, max(Fraction(0), quantity - free), each, scale)
    billed = int(quantity) - min(free, int(quantity))
    if price.tiers:
        return by_tier(price, billed, scale)
    amount = Fraction(0)
    opened = 0
    for _ in range(billed):
        if opened == 0:
            amount += each
            opened = price.size if price.model is PriceModel.PACKAGE else 1
        opened -= 1
    return [amount]


def by_length(price: Price, billed: Fraction, each: Fraction, scale: Fraction) -> list[Fraction]:
    """Return what is asked for units that are parts, or too many to take one after the other."""
    if price.model is PriceModel.PACKAGE:
        return [whole_up(billed / price.size) * each]
    if not price.tiers:
        return [billed * each]
    amounts = []
    below = Fraction(0)
    for tier in price.tiers:
        end = billed if tier.up_to is None else min(billed, Fraction(whole_up(tier.up_to * scale)))
        if price.model is PriceModel.VOLUME:
            if end == billed and billed > 0:
                return [billed * Fraction(tier.amount) + Fraction(tier.flat)]
        elif end > below:
            amounts.append((end - below) * Fraction(tier.amount) + Fraction(tier.flat))
            below = end
    return amounts


def by_tier(price: Price, billed: int, scale: Fraction) -> list[Fraction]:
    """Return what each tier asks for, unit by unit."""
    amounts: dict[int, Fraction] = {}
    for unit in range(1, billed + 1):
        deciding = billed if price.model is PriceModel.VOLUME else unit
        place = tier_of(price, deciding, scale)
        if place not in amounts:
            amounts[place] = Fraction(price.tiers[place].flat)
        amounts[place] += Fraction(price.tiers[place].amount)
    return [*amounts.values()]


def tier_of(price: Price, unit: int, scale: Fraction) -> int:
    """Return in which tier a unit lies, counted from 1."""
    for place, tier in enumerate(price.tiers):
        if tier.up_to is None or unit <= whole_up(tier.up_to * scale):
            return place
    raise AssertionError("the last tier has an end")


def burn(story: Story, within: tuple[int, int], wanted_units: Fraction) -> Fraction:
    """Take credits from the grants in their order; return how many there were."""
    taken = Fraction(0)
    for grant in sorted(story.grants, key=lambda g: (g.priority, g.expires_us, g.seq)):
        if grant.starts_us >= within[1] or grant.expires_us <= within[0]:
            continue
        units = min(grant.left, max(Fraction(0), wanted_units - taken))
        grant.left -= units
        taken += units
    return taken


def advance_dues(story: Story) -> Iterator[tuple[tuple[object, ...], Fraction]]:
    """Iterate over fees in advance: what was paid before comes off, what is right comes on."""
    known = any(at < story.start_us for at, _ in story.plans)
    at_start = [plan for at, plan in story.plans if at <= story.start_us]
    paid = at_start[-1] if known else None
    at_end = [plan for at, plan in story.plans if at <= story.end_us]
    length = story.end_us - story.start_us
    before, now = (story.start_us - length, story.start_us), (story.start_us, story.end_us)
    pieces = [*stretches(story)]
    gapless = sum(end - start for start, end, _ in pieces) == length
    asked_once = set()
    for price in advance_prices(paid):
        if not price.prorate:
            asked_once.add(price.price_id)
        elif not (gapless and all(same_fee(paid, plan, price) for _, _, plan in pieces)):
            yield ("ahead", price.price_id), -fee_of(story, paid, price, Fraction(1), before)
    for start, end, plan in pieces:
        for price in advance_prices(plan):
            if not price.prorate:
                if price.price_id not in asked_once:
                    asked_once.add(price.price_id)
                    yield ("ahead", price.price_id), fee_of(story, plan, price, Fraction(1), now)
            elif not (gapless and all(same_fee(paid, each, price) for _, _, each in pieces)):
                billed = before if same_fee(paid, plan, price) else now
                share = Fraction(end - start, length)
                yield ("ahead", price.price_id), fee_of(story, plan, price, share, billed)
    for plan in at_end[-1:]:
        for price in advance_prices(plan):
            yield ("ahead", price.price_id), fee_of(story, plan, price, Fraction(1), now)


def same_fee(paid: Plan | None, plan: Plan, price: Price) -> bool:
    """Say whether two plans ask for the same fee, in the same money and rounded alike."""
    if paid is None or price not in paid.prices or price not in plan.prices:
        return False
    one, other = paid.terms, plan.terms
    return (
        (price.currency != "" or one.currency == other.currency)
        and (price.rounding is not None or one.rounding == other.rounding)
        and one.exchange_at == other.exchange_at
    )


def advance_prices(plan: Plan | None) -> list[Price]:
    """Return a plan's fees in advance."""
    found = plan.prices if plan is not None else ()
    return [each for each in found if each.model is PriceModel.FLAT and each.pay is Pay.ADVANCE]


def fee_of(
    story: Story, plan: Plan | None, price: Price, scale: Fraction, billed: tuple[int, int]
) -> Fraction:
    """Return what a fee in advance is for a part of a period, in coins."""
    assert plan is not None
    amount = Fraction(price.amount) * scale
    for step in price.discount:
        amount -= amount * Fraction(step.percent) / 100
    amount *= rate_of(story, plan, price.currency or plan.terms.currency, *billed)
    return to_coins(amount, story.currency, price.rounding or plan.terms.rounding)


def stretches(story: Story) -> Iterator[tuple[int, int, Plan]]:
    """Iterate over stretches with the same plan, at the same prices."""
    merged: list[tuple[int, Plan]] = []
    for at, plan in story.plans:
        if not merged or merged[-1][1] != plan:
            merged.append((at, plan))
    for place, (at, plan) in enumerate(merged):
        start = max(at, story.start_us)
        end = merged[place + 1][0] if place + 1 < len(merged) else story.end_us
        if start < min(end, story.end_us):
            yield start, min(end, story.end_us), plan


def rate_of(story: Story, plan: Plan, currency: str, start_us: int, end_us: int) -> Fraction:
    """Return what a currency is worth at the plan's instant of a period."""
    if currency == story.currency:
        return Fraction(1)
    at = end_us if plan.terms.exchange_at is ExchangeAt.PERIOD_END else start_us
    return story.rates[currency, at]


def whole_up(number: Fraction) -> int:
    """Return the least whole number that is not below."""
    return -(-number.numerator // number.denominator)


def to_coins(amount: Fraction, currency: str, rounding: Rounding) -> Fraction:
    """Return an amount as a number of coins of a currency, as a fraction."""
    coins = abs(amount) * COINS[currency]
    whole, rest = divmod(coins, 1)
    match rounding:
        case Rounding.UP:
            up = rest > 0
        case Rounding.DOWN:
            up = False
        case Rounding.HALF_UP:
            up = rest >= Fraction(1, 2)
        case _:
            up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1)
    sign = -1 if amount < 0 else 1
    return sign * Fraction(whole + up, COINS[currency])


def in_decimal(amount: Fraction, currency: str) -> Decimal:
    """Return a number of coins as money is written."""
    return Decimal(int(amount * COINS[currency])).scaleb(-len(str(COINS[currency])) + 1)
