"""Parts of periods: plan changes, clocks that change, leap years, ends of months, fees ahead."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tallygate.domain.catalog import Limit, LimitKind, OnExceed, Override
from tallygate.domain.errors import InvalidField, NotFound
from tallygate.domain.ids import LimitId
from tallygate.domain.invoice import Invoice, LineKind
from tallygate.domain.invoice_period import period_named
from tallygate.domain.price import ExchangeAt, Pay, Price, PriceModel, Terms
from tallygate.domain.rating import Ahead, Rating, invoice_of
from tallygate.domain.segment import Version, segment_of, version_at
from tallygate.domain.window import DAY_US, HOUR_US, Calendar, Period, Window, from_datetime
from tests.rating.parts import (
    ACME,
    CALLS,
    EUR,
    NOVEMBER,
    bill,
    cut,
    d,
    fee,
    plan,
    price,
    tiers,
    used,
    version,
)

BERLIN = Calendar("Europe/Berlin", from_datetime(datetime(2024, 1, 1, tzinfo=UTC)) - HOUR_US)


def rated(
    *versions: Version,
    period: Window = NOVEMBER,
    quantity: int = 0,
    rates: dict[tuple[str, int], Decimal] | None = None,
) -> Invoice:
    """Return the invoice of a period under some versions, with as much used in each segment."""
    found = cut(*versions, period=period)
    at_start, at_end = version_at(versions, period.start_us), version_at(versions, period.end_us)
    known = version_at(versions, period.start_us - 1) is not None
    following = Window(period.end_us, period.end_us + DAY_US)
    return invoice_of(
        Rating(
            tenant_id=ACME,
            period=period,
            currency="EUR",
            segments=found,
            usage=[
                each
                for place, segment in enumerate(found)
                for each in used(segment, quantity, place)
                if quantity
            ],
            rates=rates or {},
            ahead=Ahead(
                paid=segment_of(at_start, period) if at_start and known else None,
                following=segment_of(at_end, following) if at_end else None,
            ),
        )
    )


def amounts(invoice: Invoice) -> list[str]:
    """Return what the lines come to."""
    return [str(line.amount) for line in invoice.lines]


@pytest.mark.parametrize(
    ("month", "hours"),
    [
        ("2026-03", 31 * 24 - 1),
        ("2026-10", 31 * 24 + 1),
        ("2024-02", 29 * 24),
        ("2026-02", 28 * 24),
    ],
)
def test_seconds_that_elapsed_count(month: str, hours: int) -> None:
    """A day has 23 or 25 hours where clocks change: an hour of that month costs its share."""
    period = period_named(month, BERLIN)
    assert period.end_us - period.start_us == hours * HOUR_US
    old, new = plan(fee("743", "a")), plan(fee("743", "b"), name="new")
    invoice = rated(
        version(period.start_us - 1, old),
        version(period.end_us - HOUR_US, new),
        period=period,
    )
    last = (Decimal(743) / hours).quantize(d("0.01"))
    assert amounts(invoice) == [str((743 - Decimal(743) / hours).quantize(d("0.01"))), str(last)]


def test_periods_at_the_ends_of_months() -> None:
    """A period of an anchor on the 31st begins on the last day of a shorter month."""
    of = Calendar("UTC", from_datetime(datetime(2024, 1, 31, tzinfo=UTC)))
    starts = [period_named(f"2024-{month:02}", of).start_us for month in (1, 2, 3, 4)]
    wanted = [(1, 31), (2, 29), (3, 31), (4, 30)]
    assert starts == [from_datetime(datetime(2024, *day, tzinfo=UTC)) for day in wanted]
    assert period_named("2024-02-28", of).start_us == starts[0]
    assert period_named("2024-02-29T00:00:00Z", of).start_us == starts[1]


@pytest.mark.parametrize("text", ["", "2024", "2024-13", "2024-00", "x", "2024-02-30", "9999-12"])
def test_what_names_no_period(text: str) -> None:
    """What is no month, day or instant is refused by its field."""
    with pytest.raises(InvalidField) as caught:
        period_named(text, Calendar())
    assert caught.value.field == "period"


def test_fees_in_arrears_are_shared_out_by_time() -> None:
    """Ten of thirty days of one plan and twenty of another."""
    invoice = rated(version(-1, plan(fee("10"))), version(10 * DAY_US, plan(fee("40"), name="new")))
    assert amounts(invoice) == ["3.33", "26.67"]


def test_a_time_without_a_plan_costs_nothing() -> None:
    """Who comes in the middle pays from then on."""
    assert amounts(rated(version(15 * DAY_US, plan(fee("10"))))) == ["5.00"]


def test_units_and_tiers_are_shared_out_whole() -> None:
    """A third of 100 included units is 34, a third of a tier of 10 is 4: parts count as one."""
    of = price(PriceModel.GRADUATED, included=100, tiers=tiers((10, "1", "0"), (None, "0.1", "0")))
    invoice = rated(
        version(-1, plan(of)), version(10 * DAY_US, plan(name="empty")), quantity=34 + 4 + 10
    )
    assert [line.included for line in invoice.lines] == [34]
    assert amounts(invoice) == ["5.00"]
    whole = replace(of, prorate=False)
    assert amounts(bill(plan(whole), 100 + 10 + 10)) == ["11.00"]


def test_minimums_are_shared_out() -> None:
    """A price's and a plan's minimum are those of the part of the period."""
    of = plan(price(amount=d("1"), minimum=d("9")), terms=replace(EUR, minimum=d("30")))
    invoice = rated(version(-1, of), version(10 * DAY_US, plan(name="empty")))
    assert amounts(invoice) == ["0.00", "3.00", "7.00"]


def test_what_changes_nothing_cuts_nothing() -> None:
    """A version with the same prices goes on with the segment before; so does another limit."""
    of = plan(fee("10"))
    found = cut(version(-1, of), version(DAY_US, of), version(2 * DAY_US, of, suspended=True))
    assert [segment.window for segment in found] == [NOVEMBER]
    assert found[0].catalogs == (0, 2, 3)


def test_an_override_that_ends_changes_what_is_included() -> None:
    """Above a limit counts what is above it as it was then."""
    soft = Limit(
        *(LimitId("soft"), CALLS, LimitKind.WINDOW, Period.BILLING_PERIOD, 300),
        on_exceed=OnExceed.ALLOW,
    )
    of = plan(price(amount=d("1"), above=LimitId("soft")), limits=(soft,))
    override = Override(LimitId("soft"), 600, expires_at_us=10 * DAY_US)
    invoice = rated(version(-1, of, overrides=(override,)), quantity=250)
    assert [line.included for line in invoice.lines] == [200, 200]
    assert amounts(invoice) == ["50.00", "50.00"]


AHEAD = fee("30", pay=Pay.ADVANCE)


def test_a_fee_in_advance_is_paid_a_period_ahead() -> None:
    """Who stays pays the next period; who is new pays this one too."""
    assert amounts(rated(version(-1, plan(AHEAD)))) == ["30.00"]
    assert amounts(rated(version(0, plan(AHEAD)))) == ["30.00", "30.00"]
    assert amounts(rated(version(15 * DAY_US, plan(AHEAD)))) == ["15.00", "30.00"]


def test_a_change_sets_right_what_was_paid_ahead() -> None:
    """The old fee comes back, each plan's part comes on, the new fee is paid ahead."""
    dear = plan(replace(AHEAD, amount=d("60")), name="new")
    invoice = rated(version(-1, plan(AHEAD)), version(10 * DAY_US, dear))
    assert amounts(invoice) == ["-30.00", "10.00", "40.00", "60.00"]
    gone = rated(version(-1, plan(AHEAD)), version(10 * DAY_US, plan(name="free")))
    assert amounts(gone) == ["-30.00", "10.00"]


