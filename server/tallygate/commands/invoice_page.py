"""An invoice as one HTML page that needs nothing beside it.

Guarantees: whatever a catalog or an event says is text on the page, never markup.
Refuses to know: where the invoice came from.
"""

from html import escape
from string import Template
from typing import Final

from tallygate.domain import invoice_words as words
from tallygate.domain.invoice import Invoice, InvoiceLine

_PAGE: Final = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .4rem .6rem; text-align: left }
th, td { vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tfoot td { border: 0 } tfoot tr:last-child td { border-top: 2px solid; font-weight: bold }
p { color: #555 }
</style>
</head>
<body>
<h1>$title</h1>
<p>$note</p>
<table>
<thead><tr><th class="n">#</th><th>For</th><th>Plan</th><th>Time</th><th class="n">Quantity</th>
<th>Working</th><th class="n">$currency</th></tr></thead>
<tbody>
$lines
</tbody>
<tfoot>
$sums
</tfoot>
</table>
</body>
</html>
"""
)
_LINE: Final = Template(
    '<tr><td class="n">$number</td><td>$title</td><td>$plan</td><td>$time</td>'
    '<td class="n">$quantity</td><td>$working</td><td class="n">$amount</td></tr>'
)
_SUM: Final = Template('<tr><td colspan="6" class="n">$name</td><td class="n">$amount</td></tr>')


def page(invoice: Invoice, time_zone: str, note: str) -> str:
    """Return the page; `note` says what kind of invoice it is."""
    period = words.stretch(invoice.period, time_zone)
    sums = (
        ("Subtotal", invoice.subtotal),
        ("Discounts", invoice.discounts),
        ("Credits", invoice.credits),
        ("Total", invoice.total),
    )
    return _PAGE.substitute(
        title=escape(f"Invoice for {invoice.tenant_id}, {period}"),
        note=escape(note),
        currency=escape(invoice.currency),
        lines="\n".join(_row(line, time_zone) for line in invoice.lines),
        sums="\n".join(_SUM.substitute(name=name, amount=f"{amount:,f}") for name, amount in sums),
    )


def _row(line: InvoiceLine, time_zone: str) -> str:
    return _LINE.substitute(
        number=line.number,
        title=escape(words.whose(line, time_zone)),
        plan=escape(line.plan),
        time=escape(words.stretch(line.segment, time_zone)),
        quantity=escape(words.quantity(line)),
        working=escape(words.working(line)),
        amount=f"{line.amount:,f}",
    )
