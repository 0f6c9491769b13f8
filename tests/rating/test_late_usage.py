"""Late usage is on the invoice of the period that it belongs to; all together are what it costs."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tallygate.domain.catalog import Catalog, Tenant
from tallygate.domain.credit import CreditGrant, GrantId
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.invoice import Invoice
from tallygate.domain.invoice_change import differences
from tallygate.domain.invoice_document import from_bytes, to_bytes
from tallygate.domain.money import total
from tallygate.flow.invoice import InvoiceParts, Invoicing
from tallygate.testing.billing import (
    FakeBilledUsage,
    FakeExchangeRates,
    FakeInvoiceBooks,
    FakePlanHistory,
)
from tallygate.testing.late_places import LateUsage
from tests.rating.late_chain import PERIODS, WHOLE, Chain, chains, in_decimals, naive, stored
from tests.rating.naive import in_decimal
from tests.rating.test_differential import ACME, METERS, PREPAID, SLOW
from tests.rating.test_invoice_flow import Clock
from tests.servers import run


def invoicing(chain: Chain, books: FakeInvoiceBooks, usage: FakeBilledUsage) -> Invoicing:
    """Return what makes invoices of a chain, all of whose periods are closed."""
    usage.late.periods = {(ACME, each.start_us): (each, 1) for each in PERIODS}
    for number, each in enumerate(chain.arrivals, 1):
        used = stored(number, each.use)
        usage.stored.append(used)
        if each.billed != each.own:
            starts = PERIODS[each.own].start_us, PERIODS[each.billed].start_us
            usage.late.late.append(LateUsage(used, *starts, 1))
    history = FakePlanHistory()
    for version, (at, plan) in enumerate(chain.story.plans, 1):
        catalog = Catalog(version, {m.name: m for m in METERS.values()}, {plan.name: plan})
        history.catalogs.append((at, catalog))
        history.tenants.append((at, Tenant(ACME, plan.name, currency=chain.story.currency)))
    rates = FakeExchangeRates(
        [
            ExchangeRate(base, chain.story.currency, at, in_decimals(rate), "x")
            for (base, at), rate in chain.story.rates.items()
        ]
    )
    books.granted = [
        CreditGrant(
            *(ACME, PREPAID, GrantId(f"g{each.seq}"), each.seq),
            *(int(chain.granted[each.seq]), 1, each.priority, each.starts_us, each.expires_us, 0),
        )
        for each in chain.story.grants
    ]
    clock = Clock(WHOLE.end_us)
    return Invoicing(InvoiceParts(usage, usage, history, rates, books, usage.late, clock))


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(chains())
def test_all_invoices_together_are_what_all_usage_costs(chain: Chain) -> None:
    """Each invoice is what a naive rater makes of it, to the coin; again, it says the same."""
    books, usage = FakeInvoiceBooks(), FakeBilledUsage()
    made = invoicing(chain, books, usage)

    async def issue() -> list[Invoice]:
        return [(await made.issue(ACME, each, reason="", actor="")).invoice for each in PERIODS]

    invoices = run(issue())
    wanted = [in_decimal(each, chain.story.currency) for each in naive(chain)]
    assert [each.total for each in invoices] == wanted
    for invoice in invoices:
        assert sum(line.amount for line in invoice.lines) == invoice.total
        assert invoice.subtotal + invoice.discounts + invoice.credits == invoice.total
        assert from_bytes(to_bytes(invoice)) == invoice
    assert run(issue()) == invoices
    assert len(books.issued) == len(PERIODS)


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(chains(), st.data())
def test_corrections_keep_all_together_whole(chain: Chain, data: st.DataObject) -> None:
    """Once a period's next revision is made, it and those with its late usage add up to it all."""
    chain.story.grants, chain.granted = [], {}
    books, usage = FakeInvoiceBooks(), FakeBilledUsage()
    made = invoicing(chain, books, usage)
    corrected = [
        each
        for each in chain.arrivals
        if each.billed == each.own and data.draw(st.booleans(), label="corrects")
    ]
    late = usage.late
    for each in corrected:
        start_us = PERIODS[each.own].start_us
        (used,) = [one for one in usage.stored if one.event_id == each.use.name]
        late.late.append(LateUsage(used, start_us, start_us, 2))

    async def issue() -> list[Invoice]:
        return [(await made.issue(ACME, each, reason="", actor="")).invoice for each in PERIODS]

    before = run(issue())
    kept = replace(chain, arrivals=[each for each in chain.arrivals if each not in corrected])
    currency = chain.story.currency
    assert [each.total for each in before] == [in_decimal(each, currency) for each in naive(kept)]
    late.periods = {key: (window, 2) for key, (window, _) in late.periods.items()}
    after = run(issue())
    assert [each.total for each in after] == [in_decimal(each, currency) for each in naive(chain)]
    for old, new in zip(before, after, strict=True):
        changes = differences(old.lines, new.lines)
        assert total(each.amount for each in changes) == new.total - old.total
    assert run(issue()) == after
