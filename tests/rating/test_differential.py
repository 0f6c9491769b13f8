"""The rater and a naive one agree to the coin, over random price books, changes and events."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    Plan,
    Tenant,
)
from tallygate.domain.event import NO_CONTEXT
from tallygate.domain.ids import EventId, LimitId, MeterName, PlanName, TenantId
from tallygate.domain.invoice import Invoice, Measured
from tallygate.domain.price import (
    CreditTerms,
    DiscountStep,
    ExchangeAt,
    Pay,
    Price,
    PriceId,
    PriceModel,
    Rounding,
    RoundPer,
    Terms,
    Tier,
)
from tallygate.domain.purse import GrantLeft
from tallygate.domain.rating import Ahead, Rating, invoice_of, rates_asked
from tallygate.domain.segment import Segment, Version, segment_of, segments, version_at
from tallygate.domain.window import Period, Window
from tallygate.ports.billing import UsageAsked
from tallygate.testing.billing import FakeBilledUsage
from tests.rating.naive import NaiveGrant, Story, in_decimal, total_due
from tests.rating.naive_usage import Use
from tests.servers import run
from tests.usage_events import event

PERIOD: Final = Window(1_000_000_000, 1_000_000_000 + 2_678_400_000_007)
NEXT: Final = Window(PERIOD.end_us, PERIOD.end_us + 2_419_200_000_000)
LENGTH_US: Final = PERIOD.end_us - PERIOD.start_us
METERS: Final[dict[str, Meter]] = {
    meter.name: meter
    for meter in (
        Meter(MeterName("calls"), Aggregation.COUNT),
        Meter(MeterName("bytes"), Aggregation.SUM),
        Meter(MeterName("seats"), Aggregation.MAX),
        Meter(MeterName("floor"), Aggregation.MIN),
        Meter(MeterName("last"), Aggregation.LATEST),
        Meter(MeterName("places"), Aggregation.UNIQUE, unique_by="region"),
        Meter(MeterName("slow"), Aggregation.PERCENTILE, percentile_ppm=900_000),
        Meter(MeterName("held"), Aggregation.TIME_WEIGHTED, group_by=("region",)),
    )
}
ACME: Final = TenantId("acme")
# A story has many parts, and a machine may have other work.
SLOW: Final = [HealthCheck.too_slow, HealthCheck.data_too_large]
PREPAID: Final = LimitId("prepaid")
SOFT: Final = LimitId("soft")


def decimals(most: int, places: int) -> st.SearchStrategy[Decimal]:
    """Return amounts from 0 to `most` with up to so many decimals; ties are likely."""
    return st.integers(0, 4 * most).map(lambda n: Decimal(n) / 4) | st.integers(
        0, most * 10**places
    ).map(lambda n: Decimal(n).scaleb(-places))


@st.composite
def tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Return one to four tiers, the last without end."""
    ends = sorted(draw(st.sets(st.integers(1, 120), max_size=3)))
    amounts = [draw(st.tuples(decimals(3, 5), decimals(9, 2))) for _ in range(len(ends) + 1)]
    return tuple(Tier(up_to, *each) for up_to, each in zip([*ends, None], amounts, strict=True))


def steps(most: int) -> st.SearchStrategy[tuple[DiscountStep, ...]]:
    """Return up to three steps of a discount, each from another number on."""
    made = st.builds(DiscountStep, st.integers(0, most).map(Decimal), decimals(100, 3))
    return st.lists(made, max_size=3, unique_by=lambda step: step.start).map(tuple)


