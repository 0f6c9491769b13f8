"""Who lives through the month: meters, plans of every price model, tenants, rates, grants.

Guarantees: the same cast each time; nothing here is by chance.
Refuses to know: what happens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from tallygate.domain.catalog import (
    Aggregation,
    Catalog,
    Destination,
    LatePolicy,
    Limit,
    LimitKind,
    Meter,
    OnExceed,
    Plan,
    Tenant,
)
from tallygate.domain.credit import NEVER_US, GrantAsked, GrantId
from tallygate.domain.exchange import ExchangeRate
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
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
from tallygate.domain.stripe_sync import Mode, StripeAccount, StripeSync, SyncWindow, Way
from tallygate.domain.window import DAY_US, Billing, BillingKind, Calendar, Period, Window

TENANTS: Final = 50
NEAR, FAR = "stripe", "stripe-far"
"""The account that has faults of every kind, and the one that is away for 36 days."""


def instant(text: str, zone: str = "UTC") -> int:
    """Return an instant that is written in a zone's local time."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (local - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


BEGIN_US: Final = instant("2026-02-20")
MARCH_US, APRIL_US = instant("2026-03-01"), instant("2026-04-01")
END_US: Final = instant("2026-05-12")


def _near(event_name: str, **fields: object) -> StripeSync:
    values = {"event_name": event_name, "since_us": BEGIN_US, "destination": NEAR, **fields}
    return StripeSync(Way.METER_EVENTS, **values)  # type: ignore[arg-type]  # fields by name


CALLS, BYTES, TRANSFERS = MeterName("calls"), MeterName("bytes"), MeterName("transfers")
TOKENS, STORAGE, PAYMENTS = MeterName("tokens"), MeterName("storage"), MeterName("payments")
SEATS, EXACT, HELD = MeterName("seats"), MeterName("exact"), MeterName("held")
LAST, PLACES, SLOW = MeterName("last"), MeterName("places"), MeterName("slow")
FLOOR: Final = MeterName("floor")
METERS: Final[Mapping[str, Meter]] = {
    each.name: each
    for each in (
        Meter(CALLS, Aggregation.COUNT, stripe=_near("api_calls")),
        Meter(BYTES, stripe=_near("megabytes", window=SyncWindow.DAY, scale="0.001")),
        Meter(TRANSFERS, stripe=_near("transfers", destination=FAR)),
        Meter(TOKENS, group_by=("model",)),
        Meter(STORAGE),
        Meter(PAYMENTS, late_policy=LatePolicy.CORRECT),
        Meter(SEATS, Aggregation.MAX),
        Meter(FLOOR, Aggregation.MIN),
        Meter(EXACT, late_policy=LatePolicy.CORRECT, stripe=_near("exact_units")),
        Meter(LAST, Aggregation.LATEST),
        Meter(PLACES, Aggregation.UNIQUE, unique_by="region"),
        Meter(SLOW, Aggregation.PERCENTILE, percentile_ppm=900_000),
        Meter(HELD, Aggregation.TIME_WEIGHTED, group_by=("region",)),
    )
}
SYNCED: Final = {
    "api_calls": CALLS,
    "megabytes": BYTES,
    "exact_units": EXACT,
    "transfers": TRANSFERS,
}
PREPAID, SOFT = LimitId("prepaid"), LimitId("soft")


def _price(name: str, model: PriceModel, meter: str = "", **fields: object) -> Price:
    values = {
        key: Decimal(value)
        if isinstance(value, str) and key in ("amount", "percent", "minimum")
        else value
        for key, value in fields.items()
    }
    return Price(PriceId(name), model, MeterName(meter), **values)  # type: ignore[arg-type]


def _tiers(*parts: tuple[int | None, str, str]) -> tuple[Tier, ...]:
    return tuple(Tier(up_to, Decimal(amount), Decimal(flat)) for up_to, amount, flat in parts)


def _steps(*parts: tuple[str, str]) -> tuple[DiscountStep, ...]:
    return tuple(DiscountStep(Decimal(start), Decimal(percent)) for start, percent in parts)


def _plan(name: str, *prices: Price, terms: Terms, limits: tuple[Limit, ...] = ()) -> Plan:
    return Plan(PlanName(name), limits, prices=prices, terms=terms)


_FLAT, _UNIT, _PACK = PriceModel.FLAT, PriceModel.PER_UNIT, PriceModel.PACKAGE
_GRADED, _VOLUME, _PERCENT = PriceModel.GRADUATED, PriceModel.VOLUME, PriceModel.PERCENTAGE
_GRADES: Final = _tiers((40, "0.09", "0"), (400, "0.0515", "1"), (None, "0.02", "0"))


