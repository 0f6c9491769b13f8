"""Lines of issued invoices as items of Stripe's: what a revision adds to those before it.

Guarantees: the items of all revisions of an invoice add up to its newest one, line by line; the
same revision makes the same items, whoever works them out. Amounts are exact, or refused.
Refuses to know: which revisions were told, and how items are sent.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from tallygate.domain.currency import minor_units
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.invoice import Invoice, InvoiceLine
from tallygate.domain.invoice_words import group, title
from tallygate.domain.price import NO_METER
from tallygate.domain.stripe_intent import ChargeLine, Intent, item_for
from tallygate.domain.window import Window

# Where Stripe's smallest unit is not that of ISO 4217, for it has kept what was.
_MINOR_UNITS: Final = {"ISK": 2, "MGA": 0, "UGX": 2}
# Stripe cuts longer ones.
DESCRIPTION_LENGTH_MAX: Final = 250

LineId = tuple[str, str]
"""What tells a line of a period apart over all revisions of its invoice, and its currency."""


@dataclass(frozen=True, slots=True)
class Itemized:
    """Which lines are items of an account: those for these meters, and with `fees` of no meter."""

    meters: frozenset[MeterName]
    fees: bool = False


@dataclass(slots=True)
class _Line:
    """Lines of one identity, added up: what was paid ahead and is given back, is one."""

    meter: MeterName
    segment: Window
    description: str
    amount: Decimal


def smallest(amount: Decimal, currency: str) -> int:
    """Return an amount in the unit that Stripe counts a currency in. Raises `InvalidField`."""
    scaled = amount.scaleb(minor_units_of(currency))
    if scaled != scaled.to_integral_value():
        raise InvalidField(f"{amount} {currency} has no whole number of units", field="amount")
    return int(scaled)


def minor_units_of(currency: str) -> int:
    """Return how many decimals the unit leaves that Stripe counts a currency in."""
    return _MINOR_UNITS.get(currency, minor_units(currency))


def items_of(
    invoice: Invoice, revision: int, which: Itemized, told: Mapping[LineId, int]
) -> Iterator[ChargeLine]:
    """Iterate over what a revision adds to what was `told` of those before, in smallest units.

    Raises `InvalidField` for an amount that Stripe has no unit for.
    """
    lines = _lines(invoice, which)
    for key in sorted({*lines, *told}):
        line_id, currency = key
        line = lines.get(key)
        # A line that is gone is taken back as far as it was told.
        amount = 0 if line is None else smallest(line.amount, currency)
        more = amount - told.get(key, 0)
        if not more:
            continue
        segment = invoice.period if line is None else line.segment
        words = "no longer due" if line is None else line.description
        suffix = f" (changed by revision {revision})" if key in told else ""
        yield ChargeLine(
            tenant_id=invoice.tenant_id,
            line_id=line_id,
            meter=meter_of(line_id) if line is None else line.meter,
            amount=more,
            currency=currency,
            description=f"{words[: DESCRIPTION_LENGTH_MAX - len(suffix)]}{suffix}",
            from_us=segment.start_us,
            to_us=segment.end_us,
        )


def item_intent(
    destination: str, customer: str, line: ChargeLine, invoice: Invoice, revision: int
) -> Intent:
    """Return the intent of an item: one for each invoice, line and revision."""
    made = item_for(
        destination,
        customer,
        replace(line, line_id=item_id(invoice.period.start_us, revision, line.line_id)),
    )
    # By these the revisions after it find what was told.
    lineage = {
        "invoice": str(invoice.period.start_us),
        "revision": str(revision),
        "line": line.line_id,
    }
    return made.with_details(lineage)


def item_id(period_start_us: int, revision: int, line_id: str) -> str:
    """Return what tells an item apart among a tenant's."""
    return f"invoice/{period_start_us}/{revision}/{line_id}"


def meter_of(line_id: str) -> MeterName:
    """Return the meter that a line is for."""
    return MeterName(line_id.partition("/")[0])


def _lines(invoice: Invoice, which: Itemized) -> dict[LineId, _Line]:
    found: dict[LineId, _Line] = {}
    for line in invoice.lines:
        meter = line.selection.meter if line.selection is not None else NO_METER
        if meter not in which.meters and not (meter == NO_METER and which.fees):
            continue
        key = (_line_id(invoice.tenant_id, line, meter), invoice.currency)
        if key in found:
            found[key].amount += line.amount
        else:
            found[key] = _Line(meter, line.segment, _words(line), line.amount)
    return found


def _line_id(tenant_id: TenantId, line: InvoiceLine, meter: MeterName) -> str:
    """Return what a line is, not what it comes to: its place may be another's in a revision."""
    burn = None if line.burn is None else [line.burn.limit_id, line.burn.seq]
    spelled = json.dumps(
        [
            *(tenant_id, line.kind, line.plan, line.price_id, line.segment.start_us),
            *(line.group, burn),
        ]
    )
    return f"{meter}/{hashlib.sha256(spelled.encode()).hexdigest()[:40]}"


def _words(line: InvoiceLine) -> str:
    told = group(line)
    name = title(line) or line.kind.value
    return f"{name} ({told})" if told else name