@st.composite
def prices(draw: st.DrawFn, place: int) -> Price:
    """Return a price of any model with any of what goes with it."""
    model = draw(st.sampled_from(PriceModel))
    flat = model is PriceModel.FLAT
    ahead = flat and draw(st.booleans())
    in_credits = not ahead and model is not PriceModel.PERCENTAGE and draw(st.booleans())
    tiered = model in (PriceModel.GRADUATED, PriceModel.VOLUME)
    whose = st.sampled_from([(), (("tier", ("a",)),), (("tier", ("a", "b")),)])
    above = model is PriceModel.PER_UNIT and draw(st.booleans())
    meter = "bytes" if above else draw(st.sampled_from([*METERS]))
    off = st.just(()) | st.just((DiscountStep(Decimal(0), Decimal("12.5")),))
    return Price(
        price_id=PriceId(f"price-{place}"),
        model=model,
        meter=MeterName("" if flat else meter),
        amount=Decimal(0) if tiered else draw(decimals(20, 6)),
        in_credits=in_credits,
        size=draw(st.integers(1, 30)) if model is PriceModel.PACKAGE else 1,
        percent=draw(decimals(30, 4)) if model is PriceModel.PERCENTAGE else Decimal(0),
        tiers=draw(tiers()) if tiered else (),
        included=0 if flat or above else draw(st.just(0) | st.integers(0, 90)),
        above=SOFT if above else LimitId(""),
        minimum=Decimal(0) if flat else draw(st.just(Decimal(0)) | decimals(40, 3)),
        discount=draw(off if flat else steps(150)),
        where=() if flat or above else draw(whose),
        per="" if flat or above else draw(st.sampled_from(["", "tier", "region"])),
        currency="" if in_credits else draw(st.sampled_from(["", "USD", "JPY", "KWD"])),
        rounding=draw(st.none() | st.sampled_from(Rounding)),
        round_per=draw(st.sampled_from(RoundPer)) if tiered and not in_credits else RoundPer.LINE,
        pay=Pay.ADVANCE if ahead else Pay.ARREARS,
        prorate=draw(st.booleans()),
    )


@st.composite
def plans(draw: st.DrawFn, name: str) -> Plan:
    """Return a plan of up to four prices."""
    count = draw(st.integers(0, 4))
    credit = CreditTerms(draw(decimals(2, 4)), draw(st.sampled_from([PREPAID, LimitId("")])))
    soft = Limit(
        *(SOFT, MeterName("bytes"), LimitKind.WINDOW, Period.BILLING_PERIOD),
        limit=draw(st.integers(0, 200)),
        on_exceed=OnExceed.ALLOW,
    )
    return Plan(
        name=PlanName(name),
        limits=(soft,),
        prices=tuple(draw(prices(place)) for place in range(count)),
        terms=Terms(
            currency=draw(st.sampled_from(["USD", "EUR", "JPY", "KWD"])),
            minimum=draw(st.just(Decimal(0)) | decimals(300, 2)),
            discount=draw(steps(200)),
            credit=credit,
            exchange_at=draw(st.sampled_from(ExchangeAt)),
            rounding=draw(st.sampled_from(Rounding)),
        ),
    )