def plans(raised: str = "0.0325") -> dict[PlanName, Plan]:
    """Return all plans; `raised` is the one amount that changes in the middle of the month."""
    credit = CreditTerms(Decimal("0.013"), PREPAID)
    found = (
        _plan(
            "start",
            _price("base", _FLAT, amount="9.99", pay=Pay.ADVANCE),
            _price("calls", _UNIT, CALLS, amount=raised, included=10),
            _price("bytes", _PACK, BYTES, amount="1.25", size=100),
            terms=Terms("EUR"),
        ),
        _plan(
            "scale",
            _price("platform", _FLAT, amount="90"),
            _price("setup", _FLAT, amount="5", prorate=False),
            _price("bytes", _GRADED, BYTES, tiers=_GRADES, round_per=RoundPer.TIER),
            _price(
                "seats",
                _VOLUME,
                SEATS,
                tiers=_tiers((3, "9", "0"), (None, "7.5", "0")),
                minimum="15",
            ),
            _price(
                "calls", _UNIT, CALLS, amount="0.105", discount=_steps(("0", "0"), ("15", "10"))
            ),
            terms=Terms("EUR", minimum=Decimal(60), discount=_steps(("100", "5"))),
        ),
        _plan(
            "card",
            _price(
                "tokens",
                _UNIT,
                TOKENS,
                amount="0.5",
                in_credits=True,
                per="model",
                where=(("tier", ("standard", "fast")),),
                discount=_steps(("0", "0"), ("200", "10")),
            ),
            _price("calls", _PACK, CALLS, amount="2", size=7, in_credits=True),
            terms=Terms("USD", credit=credit, exchange_at=ExchangeAt.PERIOD_START),
            limits=(Limit(PREPAID, TOKENS, LimitKind.BALANCE, None, 0),),
        ),
        *_more_plans(),
    )
    return {each.name: each for each in found}


def _more_plans() -> tuple[Plan, ...]:
    """Return the plans of what is above a limit, of odd aggregations, and of three decimals."""
    return (
        _plan(
            "overage",
            _price("storage", _PACK, STORAGE, amount="3", size=10, above=SOFT),
            _price(
                "fee", _PERCENT, PAYMENTS, percent="1.5", currency="USD", rounding=Rounding.HALF_UP
            ),
            _price("exact", _UNIT, EXACT, amount="0.3333", rounding=Rounding.UP),
            _price("transfers", _UNIT, TRANSFERS, amount="0.07"),
            terms=Terms("USD", rounding=Rounding.DOWN),
            limits=(
                Limit(
                    SOFT,
                    STORAGE,
                    LimitKind.WINDOW,
                    Period.BILLING_PERIOD,
                    150,
                    on_exceed=OnExceed.ALLOW,
                ),
            ),
        ),
        _plan(
            "exotic",
            _price("last", _UNIT, LAST, amount="0.11"),
            _price("places", _GRADED, PLACES, tiers=_tiers((2, "4", "0"), (None, "3", "0.5"))),
            _price("slow", _UNIT, SLOW, amount="0.017"),
            _price("held", _UNIT, HELD, amount="0.000003", per="region"),
            _price("floor", _VOLUME, FLOOR, tiers=_tiers((5, "1", "0"), (None, "0.8", "0.1"))),
            terms=Terms("JPY", rounding=Rounding.HALF_UP),
        ),
        _plan(
            "dinar",
            _price("base", _FLAT, amount="4.125", pay=Pay.ADVANCE, currency="USD"),
            _price("bytes", _VOLUME, BYTES, tiers=_GRADES, minimum="2"),
            _price("transfers", _GRADED, TRANSFERS, tiers=_GRADES),
            _price("tokens", _UNIT, TOKENS, amount="0.0075", per="model"),
            terms=Terms("KWD", discount=_steps(("3", "2.5"))),
        ),
    )


PLANS: Final = plans()
CURRENCIES: Final = ("USD", "EUR", "JPY", "KWD")
_ZONES: Final = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"),
    *("Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"),
)
_KINDS: Final = ("month", "month", "fifteenth", "month", "weekly", "thirtyfirst", "month", "starts")
_STARTS: Final = ("2026-02-10", "2026-03-07", "2026-04-04", "2026-05-02", "2026-06-06")


