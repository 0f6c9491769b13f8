"""A tenant's billing as a message, and back.

Guarantees: what converts is well-formed; whether it holds is for the catalog's rules to tell.
Refuses to know: whose it is.
"""

from typing import Final

from tallygate.api.convert_times import duration_us, instant_us
from tallygate.domain.errors import InvalidField
from tallygate.domain.window import DAY_US, Billing, BillingKind
from tallygate.gen.v1 import billing_pb2, catalog_pb2

_KINDS: Final = {
    billing_pb2.BILLING_KIND_UNSPECIFIED: BillingKind.ANNIVERSARY,
    billing_pb2.BILLING_KIND_ANNIVERSARY: BillingKind.ANNIVERSARY,
    billing_pb2.BILLING_KIND_MONTH: BillingKind.MONTH,
    billing_pb2.BILLING_KIND_EVERY: BillingKind.EVERY,
    billing_pb2.BILLING_KIND_STARTS: BillingKind.STARTS,
}
_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}


def billing(message: catalog_pb2.Tenant) -> Billing | None:
    """Return a tenant's billing, None where nothing is said. Raises `InvalidField`."""
    if not message.HasField("billing"):
        return None
    found, path = message.billing, "tenant.billing"
    if found.kind not in _KINDS:
        raise InvalidField(f"must be one of {', '.join(BillingKind)}", field=f"{path}.kind")
    return Billing(
        _KINDS[found.kind],
        duration_us(found.every, f"{path}.every") if found.HasField("every") else 0,
        tuple(
            instant_us(start, f"{path}.starts[{place}]", -DAY_US)
            for place, start in enumerate(found.starts)
        ),
        duration_us(found.grace, f"{path}.grace") if found.HasField("grace") else 0,
    )


def billing_message(found: Billing) -> billing_pb2.Billing:
    """Return the billing as a message."""
    message = billing_pb2.Billing(kind=_NUMBERS[found.kind])
    if found.every_us:
        message.every.FromMicroseconds(found.every_us)
    if found.grace_us:
        message.grace.FromMicroseconds(found.grace_us)
    for start_us in found.starts_us:
        message.starts.add().FromMicroseconds(start_us)
    return message
