"""The part of the AdminService that is about invoices.

Guarantees: a preview writes nothing; what was issued comes as the bytes that its hash is of.
Refuses to know: rules, storage, and how errors are told.
"""

from typing import Any, Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tallygate.api import convert_times as times
from tallygate.api.paging import decoded, encoded, foreign_token, page_size
from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.invoice_document import to_bytes
from tallygate.domain.window import MINUTE_US, Window
from tallygate.flow.invoice import Invoicing
from tallygate.gen.v1 import admin_pb2_grpc, invoice_pb2
from tallygate.ports.billing import InvoiceSummary, StoredInvoice

Context = grpc.aio.ServicerContext

INVOICES_PAGE_MAX: Final = 1_000
# East of Greenwich, a first period begins before the epoch.
START_US_MIN: Final = -(2**53)


class InvoiceCalls(admin_pb2_grpc.AdminServiceServicer):
    """Converts, reads or works out, converts back."""

    _invoicing: Invoicing

    async def ListInvoices(  # noqa: N802  the name is the proto's
        self, request: invoice_pb2.ListInvoicesRequest, context: "Context[Any, Any]"
    ) -> invoice_pb2.ListInvoicesResponse:
        """List issued invoices, the newest first, a page at a time."""
        count = page_size(request.page_size, INVOICES_PAGE_MAX)
        tenant_id = ids.tenant_id(request.tenant_id) if request.tenant_id else None
        before = _number(decoded(request.page_token, 1))
        found = await self._invoicing.issued(tenant_id, before, count + 1)
        page = found[:count]
        token = encoded([page[-1].number]) if len(found) > count else ""
        return invoice_pb2.ListInvoicesResponse(
            invoices=[_listed(each) for each in page], next_page_token=token
        )

    async def GetInvoice(  # noqa: N802
        self, request: invoice_pb2.GetInvoiceRequest, context: "Context[Any, Any]"
    ) -> invoice_pb2.GetInvoiceResponse:
        """Read an issued invoice, and where late usage of its period is billed."""
        tenant_id = ids.tenant_id(request.tenant_id)
        if not request.HasField("start"):
            raise InvalidField("is required", field="start")
        if request.revision < 0:
            raise InvalidField("must not be below 0", field="revision")
        start_us = times.instant_us(request.start, "start", START_US_MIN)
        # A period is found by its start; how long it is, the invoice says.
        window = Window(start_us, start_us + MINUTE_US)
        stored = await self._invoicing.stored(tenant_id, window, request.revision)
        response = invoice_pb2.GetInvoiceResponse(
            invoice=_stored(stored), document=to_bytes(stored.invoice)
        )
        for each in await self._invoicing.shares(tenant_id, stored.invoice.period):
            response.late_usage.add(
                billed_start=_instant(each.billed_us),
                events=each.events,
                invoice=each.invoice,
                revision=each.revision,
                amount=format(each.amount, "f"),
                currency=each.currency,
            )
        return response

    async def PreviewInvoice(  # noqa: N802
        self, request: invoice_pb2.PreviewInvoiceRequest, context: "Context[Any, Any]"
    ) -> invoice_pb2.PreviewInvoiceResponse:
        """Work out what a tenant owes for a billing period as of now."""
        tenant_id = ids.tenant_id(request.tenant_id)
        period = await self._invoicing.current(tenant_id)
        if request.HasField("at"):
            at_us = times.instant_us(request.at, "at", START_US_MIN)
            period = await self._invoicing.period(tenant_id, at_us)
        invoice = await self._invoicing.preview(tenant_id, period)
        return invoice_pb2.PreviewInvoiceResponse(document=to_bytes(invoice))


def _listed(each: InvoiceSummary) -> invoice_pb2.IssuedInvoice:
    return invoice_pb2.IssuedInvoice(
        number=each.number,
        tenant_id=each.tenant_id,
        start=_instant(each.period.start_us),
        end=_instant(each.period.end_us),
        revision=each.revision,
        currency=each.currency,
        total=format(each.total, "f"),
        sha256=each.sha256.hex(),
        reason=each.reason,
        actor=each.actor,
        issued_at=_instant(each.created_at_us),
    )


def _stored(stored: StoredInvoice) -> invoice_pb2.IssuedInvoice:
    invoice = stored.invoice
    return _listed(
        InvoiceSummary(
            *(0, invoice.tenant_id, invoice.period, stored.revision, invoice.currency),
            *(invoice.total, stored.sha256, stored.reason, stored.actor, stored.created_at_us),
        )
    )


def _instant(instant_us: int) -> Timestamp:
    found = Timestamp()
    found.FromMicroseconds(instant_us)
    return found


def _number(position: list[object]) -> int:
    """Return the number that a page token names, 0 for none."""
    if not position:
        return 0
    (number,) = position
    if type(number) is not int or not 0 < number <= ids.AMOUNT_MAX:
        raise foreign_token()
    return number
