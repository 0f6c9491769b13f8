"""closed periods ─▶ [ issue_invoices ] ─▶ invoices · outbox: what is closed is billed.

If we die here before an invoice is written, its period is found again once the lease is over. If we
die after it, the period is found again, and its invoice says what it would say.

Guarantees: a tenant's periods are invoiced in their order, so that credits are burned in it; one
that cannot be invoiced holds that tenant's alone, is told once, and is tried again; what a hand has
issued is not issued again.
Refuses to know: SQL, how an invoice is worked out, and who is alarmed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import NotFound, TallygateError, TooManyItems
from tallygate.domain.ids import TenantId
from tallygate.domain.reconcile import Step
from tallygate.domain.trail import TrailEntry
from tallygate.domain.window import MINUTE_US, Calendar, Window
from tallygate.flow.invoice import Invoicing
from tallygate.flow.reconcile import PLANLESS, Reconcile
from tallygate.flow.trail import Trail
from tallygate.ports import Clock
from tallygate.ports.invoice_due import DueCount, DueInvoice, Hold, InvoiceQueue, Withheld
from tallygate.ports.rebuild import Declared
from tallygate.ports.reconcile import PeriodAsked

# One after the other; some milliseconds each, or a reading of the period's events.
CLAIM_MAX: Final = 20
# Far above what all of them take: whoever takes over while we live does what we do.
LEASE_US: Final = 15 * MINUTE_US
# A missing rate is there within the hour that somebody writes it in.
RETRY_MIN_US: Final = MINUTE_US
RETRY_MAX_US: Final = 60 * MINUTE_US
DOUBLINGS_MAX: Final = 6
COUNT_EVERY_S: Final = 15.0
ACTOR: Final = "control"
INVOICED: Final = frozenset({Step.LEDGER, Step.ROLLUP, Step.FROZEN})
DETAIL_LENGTH_MAX: Final = 500


class Drifts(Protocol):
    """Says what speaks against invoicing a period."""

    async def drifts(self, tenant_id: TenantId, period: Window) -> Sequence[str]:
        """Return what does not have what the ledger has, in words; nothing where all has."""
        ...


class ReconciledFirst:
    """The `Drifts` of reconciliation, at the steps that an invoice is made of.

    What Stripe was not told, or a counter has too many, is no reason not to invoice the ledger.
    """

    def __init__(self, reconcile: Reconcile, declared: Declared) -> None:
        self._reconcile = reconcile
        self._declared = declared

    async def drifts(self, tenant_id: TenantId, period: Window) -> Sequence[str]:
        """Return which steps drift, by how much."""
        known = await self._declared.tenants_named([tenant_id])
        tenant = known.get(tenant_id) or Tenant(tenant_id, PLANLESS, Calendar())
        return [
            f"{drift.step.value} {drift.name} of {result.pair.meter}: {drift.units}"
            for result in await self._reconcile.of([PeriodAsked(tenant, period)])
            for drift in result.found
            if drift.step in INVOICED
        ]


class IssuingObserver(Protocol):
    """What issuing tells of itself."""

    def issued(self, revision: int) -> None:
        """A revision of an invoice was written."""

    def withheld(self, reason: str) -> None:
        """A period is newly not invoiced."""

    def counted(self, counts: Sequence[DueCount], now_us: int) -> None:
        """So many periods are to be invoiced."""


class SilentIssuing:
    """Hears nothing."""

    def issued(self, revision: int) -> None:
        """Ignore it."""

    def withheld(self, reason: str) -> None:
        """Ignore it."""

    def counted(self, counts: Sequence[DueCount], now_us: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class IssuingParts:
    """What issuing works with; without `drifts`, nothing is reconciled before."""

    queue: InvoiceQueue
    invoicing: Invoicing
    trail: Trail
    clock: Clock
    drifts: Drifts | None = None
    observer: IssuingObserver = field(default_factory=SilentIssuing)


@dataclass(frozen=True, slots=True)
class IssuedCounts:
    """What one run did: invoices written, periods without any to write, and those not invoiced."""

    issued: int = 0
    without: int = 0
    withheld: int = 0
    more: bool = False


class IssueInvoices:
    """Issues the invoices of periods as they are closed, some in each run."""

    def __init__(self, parts: IssuingParts) -> None:
        self._parts = parts
        self._count_at = float("-inf")

    async def run_once(self) -> IssuedCounts:
        """Issue what is due. Raises the first failure that will pass, after all others."""
        parts, now_us = self._parts, self._parts.clock.now_us()
        issued = without = withheld = 0
        failure: TallygateError | None = None
        due = await parts.queue.claim(now_us, CLAIM_MAX, LEASE_US)
        for each in due:
            try:
                written = await self._one(each)
            except TallygateError as error:
                # What passes by itself is found again once the lease is over.
                if error.transient:
                    failure = failure or error
                else:
                    await self._hold(each, *_withheld(error))
                    withheld += 1
                continue
            issued += written is True
            without += written is False
            withheld += written is None
        if parts.clock.monotonic() >= self._count_at:
            self._count_at = parts.clock.monotonic() + COUNT_EVERY_S
            parts.observer.counted(await parts.queue.counts(), now_us)
        if failure is not None:
            raise failure
        return IssuedCounts(issued, without, withheld, more=bool(issued or without))

    async def _one(self, due: DueInvoice) -> bool | None:
        """Issue one; say whether anything was written, None where it is held."""
        parts = self._parts
        wanted = await parts.invoicing.wanted(due.tenant_id, due.period)
        newest = await parts.invoicing.newest(due.tenant_id, due.period)
        if wanted is None or (newest is not None and newest.invoice == wanted):
            await parts.queue.done(due)
            return False
        if parts.drifts is not None:
            found = await parts.drifts.drifts(due.tenant_id, due.period)
            if found:
                await self._hold(due, Withheld.DRIFT, "; ".join(found))
                return None
        reason = f"revision {due.revision} of the period was closed"
        async with parts.trail.change(_entry(due, reason)):
            stored = await parts.invoicing.issue(
                due.tenant_id, due.period, reason=reason, actor=ACTOR
            )
        await parts.queue.done(due)
        parts.observer.issued(stored.revision)
        return True

    async def _hold(self, due: DueInvoice, reason: Withheld, detail: str) -> None:
        now_us = self._parts.clock.now_us()
        wait_us = RETRY_MIN_US << min(max(due.attempts - 1, 0), DOUBLINGS_MAX)
        hold = Hold(reason, detail[:DETAIL_LENGTH_MAX], now_us + min(wait_us, RETRY_MAX_US))
        if await self._parts.queue.hold(due, hold, now_us):
            self._parts.observer.withheld(reason)


def _withheld(error: TallygateError) -> tuple[Withheld, str]:
    detail = f"{error.field}: {error.message}" if error.field else error.message
    if isinstance(error, NotFound) and error.field == "exchange_rate":
        return Withheld.EXCHANGE_RATE, detail
    if isinstance(error, TooManyItems):
        return Withheld.TOO_LARGE, detail
    return Withheld.FAILED, detail


def _entry(due: DueInvoice, reason: str) -> TrailEntry:
    """Return what the audit log is to have of it, as of a call or a command."""
    request = {
        "period_start_us": due.period.start_us,
        "period_end_us": due.period.end_us,
        "reason": reason,
    }
    text = json.dumps(request, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return TrailEntry(
        ACTOR, "control", "IssueInvoice", due.tenant_id, request=text, request_sha256=digest
    )