def test_what_was_paid_ahead_keeps_its_rate_of_exchange() -> None:
    """The part that was used is charged at the rate at which all of it was paid."""
    dollars = plan(AHEAD, terms=Terms(currency="USD"))
    rates = {("USD", 0): d("0.5"), ("USD", NOVEMBER.end_us): d("0.9")}
    gone = plan(fee("60", "other", Pay.ADVANCE), name="new", terms=Terms(currency="USD"))
    invoice = rated(version(-1, dollars), version(10 * DAY_US, gone), rates=rates)
    assert amounts(invoice) == ["-15.00", "5.00", "36.00", "54.00"]


def test_a_fee_that_is_not_shared_out_is_asked_for_once() -> None:
    """Without `prorate`, what was paid stands, and a second segment asks for nothing."""
    whole = replace(AHEAD, prorate=False)
    dear = plan(replace(whole, amount=d("60")), name="new")
    assert amounts(rated(version(-1, plan(whole)), version(DAY_US, dear))) == ["60.00"]
    once = fee("10", prorate=False)
    changed = plan(replace(once, amount=d("20")), name="new")
    assert amounts(rated(version(-1, plan(once)), version(DAY_US, changed))) == ["10.00"]


def exchanged(of: Price, terms: Terms, rates: dict[tuple[str, int], Decimal]) -> Decimal:
    """Return what a price comes to in euro, for one unit."""
    return bill(plan(of, terms=terms), 1, rates=rates).total


def test_the_rate_of_the_stated_day_counts() -> None:
    """At the period's end unless the terms say at its start; rounded in the invoice's currency."""
    rates = {("USD", 0): d("0.5"), ("USD", NOVEMBER.end_us): d("0.9"), ("JPY", 0): d("0.0061")}
    dollars = Terms(currency="USD")
    assert exchanged(price(amount=d("1.55")), dollars, rates) == d("1.40")
    early = replace(dollars, exchange_at=ExchangeAt.PERIOD_START)
    assert exchanged(price(amount=d("1.55")), early, rates) == d("0.78")
    assert exchanged(price(amount=d("100"), currency="JPY"), early, rates) == d("0.61")


def test_a_rate_that_is_missing_is_named() -> None:
    """No invoice is made of a guess."""
    with pytest.raises(NotFound, match="no rate of USD in EUR for 1970-01-31") as caught:
        exchanged(price(amount=d("1")), Terms(currency="USD"), {})
    assert caught.value.field == "exchange_rate"


def test_lines_say_what_they_are_of() -> None:
    """A line of usage has its plan, its price, its segment and its share of the period."""
    invoice = rated(
        version(-1, plan(price(amount=d("1")))),
        version(10 * DAY_US, plan(name="empty")),
        quantity=3,
    )
    (line,) = invoice.lines
    assert (line.kind, line.plan, line.price_id) == (LineKind.USAGE, "pro", "per_unit")
    assert line.segment == Window(0, 10 * DAY_US)
    assert line.share == (10 * DAY_US, 30 * DAY_US)
    assert invoice.catalogs == (0, 11)
