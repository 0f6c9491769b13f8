"""Prices and terms in documents: what is written is what is read, each fault stands on its line."""

from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.domain.catalog_diff import diff
from tallygate.domain.ids import PlanName
from tallygate.domain.price import DiscountStep, Pay, PriceModel, Rounding, RoundPer, Tier
from tests.catalog.documents import PRICES, changed, faults


@dataclass(frozen=True, slots=True)
class Bad:
    """One edit of the document of prices, and its only fault, which stands on that line."""

    old: str
    new: str
    path: str
    message: str
    suggestion: str = ""


PLAN = "plans.all"
AT = f"{PLAN}.prices"
TERMS = f"{PLAN}.terms"
CALLS = "meter: calls, amount: 0.002"
SHARE = "percent: 2.9"
CARD = "credits: 2.5"
TIERS = "[{up_to: 10, amount: 1}, {up_to: 20, amount: 0.5, flat: 3}, {amount: 0.1}]"
MANY = ", ".join(f"{{up_to: {end}, amount: 1}}" for end in range(1, 65))

BAD = [
    Bad("id: calls,", "", f"{AT}[1].id", "is required"),
    Bad("id: calls,", "id: base,", f"{AT}[1].id", "base is there twice"),
    Bad("id: calls,", "id: Calls,", f"{AT}[1].id", "is not a name"),
    Bad("model: package", "model: packages", f"{AT}[3].model", "must be one of", "package"),
    Bad(CALLS, "meter: cals, amount: 1", f"{AT}[1].meter", "there is no meter", "calls"),
    Bad(CALLS, "amount: 1", f"{AT}[1].meter", "is required"),
    Bad(CALLS, "meter: calls", f"{AT}[1].amount", "is required"),
    Bad(CALLS, f"{CALLS}, amonut: 1", f"{AT}[1].amonut", "there is no", "amount"),
    Bad(CALLS, f"{CALLS}, size: 1", f"{AT}[1].size", "is for prices of model package"),
    Bad(CALLS, f"{CALLS}, percent: 1", f"{AT}[1].percent", "is for prices of model percentage"),
    Bad(CALLS, f"{CALLS}, pay: advance", f"{AT}[1].pay", "is for prices of model flat"),
    Bad(CALLS, f"{CALLS}, round_per: tier", f"{AT}[1].round_per", "graduated, volume"),
    Bad(CALLS, f"{CALLS}, tiers: [{{amount: 1}}]", f"{AT}[1].tiers", "graduated, volume"),
    Bad("pay: advance", "meter: calls", f"{AT}[0].meter", "is for prices of model per_unit"),
    Bad("49.90", "4e1", f"{AT}[0].amount", "must be a decimal such as 0.002"),
    Bad("49.90", "-1", f"{AT}[0].amount", "must be a decimal"),
    Bad("49.90", "0.0000000000001", f"{AT}[0].amount", "with at most 12 decimals"),
    Bad("49.90", "1_000_000_000_000_000.1", f"{AT}[0].amount", "must be from 0 to"),
    Bad("discount: 12.5", "discount: 100.1", f"{AT}[0].discount", "must be from 0 to 100"),
    Bad(
        "discount: 12.5",
        "discount: [{from: 1, percent: 5}]",
        f"{AT}[0].discount",
        "of a fee has no `from`",
    ),
    Bad("{percent: 1}", "{from: 5, percent: 1}", f"{AT}[3].discount", "holds a `from` twice"),
    Bad("{percent: 1}", "{from: 1}", f"{AT}[3].discount[1].percent", "is required"),
    Bad("size: 1_000", "size: 0", f"{AT}[3].size", "must be from 1"),
    Bad("up_to: 20", "up_to: 10", f"{AT}[4].tiers[1].up_to", "must rise"),
    Bad("up_to: 20, ", "", f"{AT}[4].tiers[1].up_to", "is required but of the last"),
    Bad("{amount: 0.1}]", "{up_to: 30}]", f"{AT}[4].tiers[2].up_to", "must be left out"),
    Bad(TIERS, "[]", f"{AT}[4].tiers", "must hold from 1 to 64 tiers"),
    Bad(TIERS, f"[{MANY}, {{amount: 1}}]", f"{AT}[4].tiers", "must hold from 1 to 64 tiers"),
    Bad(SHARE, "percent: 101", f"{AT}[6].percent", "must be from 0 to 100"),
    Bad("meter: paid", "meter: calls", f"{AT}[6].meter", "a percentage needs a meter that sums"),
    Bad("currency: JPY", "currency: JPX", f"{AT}[6].currency", "is not an ISO 4217 code"),
    Bad(CARD, f"{CARD}, amount: 1", f"{AT}[7]", "asks for money and for credits"),
    Bad(CARD, f"{CARD}, currency: USD", f"{AT}[7].currency", "is not for prices in credits"),
    Bad("per: region", 'per: "a b"', f"{AT}[7].per", "is not a name of up to 64"),
    Bad("tier: [a, b]", "tier: [a, a]", f"{AT}[7].where.tier", "holds a value twice"),
    Bad("above: soft", "above: sofd", f"{AT}[2].above", "there is no limit of plan", "soft"),
    Bad("above: soft", "above: hard", f"{AT}[2].above", "hard refuses what is above it"),
    Bad("above: soft", "above: soft, included: 1", f"{AT}[2].above", "with `included`"),
    Bad("above: soft", "above: soft, per: region", f"{AT}[2].above", "with `per`"),
    Bad("above: soft", "above: soft, where: {a: b}", f"{AT}[2].above", "has another `where`"),
    Bad("rounding: half_up", "rounding: half_upp", f"{TERMS}.rounding", "must be", "half_up"),
    Bad("currency: EUR", "currency: EUX", f"{TERMS}.currency", "is not an ISO 4217 code"),
    Bad("period_start", "period_strat", f"{TERMS}.exchange_at", "must be", "period_start"),
    Bad("{price: 0.01, balance", "{balance", f"{TERMS}.credit.price", "is required"),
    Bad("balance: prepaid}", "balance: soft}", f"{TERMS}.credit.balance", "there is no balance"),
    Bad("minimum: 100", "minimun: 100", f"{TERMS}.minimun", "there is no", "minimum"),
]


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.path}:{bad.message}"[:60] for bad in BAD])
def test_each_fault_is_told_alone_with_its_place(bad: Bad) -> None:
    """A wrong value gives one fault: its line, its path, what is wrong, what was meant."""
    text = changed(bad.old, bad.new, PRICES)
    expected = PRICES[: PRICES.index(bad.old)].count("\n") + 1
    (found,) = faults(text)
    assert bad.message in found.message
    assert (found.line, found.path) == (expected, bad.path)
    if bad.suggestion:
        assert found.suggestion == bad.suggestion


