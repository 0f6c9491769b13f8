"""Reports of errors, as Stripe's signed thin events bring them: the `StripeReports` port.

Guarantees: nothing is read of a body whose signature is wrong or older than five minutes; what a
report says is fetched from Stripe, not taken from the body.
Refuses to know: HTTP servers, and which sends a report is about.
"""

from collections.abc import Iterator
from typing import Final

import stripe
from stripe import StripeObject
from stripe.events import (
    V1BillingMeterErrorReportTriggeredEvent,
    V1BillingMeterNoMeterFoundEvent,
)

from tallygate.adapters.stripe.answers import answer_of, reason_of
from tallygate.adapters.stripe.client import Client
from tallygate.adapters.stripe.secrets import Keys
from tallygate.ports.stripe import ErrorReport, NotSigned, StripeSilent
from tallygate.ports.stripe_store import ReportedError

TOLERANCE_S: Final = 300
# A report has ten samples of each kind; one with more than this is not worked off whole.
ERRORS_MAX: Final = 10_000

_KINDS: Final = (
    V1BillingMeterErrorReportTriggeredEvent.LOOKUP_TYPE,
    V1BillingMeterNoMeterFoundEvent.LOOKUP_TYPE,
)


class StripeErrorReports:
    """The `StripeReports` port over Stripe's client."""

    def __init__(self, client: Client, secrets: Keys) -> None:
        self._client = client
        self._secrets = secrets

    async def read(self, body: bytes, signature: str) -> ErrorReport | None:
        """Return what a notice leads to, None for one that is about something else."""
        client = self._client.stripe()
        try:
            text = body.decode()
            stripe.WebhookSignature.verify_header(text, signature, self._secrets(), TOLERANCE_S)
            notice = client.parse_event_notification_without_verification(text)
        except stripe.SignatureVerificationError:
            raise NotSigned(field="stripe-signature") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotSigned("is not an event", field="body") from None
        if notice.type not in _KINDS:
            return None
        try:
            event = await client.v2.core.events.retrieve_async(
                notice.id, options=self._client.calling()
            )
        # The client raises whatever its transport does; it is asked again for the same event.
        except Exception as error:  # noqa: BLE001
            said = reason_of(error) if isinstance(error, stripe.StripeError) else ""
            raise StripeSilent(said or answer_of(error).reason or "no answer") from None
        if not isinstance(
            event, V1BillingMeterErrorReportTriggeredEvent | V1BillingMeterNoMeterFoundEvent
        ):
            return None
        return _report(event)


def _report(
    event: V1BillingMeterErrorReportTriggeredEvent | V1BillingMeterNoMeterFoundEvent,
) -> ErrorReport:
    reason = event.data.reason
    codes = {str(kind.code): int(kind.error_count) for kind in reason.error_types}
    return ErrorReport(
        event_id=event.id,
        errors=tuple(_errors(event))[:ERRORS_MAX],
        total=int(reason.error_count),
        codes=codes,
    )


def _errors(
    event: V1BillingMeterErrorReportTriggeredEvent | V1BillingMeterNoMeterFoundEvent,
) -> Iterator[ReportedError]:
    for kind in event.data.reason.error_types:
        for sample in kind.sample_errors:
            key = _key(sample.request)
            if key:
                yield ReportedError(key, str(kind.code), str(sample.error_message)[:500])


def _key(request: StripeObject) -> str:
    # An older form of the same report names it otherwise.
    for name in ("identifier", "idempotency_key"):
        found = request.to_dict().get(name)
        if found:
            return str(found)
    return ""
