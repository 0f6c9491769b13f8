"""The meters of an account at Stripe: the `StripeMeters` port.

Guarantees: a meter that is asked for twice is made once; nothing that was made is deleted.
Refuses to know: catalogs.
"""

import hashlib
from typing import Final

import stripe

from tallygate.adapters.stripe.answers import failed
from tallygate.adapters.stripe.client import Client
from tallygate.domain.stripe_meters import AccountMeter

PAGE: Final = 100


class StripeAccountMeters:
    """The `StripeMeters` port over Stripe's client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def meters(self) -> list[AccountMeter]:
        """Return all of them, also those that are not active."""
        try:
            found = await self._client.stripe().v1.billing.meters.list_async(
                {"limit": PAGE}, self._client.calling()
            )
            return [_meter(each) async for each in found.auto_paging_iter()]
        # The client raises whatever its transport does; what it means is told in one place.
        except Exception as error:  # noqa: BLE001
            raise failed(error) from None

    async def create_meter(self, wanted: AccountMeter) -> str:
        """Make a meter, once however often it is asked for alike; return its id."""
        spelled = repr((wanted.event_name, wanted.display_name, wanted.formula, wanted.window))
        key = f"tallygate-meter-{hashlib.sha256(spelled.encode()).hexdigest()[:40]}"
        asked: stripe.params.billing.MeterCreateParams = {
            "event_name": wanted.event_name,
            "display_name": wanted.display_name,
            "default_aggregation": {"formula": "sum" if wanted.formula == "sum" else "count"},
            "customer_mapping": {"type": "by_id", "event_payload_key": wanted.customer_key},
            "value_settings": {"event_payload_key": wanted.value_key},
        }
        if wanted.window:
            asked["event_time_window"] = "hour" if wanted.window == "hour" else "day"
        try:
            made = await self._client.stripe().v1.billing.meters.create_async(
                asked, self._client.calling(key)
            )
        except Exception as error:  # noqa: BLE001  see `meters`
            raise failed(error) from None
        return str(made.id)

    async def rename_meter(self, meter_id: str, display_name: str) -> None:
        """Give a meter another name for people."""
        try:
            await self._client.stripe().v1.billing.meters.update_async(
                meter_id, {"display_name": display_name}, self._client.calling()
            )
        except Exception as error:  # noqa: BLE001  see `meters`
            raise failed(error) from None

    async def reactivate_meter(self, meter_id: str) -> None:
        """Have a meter take events again."""
        try:
            await self._client.stripe().v1.billing.meters.reactivate_async(
                meter_id, options=self._client.calling()
            )
        except Exception as error:  # noqa: BLE001  see `meters`
            raise failed(error) from None


def _meter(found: stripe.billing.Meter) -> AccountMeter:
    return AccountMeter(
        meter_id=found.id,
        event_name=found.event_name,
        display_name=found.display_name,
        formula=found.default_aggregation.formula,
        window=found.event_time_window or "",
        customer_key=found.customer_mapping.event_payload_key,
        value_key=found.value_settings.event_payload_key,
        active=found.status == "active",
    )
