"""A tenant's `billing`: what it says, what is wrong with it, and its way through every form."""

import pytest

from tallygate.adapters.catalog_codec import tenant_from_json, tenant_to_json
from tallygate.api import convert_catalog as convert
from tallygate.domain.errors import InvalidField
from tallygate.domain.window import DAY_US, HOUR_US, Billing, BillingKind
from tallygate.gen.v1 import catalog_pb2
from tests.catalog.documents import GOOD, changed, faults
from tests.catalog.test_document import ACME, tenants
from tests.domain.test_window_cases import at

ANCHOR = "    anchor: 2024-01-31\n"
PATH = "tenants.acme.billing"
SAID = [
    ("{}", Billing()),
    ("{period: month}", Billing(BillingKind.MONTH)),
    ("{period: anniversary, grace: 6h}", Billing(grace_us=6 * HOUR_US)),
    ("{period: {every: 7d}}", Billing(BillingKind.EVERY, 7 * DAY_US)),
    (
        "{period: {starts: [2026-01-01, 2026-04-06T12:00:00Z]}, grace: 2d}",
        Billing(
            BillingKind.STARTS,
            starts_us=(at("2025-12-31T23:00"), at("2026-04-06T12:00")),
            grace_us=2 * DAY_US,
        ),
    ),
]
WRONG = [
    ("{period: monthly}", "period", "must be one of", "month"),
    ("{period: every}", "period", "must say what", ""),
    ("{period: {}}", "period", "one of every, starts", ""),
    ("{period: {every: 7d, starts: [2026-01-01]}}", "period", "one of every, starts", ""),
    ("{period: {evry: 7d}}", "period.evry", "there is no", "every"),
    ("{period: {every: 59m}}", "period.every", "from 1h to 3660d", ""),
    ("{period: {every: 3601s}}", "period.every", "whole minutes", ""),
    ("{period: {starts: []}}", "period.starts", "at least one", ""),
    ("{period: {starts: [2026-01-01T00:00:01]}}", "period.starts[0]", "a whole minute", ""),
    ("{period: {starts: [2026-01-02, 2026-01-01]}}", "period.starts[1]", "an hour later", ""),
    ("{period: {starts: [soon]}}", "period.starts[0]", "ISO 8601", ""),
    ("{grace: 0h}", "grace", "above 0", ""),
    ("{grace: 367d}", "grace", "at most 366d", ""),
    ("{grace: 90s}", "grace", "whole minutes", ""),
    ("{garce: 1d}", "garce", "there is no", "grace"),
]


def with_billing(text: str) -> str:
    """Return the good document with a billing of acme's."""
    return changed(ANCHOR, f"{ANCHOR}    billing: {text}\n")


@pytest.mark.parametrize(("text", "expected"), SAID)
def test_what_is_said_is_kept(text: str, expected: Billing) -> None:
    """It is read as written, and survives what sidecars read and what messages carry."""
    acme = tenants(with_billing(text))[ACME]
    assert acme.calendar.billing == expected
    assert tenant_from_json(tenant_to_json(acme)) == acme
    wire = convert.tenant_message(acme).SerializeToString()
    assert convert.tenant(catalog_pb2.Tenant.FromString(wire)) == acme


def test_nothing_said_is_as_it_was() -> None:
    """Without billing, a tenant is written as versions wrote it that know of none."""
    acme = tenants(GOOD)[ACME]
    assert acme.calendar.billing is None
    assert b"billing" not in tenant_to_json(acme)


@pytest.mark.parametrize(("text", "path", "message", "suggestion"), WRONG)
def test_what_is_wrong_is_named(text: str, path: str, message: str, suggestion: str) -> None:
    """Each fault has its path, and a misspelt word a guess."""
    (fault,) = faults(with_billing(text))
    assert fault.path == f"{PATH}.{path}"
    assert message in fault.message
    assert fault.suggestion == suggestion


def test_anchors_are_whole_minutes() -> None:
    """An anchor with seconds is refused; one that is whole by a zone's old clock is not."""
    (fault,) = faults(changed("2024-01-31", "2024-01-31T05:30:10"))
    assert (fault.path, "whole minute" in fault.message) == ("tenants.acme.anchor", True)
    # Until 1972, Monrovia's clocks were 44 minutes and 30 seconds behind.
    odd = changed(ANCHOR, "").replace("Europe/Berlin", "Africa/Monrovia")
    assert tenants(odd)[ACME].calendar.anchor_us % 60_000_000


def test_unknown_kinds_are_refused() -> None:
    """A number that no kind has is named."""
    message = catalog_pb2.Tenant(tenant_id="acme", plan="pro")
    message.billing.kind = 77  # type: ignore[assignment]  # what a newer client may send
    with pytest.raises(InvalidField) as raised:
        convert.tenant(message)
    assert raised.value.field == "tenant.billing.kind"