@dataclass(frozen=True, slots=True)
class Member:
    """A tenant of the cast, what its periods are, and by which rule."""

    number: int
    tenant: Tenant
    kind: str
    grace_us: int

    @property
    def name(self) -> TenantId:
        """Its id."""
        return self.tenant.tenant_id

    def periods(self) -> tuple[Window, ...]:
        """Return its billing periods from February on, said without the product's rules."""
        zone = self.tenant.calendar.time_zone
        days: list[str]
        match self.kind:
            case "month":
                days = [f"2026-{month:02}-01" for month in range(2, 8)]
            case "fifteenth":
                days = [f"2026-{month:02}-15T09:30" for month in range(2, 8)]
            case "thirtyfirst":
                days = [
                    "2026-01-31",
                    "2026-02-28",
                    "2026-03-31",
                    "2026-04-30",
                    "2026-05-31",
                    "2026-06-30",
                ]
            case "weekly":
                first = datetime(2026, 2, 16, 6)  # noqa: DTZ001  a local time
                days = [(first + timedelta(days=7 * week)).isoformat() for week in range(16)]
            case _:
                days = [*_STARTS]
        bounds = [instant(day, zone) for day in days]
        return tuple(Window(start, end) for start, end in pairwise(bounds) if end > BEGIN_US)


def _calendar(kind: str, zone: str, grace_us: int) -> Calendar:
    match kind:
        case "month":
            return Calendar(zone, billing=Billing(BillingKind.MONTH, grace_us=grace_us))
        case "fifteenth":
            anchor = instant("2026-01-15T09:30", zone)
            return Calendar(zone, anchor, billing=Billing(grace_us=grace_us))
        case "thirtyfirst":
            anchor = instant("2025-12-31", zone)
            return Calendar(zone, anchor, billing=Billing(grace_us=grace_us))
        case "weekly":
            anchor = instant("2026-01-05T06:00", zone)
            weeks = Billing(BillingKind.EVERY, every_us=7 * DAY_US, grace_us=grace_us)
            return Calendar(zone, anchor, billing=weeks)
        case _:
            starts = tuple(instant(day, zone) for day in _STARTS)
            listed = Billing(BillingKind.STARTS, starts_us=starts, grace_us=grace_us)
            return Calendar(zone, billing=listed)


def _member(number: int) -> Member:
    kind, zone = _KINDS[number % len(_KINDS)], _ZONES[number % len(_ZONES)]
    plan = [*PLANS][number % len(PLANS)]
    grace_us = DAY_US if number % 9 == 4 else 0
    tenant = Tenant(
        TenantId(f"tenant-{number:02}"),
        plan,
        _calendar(kind, zone, grace_us),
        currency=CURRENCIES[number // 3 % len(CURRENCIES)],
        # Two are billed by invoices alone.
        stripe_customer_id="" if number in (11, 29) else f"cus_{number:02}",
    )
    return Member(number, tenant, kind, grace_us or 2 * DAY_US)


CAST: Final = tuple(_member(number) for number in range(TENANTS))


def rates() -> list[ExchangeRate]:
    """Return a dated table: each currency in each other, anew every five days."""
    found: list[ExchangeRate] = []
    worth = {
        "USD": Decimal(1),
        "EUR": Decimal("1.0842"),
        "JPY": Decimal("0.0067"),
        "KWD": Decimal("3.26"),
    }
    for place in range(30):
        at_us = instant("2026-01-25") + 5 * place * DAY_US
        for base in CURRENCIES:
            for quote in CURRENCIES:
                if base != quote:
                    rate = worth[base] / worth[quote] * (1 + Decimal(place) / 250)
                    found.append(
                        ExchangeRate(base, quote, at_us, round(rate, 7), "the month's table")
                    )
    return found


def grants() -> list[GrantAsked]:
    """Return prepaid credits: some run out, some come later, some are burned first."""
    found: list[GrantAsked] = []
    for each in CAST:
        if each.number % 6 == 2:
            name = each.name
            found += [
                GrantAsked(name, PREPAID, GrantId("gift"), 60, 2, BEGIN_US, instant("2026-03-20")),
                GrantAsked(name, PREPAID, GrantId("yearly"), 150, 1, MARCH_US, NEVER_US),
                GrantAsked(name, PREPAID, GrantId("spare"), 40, 1, BEGIN_US, instant("2026-04-20")),
            ]
    return found


def catalog(near_url: str, far_url: str, made: Mapping[PlanName, Plan] = PLANS) -> Catalog:
    """Return the catalog, with two accounts of Stripe's."""
    accounts = tuple(
        Destination(name, "stripe", url, (), stripe=StripeAccount(Mode.SANDBOX))
        for name, url in ((NEAR, near_url), (FAR, far_url))
    )
    return Catalog(
        meters={MeterName(name): meter for name, meter in METERS.items()},
        plans=dict(made),
        destinations=accounts,
    )
