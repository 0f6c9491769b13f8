"""Prices and their terms in the compiled catalog: JSON, with decimals as texts.

Guarantees: what is written reads back equal, without what is as usual; fields that a later version
adds are ignored.
Refuses to know: the rest of the catalog.
"""

from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any, Final

from tallygate.domain.ids import LimitId, MeterName
from tallygate.domain.price import (
    TERMS,
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

# JSON is untyped; what is read from it is checked by building the domain's own types.
Json = Mapping[str, Any]

_Part = Price | Terms | Tier | DiscountStep | CreditTerms
_USUAL: Final = Price(PriceId(""), PriceModel.FLAT)


def price_to_json(price: Price) -> dict[str, Any]:
    """Return a price, without what is as usual."""
    return {"price_id": price.price_id, "model": price.model, **_unusual(price, _USUAL)}


def terms_to_json(terms: Terms) -> dict[str, Any]:
    """Return the terms, without what is as usual."""
    return _unusual(terms, TERMS)


def price_from_json(found: Json) -> Price:
    """Return the price. Raises ValueError, KeyError or TypeError for what is none."""
    rounding = found.get("rounding")
    return Price(
        price_id=PriceId(found["price_id"]),
        model=PriceModel(found["model"]),
        meter=MeterName(found.get("meter", "")),
        amount=_decimal(found.get("amount", "0")),
        in_credits=bool(found.get("in_credits", False)),
        size=int(found.get("size", 1)),
        percent=_decimal(found.get("percent", "0")),
        tiers=tuple(_tier(each) for each in found.get("tiers", ())),
        included=int(found.get("included", 0)),
        above=LimitId(found.get("above", "")),
        minimum=_decimal(found.get("minimum", "0")),
        discount=_discount(found),
        where=tuple((str(key), tuple(values)) for key, values in found.get("where", ())),
        per=found.get("per", ""),
        currency=found.get("currency", ""),
        rounding=Rounding(rounding) if rounding is not None else None,
        round_per=RoundPer(found.get("round_per", RoundPer.LINE)),
        pay=Pay(found.get("pay", Pay.ARREARS)),
        prorate=bool(found.get("prorate", True)),
        description=found.get("description", ""),
    )


def terms_from_json(found: Json) -> Terms:
    """Return the terms. Raises ValueError, KeyError or TypeError for what is none."""
    credit = found.get("credit")
    return Terms(
        currency=found.get("currency", TERMS.currency),
        minimum=_decimal(found.get("minimum", "0")),
        discount=_discount(found),
        credit=(
            CreditTerms(_decimal(credit["price"]), LimitId(credit.get("balance", "")))
            if credit is not None
            else None
        ),
        exchange_at=ExchangeAt(found.get("exchange_at", TERMS.exchange_at)),
        rounding=Rounding(found.get("rounding", TERMS.rounding)),
    )


def _unusual(
    found: Price | Terms | Tier | DiscountStep | CreditTerms, usual: object
) -> dict[str, Any]:
    return {
        field.name: _plain(value)
        for field in fields(found)
        if (value := getattr(found, field.name)) != getattr(usual, field.name, None)
    }


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return format(value, "f")
        case Tier() | DiscountStep() | CreditTerms():
            return _unusual(value, None)
        case tuple():
            return [_plain(each) for each in value]
        case _:
            return value


def _decimal(text: object) -> Decimal:
    if not isinstance(text, str):
        raise TypeError("is not a decimal as a text")
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("is not a decimal") from None


def _tier(found: Json) -> Tier:
    up_to = found.get("up_to")
    return Tier(
        up_to=int(up_to) if up_to is not None else None,
        amount=_decimal(found.get("amount", "0")),
        flat=_decimal(found.get("flat", "0")),
    )


def _discount(found: Json) -> tuple[DiscountStep, ...]:
    return tuple(
        DiscountStep(_decimal(each["start"]), _decimal(each["percent"]))
        for each in found.get("discount", ())
    )