def instants(period: Window) -> st.SearchStrategy[int]:
    """Return instants of a period, its ends among them."""
    length_us = period.end_us - period.start_us
    eighths = st.integers(0, 8).map(lambda part: period.start_us + length_us * part // 8)
    return eighths | st.integers(period.start_us, period.end_us)


def own_uses(period: Window) -> st.SearchStrategy[Use]:
    """Return events of a period, or of shortly before."""
    times = instants(period).map(lambda at: min(at, period.end_us - 1))
    return st.builds(
        Use,
        times | st.just(period.start_us - 7),
        st.sampled_from([*METERS]),
        st.integers(1, 90) | st.just(-20),
        st.sampled_from(
            [(), (("tier", "a"),), (("tier", "b"), ("region", "x")), (("region", "y"),)]
        ),
    )


@st.composite
def uses(draw: st.DrawFn, period: Window) -> list[Use]:
    """Return events, and refunds of some of them, or of events that never came."""
    own = [
        replace(use, name=f"e{place:02}", refund_of="gone" if use.amount < 0 else "")
        for place, use in enumerate(draw(st.lists(own_uses(period), max_size=12)))
    ]
    taken = draw(st.lists(st.sampled_from(own), max_size=3)) if own else []
    return own + [
        replace(use, amount=-draw(st.integers(1, use.amount)), name=f"r{place}", refund_of=use.name)
        for place, use in enumerate(dict.fromkeys(taken))
        if use.amount > 0
    ]


@st.composite
def grants(draw: st.DrawFn, seq: int, period: Window) -> NaiveGrant:
    """Return a grant that is valid for some time around a period."""
    starts_us = draw(st.just(0) | instants(period))
    return NaiveGrant(
        priority=draw(st.integers(0, 2)),
        expires_us=max(starts_us, draw(instants(period))) + 1,
        seq=seq,
        starts_us=starts_us,
        left=Fraction(draw(st.integers(1, 200))),
    )


@st.composite
def stories(draw: st.DrawFn, period: Window = PERIOD) -> Story:
    """Return what may happen to a tenant in a period."""
    books = [draw(plans(f"plan-{place}")) for place in range(draw(st.integers(1, 3)))]
    first = draw(st.just(period.start_us - 1) | instants(period))
    later = draw(st.lists(instants(period), max_size=4))
    changes = {at: draw(st.sampled_from(books)) for at in sorted({first, *later})}
    length_us = period.end_us - period.start_us
    rates = {
        (currency, at): Fraction(draw(decimals(9, 6)) + Decimal("0.01"))
        for currency in ("USD", "EUR", "JPY", "KWD")
        for at in (period.start_us - length_us, period.start_us, period.end_us)
    }
    return Story(
        start_us=period.start_us,
        end_us=period.end_us,
        currency=draw(st.sampled_from(["USD", "EUR", "JPY", "KWD"])),
        plans=sorted(changes.items(), key=lambda change: change[0]),
        uses=draw(uses(period)),
        meters=METERS,
        grants=[draw(grants(seq, period)) for seq in range(1, draw(st.integers(1, 5)))],
        rates=rates,
    )


def versions_of(story: Story) -> list[Version]:
    """Return the story's plans as versions of a catalog."""
    meters = {meter.name: meter for meter in METERS.values()}
    return [
        Version(
            at,
            Catalog(version, meters, {plan.name: plan}),
            Tenant(ACME, plan.name, currency=story.currency),
        )
        for version, (at, plan) in enumerate(story.plans, 1)
    ]


def measured(cut: Sequence[Segment], events: Sequence[Use]) -> list[Measured]:
    """Return usage as a ledger has it: by segment, selection and group."""
    stored = [
        event(
            number,
            event_id=EventId(use.name),
            event_time_us=use.at_us,
            meter=MeterName(use.meter),
            amount=use.amount,
            dimensions=dict(use.dimensions),
            context=NO_CONTEXT,
            refund_of=EventId(use.refund_of),
        )
        for number, use in enumerate(events, 1)
    ]
    asked = [
        UsageAsked(place, selection, segment.window)
        for place, segment in enumerate(cut)
        for selection in segment.selections()
    ]
    return run(FakeBilledUsage(stored).billed(ACME, asked))


def rated(story: Story) -> Invoice:
    """Return the invoice that the product makes of a story."""
    versions = versions_of(story)
    cut = segments(versions, PERIOD)
    at_start = version_at(versions, PERIOD.start_us)
    at_end = version_at(versions, PERIOD.end_us)
    known = version_at(versions, PERIOD.start_us - 1) is not None
    rating = Rating(
        tenant_id=ACME,
        period=PERIOD,
        currency=story.currency,
        segments=cut,
        usage=measured(cut, story.uses),
        grants=[
            GrantLeft(
                *(PREPAID, each.seq, f"g{each.seq}", Decimal(int(each.left))),
                *(each.priority, each.starts_us, each.expires_us),
            )
            for each in story.grants
        ],
        rates={
            place: Decimal(rate.numerator) / Decimal(rate.denominator)
            for place, rate in story.rates.items()
        },
        ahead=Ahead(
            segment_of(at_start, PERIOD) if at_start is not None and known else None,
            segment_of(at_end, NEXT) if at_end is not None else None,
            PERIOD.start_us - LENGTH_US,
        ),
    )
    assert rates_asked(rating) <= set(rating.rates)
    return invoice_of(rating)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(stories())
def test_the_naive_rater_agrees(story: Story) -> None:
    """The total is that of the naive rater, to the coin; the lines add up to it."""
    invoice = rated(story)
    assert invoice.total == in_decimal(total_due(story), story.currency)
    assert sum(line.amount for line in invoice.lines) == invoice.total
    assert invoice.subtotal + invoice.discounts + invoice.credits == invoice.total


@settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
@given(stories())
def test_rating_is_a_function(story: Story) -> None:
    """The same input, in whatever order, gives the same invoice; lines are numbered from 1."""
    first = rated(story)
    story.uses = [*reversed(story.uses)]
    assert rated(story) == first
    assert [line.number for line in first.lines] == [*range(1, len(first.lines) + 1)]
