"""ledger · intents · Stripe · invoices ─▶ [ reconcile money ] ─▶ what became of usage as money.

If we die here, nothing has happened: it only reads.

Guarantees: a window of usage counts as due once the planner had every chance to see it; what was
told just now, or may have been, is in flight and no drift. A meter that does not go to Stripe, or
an invoice that was not issued, is no step; one that cannot be asked is said with its reason.
Refuses to know: SQL, and how Stripe is asked.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from tallygate.domain.catalog import Aggregation, Catalog, Meter
from tallygate.domain.errors import TallygateError
from tallygate.domain.limit_rules import ADDING
from tallygate.domain.money import exactly
from tallygate.domain.reconcile import Absent, Figure, Reading, Step, Why
from tallygate.domain.stripe_intent import IntentKind
from tallygate.domain.stripe_rules import synced
from tallygate.domain.stripe_sync import StripeSync, Way
from tallygate.domain.window import MINUTE_US, Window
from tallygate.flow.stripe_plan import FULL_EVERY_US, kind_of, whole
from tallygate.flow.stripe_settle import SUMMED_AFTER_US
from tallygate.ports import Clock
from tallygate.ports.rebuild import Declared
from tallygate.ports.reconcile import (
    IntendedUsage,
    IntentsAsked,
    MoneyReads,
    PeriodAsked,
    StepReading,
    StripeSums,
)

# The planner looks at everything once an hour; then its round has to come to an end.
FRESH_US: Final = FULL_EVERY_US + SUMMED_AFTER_US
UNASKED: Final = Absent(Why.NOT_KEPT, "Stripe was not asked for its sum")
UNSENT: Final = Absent(Why.SHADOW, "the account is in shadow mode: nothing is sent")
SHARED: Final = Absent(Why.NOT_KEPT, "other tenants' usage is of the same customer")
NOT_ADDED: Final = Absent(Why.NOT_KEPT, "quantities of parts of a period do not add up")


class MoneyFigures:
    """The `FigureSource` of intents, of what was sent of them, of Stripe's sums and of invoices."""

    def __init__(
        self, reads: MoneyReads, declared: Declared, clock: Clock, sums: StripeSums | None = None
    ) -> None:
        self._reads = reads
        self._declared = declared
        self._clock = clock
        self._sums = sums

    async def figures(self, asked: Sequence[PeriodAsked]) -> Sequence[StepReading]:
        """Return what each step towards money has of these periods."""
        now_us = self._clock.now_us()
        catalog = await self._declared.effective(now_us) or Catalog()
        # Stripe first: what is told meanwhile shows among the sends that are read before it.
        return [
            *await self._stripe(asked, catalog, now_us),
            *await self._invoices(asked, catalog),
        ]

    async def _stripe(
        self, asked: Sequence[PeriodAsked], catalog: Catalog, now_us: int
    ) -> list[StepReading]:
        accounts = [each for each in catalog.destinations if each.stripe is not None]
        wanted = [
            (each, sync, account)
            for account in accounts
            for meter, sync in synced(catalog, account.name, Way.METER_EVENTS)
            for each in _asks(asked, account.name, meter, sync, now_us)
        ]
        found: list[StepReading] = []
        if not wanted:
            return found
        for usage in await self._reads.intended([each for each, _, _ in wanted]):
            of, sync, account = wanted[usage.place]
            customer = asked[of.ask].tenant.stripe_customer_id
            if not customer and not usage.customers:
                continue
            shadow = account.stripe is not None and account.stripe.shadow
            readings = [_intents(usage), _sent(usage, shadow=shadow)]
            customers = sorted({*usage.customers, *((customer,) if customer else ())})
            if shadow:
                readings.append(Reading(Step.STRIPE, UNSENT))
            else:
                readings.append(await self._summed(of, sync, usage, customers))
            found += [StepReading(of.ask, of.meter, reading) for reading in readings]
        return found

    async def _summed(
        self, of: IntentsAsked, sync: StripeSync, usage: IntendedUsage, customers: Sequence[str]
    ) -> Reading:
        """Return what Stripe has, by one sum for each customer of the period."""
        if usage.shared:
            return Reading(Step.STRIPE, SHARED)
        if self._sums is None or not await self._sums.asks(of.destination):
            return Reading(Step.STRIPE, UNASKED)
        now_us = self._clock.now_us()
        until_us = min(of.end_us, now_us - now_us % MINUTE_US + MINUTE_US)
        window = Window(of.start_us, until_us)
        units = Decimal(0)
        try:
            for customer in customers:
                units += await self._sums.summed(of.destination, sync.event_name, customer, window)
        except TallygateError as error:
            return Reading(Step.STRIPE, Absent(Why.UNKNOWN, f"Stripe: {error.message}"))
        return Reading(Step.STRIPE, stripe_figure(units, sync.scale, usage))

    async def _invoices(self, asked: Sequence[PeriodAsked], catalog: Catalog) -> list[StepReading]:
        counted = [
            meter.name
            for meter in catalog.meters.values()
            if meter.aggregation is Aggregation.COUNT
        ]
        found: list[StepReading] = []
        for each in await self._reads.invoiced(asked, counted):
            meter = catalog.meters.get(each.meter)
            figure: Figure | Absent = Figure(
                each.units, late=Decimal(each.late), aside=Decimal(each.aside)
            )
            if meter is None or meter.aggregation not in ADDING:
                figure = NOT_ADDED
            found.append(StepReading(each.ask, each.meter, Reading(Step.INVOICE, figure)))
        return found


@exactly
def stripe_figure(summed: Decimal, scale: str, usage: IntendedUsage) -> Figure:
    """Return Stripe's sum in the meter's unit.

    A sum that lacks what was taken just now, or has what may have been taken, is on its way.
    """
    units = summed / Decimal(scale)
    low, high = usage.taken - usage.lacks, usage.taken + usage.exceeds
    return Figure(units, in_flight=usage.taken - units if low <= units <= high else Decimal(0))


def _intents(usage: IntendedUsage) -> Reading:
    figure = Figure(
        Decimal(usage.intended),
        late=Decimal(usage.late),
        aside=Decimal(usage.aside),
        due=Decimal(usage.due),
    )
    return Reading(Step.INTENTS, figure)


def _sent(usage: IntendedUsage, *, shadow: bool) -> Reading:
    """Return what Stripe took. What it refused, nobody else will send: that is missing."""
    if shadow:
        return Reading(Step.SENT, UNSENT)
    return Reading(
        Step.SENT,
        Figure(Decimal(usage.taken), in_flight=Decimal(usage.waiting), aside=Decimal(usage.shadow)),
    )


def _asks(
    asked: Sequence[PeriodAsked], destination: str, meter: Meter, sync: StripeSync, now_us: int
) -> Iterator[IntentsAsked]:
    for number, each in enumerate(asked):
        # As the planner cuts it: a boundary counts from its whole minute, or window, on.
        cut = whole(sync, each.period)
        yield IntentsAsked(
            ask=number,
            tenant_id=each.tenant.tenant_id,
            meter=meter.name,
            destination=destination,
            period=each.period,
            start_us=cut.start_us,
            end_us=cut.end_us,
            since_us=sync.since_us,
            window_us=sync.window_us,
            settled_us=now_us - sync.settle_us,
            fresh_us=now_us - FRESH_US,
            counts=meter.aggregation is Aggregation.COUNT,
            totals=kind_of(sync) is IntentKind.TOTAL,
        )
