"""Invoices over a real channel, as operators and finance meet them."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tallygate.domain.catalog import Aggregation, Catalog, Meter, Tenant
from tallygate.domain.ids import TenantId
from tallygate.domain.invoice import Invoice
from tallygate.domain.invoice_document import from_bytes
from tallygate.domain.window import DAY_US, HOUR_US, Window
from tallygate.gen.v1 import invoice_pb2
from tallygate.ports.billing import Issuing
from tallygate.testing.late_places import LateUsage
from tests.api.control import NOW, Control, controlled
from tests.rating.parts import ACME, CALLS, d, plan, price
from tests.sidecar import failure
from tests.usage_events import event

START = NOW - NOW % DAY_US - 40 * DAY_US
FIRST = Window(START, START + DAY_US)
SECOND = Window(START + DAY_US, START + 2 * DAY_US)


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control where acme has two closed periods, and late usage of the first."""
    async with controlled() as found:
        paid = plan(price(amount=d("2")))
        catalog = Catalog(1, {CALLS: Meter(CALLS, Aggregation.SUM)}, {paid.name: paid})
        found.history.catalogs.append((1, catalog))
        found.history.tenants.append((1, Tenant(ACME, paid.name, currency="EUR")))
        used = event(1, meter=CALLS, event_time_us=START + HOUR_US, amount=3)
        late = event(2, meter=CALLS, event_time_us=START + HOUR_US, amount=4)
        found.billed.stored += [used, late]
        places = found.billed.late
        places.periods = {(ACME, each.start_us): (each, 1) for each in (FIRST, SECOND)}
        places.late = [LateUsage(late, FIRST.start_us, SECOND.start_us, 1)]
        places.issued = lambda: found.invoices.issued
        yield found


async def preview(control: Control, window: Window) -> Invoice:
    """Return what a preview says of a period."""
    request = invoice_pb2.PreviewInvoiceRequest(tenant_id=ACME)
    request.at.FromMicroseconds(window.start_us + HOUR_US)
    return from_bytes((await control.stub.PreviewInvoice(request)).document)


async def issue(control: Control, window: Window) -> None:
    """Issue the invoice of a period as a preview has it."""
    issuing = Issuing(await preview(control, window), "month end", "ada")
    assert await control.invoices.write(issuing, await control.invoices.newest(ACME))


def asked(start_us: int, **fields: Any) -> invoice_pb2.GetInvoiceRequest:
    """Return what asks for the invoice of a period."""
    request = invoice_pb2.GetInvoiceRequest(tenant_id=ACME, **fields)
    request.start.FromMicroseconds(start_us)
    return request


async def test_a_preview_is_of_the_period_as_it_was_closed(control: Control) -> None:
    """What came late is on the later one; nothing is written; without an instant it is of now."""
    first, second = await preview(control, FIRST), await preview(control, SECOND)
    assert (first.period, second.period) == (FIRST, SECOND)
    assert [str(each.total) for each in (first, second)] == ["6.00", "8.00"]
    assert control.invoices.issued == []
    answer = await control.stub.PreviewInvoice(invoice_pb2.PreviewInvoiceRequest(tenant_id=ACME))
    assert json.loads(answer.document)["period"]["end_us"] > NOW
    actions = [row.entry.action for row in control.trail.rows]
    # A read has one entry, a change would have two.
    assert actions.count("PreviewInvoice") == 3


async def test_an_issued_invoice_is_the_bytes_of_its_hash(control: Control) -> None:
    """It says who issued it and why, and which invoice has late usage of its period."""
    await issue(control, FIRST)
    await issue(control, SECOND)
    found = await control.stub.GetInvoice(asked(FIRST.start_us))
    assert hashlib.sha256(found.document).hexdigest() == found.invoice.sha256
    assert (found.invoice.total, found.invoice.revision) == ("6.00", 1)
    assert (found.invoice.actor, found.invoice.reason) == ("ada", "month end")
    assert found.invoice.end.ToMicroseconds() == FIRST.end_us
    (share,) = found.late_usage
    assert share.billed_start.ToMicroseconds() == SECOND.start_us
    assert (share.events, share.invoice, share.amount) == (1, 2, "8.00")


async def test_invoices_are_listed_in_pages(control: Control) -> None:
    """The newest first; the last page has no token; a tenant may have none."""
    await issue(control, FIRST)
    await issue(control, SECOND)
    request = invoice_pb2.ListInvoicesRequest(page_size=1)
    page = await control.stub.ListInvoices(request)
    assert [each.number for each in page.invoices] == [2]
    request.page_token = page.next_page_token
    page = await control.stub.ListInvoices(request)
    assert ([each.number for each in page.invoices], page.next_page_token) == ([1], "")
    other = invoice_pb2.ListInvoicesRequest(tenant_id=TenantId("other"))
    assert not (await control.stub.ListInvoices(other)).invoices


async def test_what_is_wrong_is_named(control: Control) -> None:
    """The field that is wrong is told, and what does not exist is not found."""
    for request, code, field in (
        (invoice_pb2.GetInvoiceRequest(tenant_id=ACME), "INVALID_ARGUMENT", ["start"]),
        (asked(FIRST.start_us, revision=-1), "INVALID_ARGUMENT", ["revision"]),
        (asked(FIRST.start_us), "NOT_FOUND", ["period"]),
        (invoice_pb2.ListInvoicesRequest(page_size=-1), "INVALID_ARGUMENT", ["page_size"]),
        (invoice_pb2.ListInvoicesRequest(page_token="WzBd"), "INVALID_ARGUMENT", ["page_token"]),
        (invoice_pb2.PreviewInvoiceRequest(), "INVALID_ARGUMENT", ["tenant_id"]),
    ):
        found = await failure(control.call(request))
        assert (found.code.name, found.fields) == (code, field), request
