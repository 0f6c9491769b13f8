"""The prices of a catalog document's plans, and the terms that they share.

Guarantees: an amount is the decimal that is written, and passes through no float; a key that does
not suit its price's model is a fault even where it says nothing.
Refuses to know: whether numbers hold together; that is for the catalog's rules.
"""

import re
from decimal import Decimal
from typing import Final

from yaml.nodes import Node, ScalarNode, SequenceNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.wheres import where
from tallygate.domain.ids import LimitId, MeterName
from tallygate.domain.money import DECIMALS_MAX
from tallygate.domain.price import (
    TERMS,
    ZERO,
    CreditTerms,
    DiscountStep,
    ExchangeAt,
    Pay,
    Price,
    PriceId,
    PriceModel,
    Rounding,
    RoundPer,
    Terms,
    Tier,
)
from tallygate.domain.price_rules import PRICE_SUITS, price_unsuited

_PRICE: Final = (
    *("id", "model", "meter", "amount", "credits", "size", "percent", "tiers", "included", "above"),
    *("minimum", "discount", "where", "per", "currency", "rounding", "round_per", "pay"),
    *("prorate", "description"),
)
_TIER: Final = ("up_to", "amount", "credits", "flat")
_STEP: Final = ("from", "percent")
_TERMS: Final = ("currency", "minimum", "discount", "credit", "exchange_at", "rounding")
_CREDIT: Final = ("price", "balance")
_NEEDED: Final = ("meter", "size", "percent", "tiers")
"""Required wherever they suit; one of `amount` and `credits` is, too."""

_DECIMAL: Final = re.compile(rf"(0|[1-9][0-9]*(_[0-9]+)*)(\.[0-9]{{1,{DECIMALS_MAX}}})?")


def price(read: Reader, node: Node, path: str) -> Price:
    """Return one price of a plan; what is wrong is told to `read`."""
    parts = read.mapping(node, path, _PRICE)
    for name in ("id", "model"):
        read.needed(parts, name, node, path)
    model = read.choice(parts.get("model"), f"{path}.model", PriceModel, default=PriceModel.FLAT)
    _suit(read, parts, node, path)
    tiers = [
        _tier(read, item, at) for item, at in read.sequence(parts.get("tiers"), f"{path}.tiers")
    ]
    in_credits = "credits" in parts or any(each for _, each in tiers)
    if in_credits and ("amount" in parts or any(each is False for _, each in tiers)):
        read.fault(node, path, "asks for money and for credits: give it one of them")
        in_credits = False
    name = "credits" if in_credits else "amount"
    return Price(
        price_id=PriceId(read.text(parts.get("id"), f"{path}.id")),
        model=model,
        meter=MeterName(read.text(parts.get("meter"), f"{path}.meter")),
        amount=decimal(read, parts.get(name), f"{path}.{name}"),
        in_credits=in_credits,
        size=read.integer(parts.get("size"), f"{path}.size", 1),
        percent=decimal(read, parts.get("percent"), f"{path}.percent"),
        tiers=tuple(tier for tier, _ in tiers),
        included=read.integer(parts.get("included"), f"{path}.included"),
        above=LimitId(read.text(parts.get("above"), f"{path}.above")),
        minimum=decimal(read, parts.get("minimum"), f"{path}.minimum"),
        discount=_discount(read, parts.get("discount"), f"{path}.discount"),
        where=where(read, parts.get("where"), f"{path}.where"),
        per=read.text(parts.get("per"), f"{path}.per"),
        currency=read.text(parts.get("currency"), f"{path}.currency"),
        rounding=_rounding(read, parts.get("rounding"), f"{path}.rounding"),
        round_per=read.choice(
            parts.get("round_per"), f"{path}.round_per", RoundPer, default=RoundPer.LINE
        ),
        pay=read.choice(parts.get("pay"), f"{path}.pay", Pay, default=Pay.ARREARS),
        prorate="prorate" not in parts or read.flag(parts["prorate"], f"{path}.prorate"),
        description=read.prose(parts.get("description"), f"{path}.description"),
    )


