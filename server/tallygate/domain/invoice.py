"""An invoice: lines that add up, each with what it was made of.

Guarantees: the sum of the lines' rounded amounts is the total, always; a line names its price, its
segment of the period and the usage that it is for.
Refuses to know: how amounts are worked out, and where invoices are kept.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.price import ZERO, PriceId, PriceModel
from tallygate.domain.window import Window

NO_PRICE: Final = PriceId("")

Group = tuple[tuple[str, str], ...]
"""The values of dimensions that usage is of, by name."""


class LineKind(StrEnum):
    """What a line is for."""

    FEE = "fee"
    USAGE = "usage"
    DISCOUNT = "discount"
    MINIMUM = "minimum"
    CREDITS = "credits"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which usage a price is for: a meter's, by its values, and by what it is told apart.

    `unique_by` and `percentile_ppm` are the meter's, where its aggregation takes them. Of one that
    sets levels, `series` is what it is grouped by: each group of it has a level of its own.
    """

    meter: MeterName
    aggregation: Aggregation
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per: str = ""
    unique_by: str = ""
    percentile_ppm: int = 0
    series: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Usage of a selection in a segment, by the segment's place from 0; `group` by `per`."""

    segment: int
    selection: Selection
    quantity: Decimal
    count: int
    group: Group = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a line's working: so many units at so much each, and a fee for the step.

    `up_to` is the tier's end in this segment, None where it has none. Packages count as units.
    """

    units: Decimal
    each: Decimal
    flat: Decimal = ZERO
    up_to: int | None = None


@dataclass(frozen=True, slots=True)
class Burn:
    """Credits of one grant that pay for a line."""

    limit_id: LimitId
    seq: int
    grant_id: str
    units: Decimal


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line. `amount` is rounded; `exact` is what it was before, to 18 decimals.

    `charged` is what the price asks for in its own `unit`, a currency or `credits`; each of them is
    worth `rate` of the invoice's currency. Of a minimum it is the least that is asked for, of
    credits what is burned. `percent` is a discount's. `share` says which part of the period the
    price counts for, as microseconds of it and of all.

    A line that follows from others of its price (discount, minimum, credits) is the difference
    between what these come to, rounded, with it and without it: together they are rounded once.

    `adjusts` is the closed period that a line changes what was asked for: quantity, parts and
    amount are then by how much. Its segment lies in that period, and credits are burned for it.
    """

    number: int
    kind: LineKind
    plan: PlanName
    segment: Window
    amount: Decimal
    exact: Decimal
    price_id: PriceId = NO_PRICE
    model: PriceModel | None = None
    selection: Selection | None = None
    group: Group = ()
    quantity: Decimal = ZERO
    count: int = 0
    included: int = 0
    parts: tuple[Part, ...] = ()
    charged: Decimal = ZERO
    percent: Decimal = ZERO
    unit: str = ""
    rate: Decimal = Decimal(1)
    share: tuple[int, int] = (1, 1)
    burn: Burn | None = None
    description: str = ""
    adjusts: Window | None = None


@dataclass(frozen=True, slots=True)
class Invoice:
    """What a tenant owes for a period, in one currency.

    `subtotal` adds up fees, usage and minimums; `discounts` and `credits` are 0 or below.
    `catalogs` are the versions of the catalog that its segments lie under, `unpriced` the meters
    with usage that no price of the plan was for.
    """

    tenant_id: TenantId
    period: Window
    currency: str
    lines: tuple[InvoiceLine, ...]
    subtotal: Decimal
    discounts: Decimal
    credits: Decimal
    total: Decimal
    catalogs: tuple[int, ...] = ()
    unpriced: tuple[MeterName, ...] = ()
