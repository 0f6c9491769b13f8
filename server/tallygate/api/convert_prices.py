"""Between the protos of prices and the domain, both ways.

Guarantees: what converts is well-formed; decimals travel as texts, and are exact.
Refuses to know: whether prices hold together, which is for the catalog's rules.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

from tallygate.api.convert_texts import PROSE_LENGTH_MAX, name, text
from tallygate.domain.errors import InvalidField
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
from tallygate.domain.price_rules import PRICE_SUITS
from tallygate.gen.v1 import catalog_pb2

Value = TypeVar("Value", bound=StrEnum)

# The length keeps the work of a caller's text within bounds; rules have the bounds of the number.
_DECIMAL: Final = re.compile(rf"[0-9]{{1,16}}(\.[0-9]{{1,{DECIMALS_MAX}}})?")

_MODELS: Final = {
    PriceModel.FLAT: catalog_pb2.PRICE_MODEL_FLAT,
    PriceModel.PER_UNIT: catalog_pb2.PRICE_MODEL_PER_UNIT,
    PriceModel.PACKAGE: catalog_pb2.PRICE_MODEL_PACKAGE,
    PriceModel.GRADUATED: catalog_pb2.PRICE_MODEL_GRADUATED,
    PriceModel.VOLUME: catalog_pb2.PRICE_MODEL_VOLUME,
    PriceModel.PERCENTAGE: catalog_pb2.PRICE_MODEL_PERCENTAGE,
}
_ROUNDINGS: Final = {
    Rounding.HALF_EVEN: catalog_pb2.ROUNDING_HALF_EVEN,
    Rounding.HALF_UP: catalog_pb2.ROUNDING_HALF_UP,
    Rounding.UP: catalog_pb2.ROUNDING_UP,
    Rounding.DOWN: catalog_pb2.ROUNDING_DOWN,
}
_ROUND_PER: Final = {
    RoundPer.LINE: catalog_pb2.ROUND_PER_LINE,
    RoundPer.TIER: catalog_pb2.ROUND_PER_TIER,
}
_PAY: Final = {Pay.ARREARS: catalog_pb2.PAY_ARREARS, Pay.ADVANCE: catalog_pb2.PAY_ADVANCE}
_EXCHANGE_AT: Final = {
    ExchangeAt.PERIOD_END: catalog_pb2.EXCHANGE_AT_PERIOD_END,
    ExchangeAt.PERIOD_START: catalog_pb2.EXCHANGE_AT_PERIOD_START,
}


def price(message: catalog_pb2.Price, path: str) -> Price:
    """Return the price. Raises `InvalidField`."""
    model = _value(_MODELS, message.model, f"{path}.model")
    assert model is not None
    if message.size and model not in PRICE_SUITS["size"]:
        raise InvalidField("is for prices of model package", field=f"{path}.size")
    return Price(
        price_id=PriceId(name(message.price_id, f"{path}.price_id")),
        model=model,
        meter=MeterName(text(message.meter, f"{path}.meter")),
        amount=_decimal(message.amount, f"{path}.amount"),
        in_credits=message.in_credits,
        size=message.size or 1,
        percent=_decimal(message.percent, f"{path}.percent"),
        tiers=tuple(
            Tier(
                up_to=each.up_to or None,
                amount=_decimal(each.amount, f"{path}.tiers[{index}].amount"),
                flat=_decimal(each.flat, f"{path}.tiers[{index}].flat"),
            )
            for index, each in enumerate(message.tiers)
        ),
        included=message.included,
        above=LimitId(text(message.above, f"{path}.above")),
        minimum=_decimal(message.minimum, f"{path}.minimum"),
        discount=_discount(message.discount, f"{path}.discount"),
        where=_where(message, f"{path}.where"),
        per=text(message.per, f"{path}.per"),
        currency=text(message.currency, f"{path}.currency"),
        rounding=_rounding(message.rounding, f"{path}.rounding"),
        round_per=_value(_ROUND_PER, message.round_per, f"{path}.round_per", optional=True)
        or RoundPer.LINE,
        pay=_value(_PAY, message.pay, f"{path}.pay", optional=True) or Pay.ARREARS,
        prorate=not message.whole,
        description=text(message.description, f"{path}.description", PROSE_LENGTH_MAX),
    )


def price_message(found: Price) -> catalog_pb2.Price:
    """Return the price as a message."""
    return catalog_pb2.Price(
        price_id=found.price_id,
        model=_MODELS[found.model],
        meter=found.meter,
        amount=_plain(found.amount),
        in_credits=found.in_credits,
        size=found.size if found.model in PRICE_SUITS["size"] else 0,
        percent=_plain(found.percent),
        tiers=[
            catalog_pb2.PriceTier(
                up_to=each.up_to or 0, amount=_plain(each.amount), flat=_plain(each.flat)
            )
            for each in found.tiers
        ],
        included=found.included,
        above=found.above,
        minimum=_plain(found.minimum),
        discount=_steps(found.discount),
        where={key: catalog_pb2.DimensionValues(values=values) for key, values in found.where},
        per=found.per,
        currency=found.currency,
        rounding=_ROUNDINGS[found.rounding] if found.rounding else catalog_pb2.ROUNDING_UNSPECIFIED,
        round_per=_ROUND_PER[found.round_per],
        pay=_PAY[found.pay],
        whole=not found.prorate,
        description=found.description,
    )


def terms(message: catalog_pb2.Terms, path: str) -> Terms:
    """Return the terms. Raises `InvalidField`."""
    credit = None
    if message.HasField("credit"):
        amount = _decimal(message.credit.price, f"{path}.credit.price")
        balance = text(message.credit.balance, f"{path}.credit.balance")
        credit = CreditTerms(amount, LimitId(balance))
    return Terms(
        currency=message.currency or TERMS.currency,
        minimum=_decimal(message.minimum, f"{path}.minimum"),
        discount=_discount(message.discount, f"{path}.discount"),
        credit=credit,
        exchange_at=_value(_EXCHANGE_AT, message.exchange_at, f"{path}.exchange_at", optional=True)
        or TERMS.exchange_at,
        rounding=_rounding(message.rounding, f"{path}.rounding") or TERMS.rounding,
    )


def terms_message(found: Terms) -> catalog_pb2.Terms:
    """Return the terms as a message."""
    message = catalog_pb2.Terms(
        currency=found.currency,
        minimum=_plain(found.minimum),
        discount=_steps(found.discount),
        exchange_at=_EXCHANGE_AT[found.exchange_at],
        rounding=_ROUNDINGS[found.rounding],
    )
    if found.credit is not None:
        message.credit.price = format(found.credit.price, "f")
        message.credit.balance = found.credit.balance
    return message


def _where(message: catalog_pb2.Price, path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    found = {
        text(key, path): tuple(
            text(value, f"{path}[{key!r}]") for value in message.where[key].values
        )
        for key in message.where
    }
    return tuple(sorted(found.items()))


def _decimal(value: str, field: str) -> Decimal:
    if not value:
        return ZERO
    if not _DECIMAL.fullmatch(value):
        message = f"must be a decimal such as 0.002, with at most {DECIMALS_MAX} decimals"
        raise InvalidField(message, field=field)
    return Decimal(value)


def _plain(amount: Decimal) -> str:
    return format(amount, "f") if amount else ""


def _discount(steps: Iterable[catalog_pb2.DiscountStep], path: str) -> tuple[DiscountStep, ...]:
    found = [
        DiscountStep(
            _decimal(each.start, f"{path}[{index}].start"),
            _decimal(each.percent, f"{path}[{index}].percent"),
        )
        for index, each in enumerate(steps)
    ]
    return tuple(sorted(found, key=lambda step: step.start))


def _steps(found: Iterable[DiscountStep]) -> list[catalog_pb2.DiscountStep]:
    return [
        catalog_pb2.DiscountStep(start=_plain(each.start), percent=format(each.percent, "f"))
        for each in found
    ]


def _rounding(number: int, field: str) -> Rounding | None:
    return _value(_ROUNDINGS, number, field, optional=True)


def _value(
    known: Mapping[Value, int], number: int, field: str, *, optional: bool = False
) -> Value | None:
    """Return what a number stands for; None for 0 where it may be left out."""
    if optional and not number:
        return None
    for value, each in known.items():
        if each == number:
            return value
    raise InvalidField(f"must be one of {', '.join(known)}", field=field)
