"""The prices of an account at Stripe: the `StripePrices` port.

Guarantees: a price that is asked for twice is made once; amounts are exact decimals; nothing that
was made is changed but for its lookup key, and nothing is deleted.
Refuses to know: catalogs.
"""

import hashlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Literal, cast

import stripe

from tallygate.adapters.stripe.answers import failed
from tallygate.adapters.stripe.client import Client
from tallygate.domain.stripe_prices import AccountPrice, AccountTier
from tallygate.ports.stripe import StripeRefused

PAGE: Final = 100
# As many lookup keys as one request may name.
KEYS_MAX: Final = 10
# In metadata, so that people see where a price is from.
MADE_BY: Final = "tallygate"

Params = stripe.params.PriceCreateParams


class StripeAccountPrices:
    """The `StripePrices` port over Stripe's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def prices(self, lookup_keys: Sequence[str]) -> list[AccountPrice]:
        """Return those that are active under these keys."""
        names = {each.id: each.event_name for each in await self._meters()}
        found: list[AccountPrice] = []
        try:
            for at in range(0, len(lookup_keys), KEYS_MAX):
                page = await self._client.stripe().v1.prices.list_async(
                    {
                        "lookup_keys": list(lookup_keys[at : at + KEYS_MAX]),
                        "active": True,
                        "limit": PAGE,
                        "expand": ["data.tiers"],
                    },
                    self._client.calling(),
                )
                found += [_price(each, names) for each in page.data]
        # The client raises whatever its transport does; what it means is told in one place.
        except Exception as error:  # noqa: BLE001
            raise failed(error) from None
        return found

    async def create_price(self, wanted: AccountPrice) -> str:
        """Make a price that has its lookup key from then on, once for all alike; return its id."""
        asked = _params(wanted, await self._meter_id(wanted.event_name))
        # The price before is part of it, so that one which is wanted again is made again.
        key = f"tallygate-price-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:40]}"
        try:
            made = await self._client.stripe().v1.prices.create_async(
                asked, self._client.calling(key)
            )
        except Exception as error:  # noqa: BLE001  see `prices`
            raise failed(error) from None
        return str(made.id)

    async def _meter_id(self, event_name: str) -> str:
        """Return the active meter of an event name, none for none."""
        if not event_name:
            return ""
        for each in await self._meters():
            if each.event_name == event_name and each.status == "active":
                return each.id
        raise StripeRefused(f"Stripe has no active meter for events named {event_name}")

    async def _meters(self) -> list[stripe.billing.Meter]:
        try:
            found = await self._client.stripe().v1.billing.meters.list_async(
                {"limit": PAGE}, self._client.calling()
            )
            return [each async for each in found.auto_paging_iter()]
        except Exception as error:  # noqa: BLE001  see `prices`
            raise failed(error) from None


def _params(wanted: AccountPrice, meter_id: str) -> Params:
    asked: Params = {
        "currency": wanted.currency,
        "product_data": {"name": wanted.name},
        "lookup_key": wanted.lookup_key,
        "transfer_lookup_key": True,
        "recurring": {"interval": "month"},
        "metadata": {"made_by": MADE_BY},
    }
    if meter_id:
        asked["recurring"] = {"interval": "month", "usage_type": "metered", "meter": meter_id}
    if wanted.unit is not None:
        asked["unit_amount_decimal"] = _plain(wanted.unit)
        if wanted.divide_by:
            asked["transform_quantity"] = {"divide_by": wanted.divide_by, "round": "up"}
        return asked
    asked["billing_scheme"] = "tiered"
    asked["tiers_mode"] = cast('Literal["graduated", "volume"]', wanted.mode)
    asked["tiers"] = [
        {
            "up_to": "inf" if tier.up_to is None else tier.up_to,
            "unit_amount_decimal": _plain(tier.unit),
            "flat_amount_decimal": _plain(tier.flat),
        }
        for tier in wanted.tiers
    ]
    return asked


def _plain(amount: Decimal) -> Decimal:
    # The client would spell a small or round one with an exponent, which Stripe does not read.
    return cast("Decimal", format(amount, "f"))


def _price(found: stripe.Price, names: dict[str, str]) -> AccountPrice:
    recurring, divided = found.recurring, found.transform_quantity
    meter_id = recurring.meter if recurring is not None else None
    interval = "none"
    if recurring is not None:
        count = recurring.interval_count
        interval = recurring.interval if count == 1 else f"{count} {recurring.interval}s"
    down = divided is not None and divided.round != "up"
    return AccountPrice(
        lookup_key=found.lookup_key or "",
        name="",
        currency=found.currency,
        # Of one event name there is one meter for ever, active or not.
        event_name=names.get(meter_id, meter_id) if meter_id else "",
        unit=found.unit_amount_decimal,
        # One that rounds down is no package of ours, whatever its size.
        divide_by=-1 if down else (divided.divide_by if divided is not None else 0),
        mode=found.tiers_mode or "",
        tiers=tuple(_tier(each) for each in found.to_dict().get("tiers") or ()),
        interval=interval,
        price_id=found.id,
    )


def _tier(found: dict[str, object]) -> AccountTier:
    bound = found.get("up_to")
    return AccountTier(
        None if bound is None else int(str(bound)),
        Decimal(str(found.get("unit_amount_decimal") or 0)),
        Decimal(str(found.get("flat_amount_decimal") or 0)),
    )