def terms(read: Reader, node: Node | None, path: str) -> Terms:
    """Return what holds for all prices of a plan; what is wrong is told to `read`."""
    parts = read.mapping(node, path, _TERMS)
    return Terms(
        currency=read.text(parts.get("currency"), f"{path}.currency") or TERMS.currency,
        minimum=decimal(read, parts.get("minimum"), f"{path}.minimum"),
        discount=_discount(read, parts.get("discount"), f"{path}.discount"),
        credit=_credit(read, parts.get("credit"), f"{path}.credit"),
        exchange_at=read.choice(
            parts.get("exchange_at"), f"{path}.exchange_at", ExchangeAt, default=TERMS.exchange_at
        ),
        rounding=_rounding(read, parts.get("rounding"), f"{path}.rounding") or TERMS.rounding,
    )


def decimal(read: Reader, node: Node | None, path: str) -> Decimal:
    """Return a decimal such as `49`, `0.002` or `10_000.50`, 0 without a node."""
    if node is None:
        return ZERO
    value = read.text(node, path)
    if _DECIMAL.fullmatch(value):
        return Decimal(value)
    if value:
        message = f"must be a decimal such as 0.002, with at most {DECIMALS_MAX} decimals"
        read.fault(node, path, f"{message}, not {value!r}")
    return ZERO


def _suit(read: Reader, parts: dict[str, Node], node: Node, path: str) -> None:
    model = parts.get("model")
    if not isinstance(model, ScalarNode) or model.value not in [*PriceModel]:
        # Whatever stands in for the model says nothing of what suits it.
        return
    for name, models in PRICE_SUITS.items():
        if name in parts and model.value not in models:
            read.fault(parts[name], f"{path}.{name}", price_unsuited(name))
        elif name in _NEEDED and model.value in models:
            read.needed(parts, name, node, path)
    if model.value in PRICE_SUITS["amount"] and "credits" not in parts:
        read.needed(parts, "amount", node, path)


def _tier(read: Reader, node: Node, path: str) -> tuple[Tier, bool | None]:
    """Return a tier, and whether it asks for credits, None where it asks for nothing per unit."""
    parts = read.mapping(node, path, _TIER)
    up_to = parts.get("up_to")
    name = "credits" if "credits" in parts else "amount"
    if "credits" in parts and "amount" in parts:
        read.fault(node, path, "asks for money and for credits: give it one of them")
    tier = Tier(
        # What could not be read is told; the rules tell of a number that does not rise.
        up_to=None if up_to is None else read.integer(up_to, f"{path}.up_to"),
        amount=decimal(read, parts.get(name), f"{path}.{name}"),
        flat=decimal(read, parts.get("flat"), f"{path}.flat"),
    )
    return tier, (name == "credits" if name in parts else None)


def _discount(read: Reader, node: Node | None, path: str) -> tuple[DiscountStep, ...]:
    """Return the steps, rising; a number alone is a percentage off everything."""
    if not isinstance(node, SequenceNode):
        return (DiscountStep(ZERO, decimal(read, node, path)),) if node is not None else ()
    steps: list[DiscountStep] = []
    for item, at in read.sequence(node, path):
        parts = read.mapping(item, at, _STEP)
        percent = decimal(read, read.needed(parts, "percent", item, at), f"{at}.percent")
        steps.append(DiscountStep(decimal(read, parts.get("from"), f"{at}.from"), percent))
    return tuple(sorted(steps, key=lambda step: step.start))


def _credit(read: Reader, node: Node | None, path: str) -> CreditTerms | None:
    if node is None:
        return None
    parts = read.mapping(node, path, _CREDIT)
    price_node = read.needed(parts, "price", node, path)
    balance = read.text(parts.get("balance"), f"{path}.balance")
    return CreditTerms(decimal(read, price_node, f"{path}.price"), LimitId(balance))


def _rounding(read: Reader, node: Node | None, path: str) -> Rounding | None:
    if node is None:
        return None
    return read.choice(node, path, Rounding, default=Rounding.HALF_EVEN)