def test_credits_need_their_price() -> None:
    """Each price in credits is told where the terms do not say what one costs."""
    text = changed("      credit: {price: 0.01, balance: prepaid}\n", "", PRICES)
    assert [fault.path for fault in faults(text)] == [f"{AT}[7].credits", f"{AT}[8].tiers"]


def test_a_price_asks_for_one_of_both() -> None:
    """Tiers of money and of credits are one fault, at the price."""
    (found,) = faults(changed("{amount: 0.1}]", "{credits: 0.1}]", PRICES))
    line = PRICES[: PRICES.index("id: graded")].count("\n") + 1
    assert (found.path, found.line) == (f"{AT}[4]", line)
    assert "asks for money and for credits" in found.message


def test_what_is_above_a_limit_counts_as_the_limit_does() -> None:
    """A limit of another meter, of another kind, or that weighs, says nothing of a price."""
    over = "id: over, model: per_unit, meter: "
    other = changed(f"{over}bytes", f"{over}calls", PRICES)
    assert [fault.path for fault in faults(other)] == [f"{AT}[2].above"]
    kind = changed("above: soft", "above: prepaid", PRICES)
    assert {fault.path for fault in faults(kind)} == {f"{AT}[2].above"}
    weighed = PRICES.replace("id: soft, meter: bytes", "id: soft, meter: cards")
    (found,) = faults(weighed.replace(f"{over}bytes", f"{over}cards"))
    assert "weighs other meters" in found.message


def test_prices_are_read_as_written() -> None:
    """Decimals are exact, steps rise, a percentage alone is off everything."""
    plan = parse(PRICES).catalog.plans[PlanName("all")]
    base, calls, over, packs, graded, bulk, share, card, steps = plan.prices
    assert (base.amount, base.pay, base.discount) == (
        Decimal("49.90"),
        Pay.ADVANCE,
        (DiscountStep(Decimal(0), Decimal("12.5")),),
    )
    assert (calls.amount, calls.included, over.above) == (Decimal("0.002"), 10_000, "soft")
    assert [step.start for step in packs.discount] == [0, 5]
    assert graded.tiers[1] == Tier(20, Decimal("0.5"), Decimal(3))
    assert (graded.round_per, bulk.rounding, share.prorate) == (
        RoundPer.TIER,
        Rounding.UP,
        False,
    )
    assert (card.in_credits, card.amount, card.per) == (True, Decimal("2.5"), "region")
    assert steps.in_credits
    assert [price.model for price in plan.prices if price.tiers] == [
        *(PriceModel.GRADUATED, PriceModel.VOLUME, PriceModel.VOLUME)
    ]


def test_changes_of_prices_are_told() -> None:
    """Each field of a price and of the terms is a change of its own."""
    old = parse(PRICES).catalog
    plan = old.plans[PlanName("all")]
    dear = replace(plan.prices[0], amount=Decimal("59"))
    changed_plan = replace(
        plan, prices=(dear, *plan.prices[2:]), terms=replace(plan.terms, minimum=Decimal(50))
    )
    new = replace(old, plans={plan.name: changed_plan})
    told = [(each.path, each.before, each.after) for each in diff(old, new)]
    assert told[0] == ("plans.all.prices.base.amount", "49.90", "59")
    assert told[1][0] == "plans.all.prices.calls"
    assert told[2:] == [("plans.all.terms.minimum", "100", "50")]
