"""By how much one working of a period's lines is another than the one before.

Guarantees: the differences add up to the difference of both sums, coin by coin, and the parts of
each to its own; lines that are alike in both are left out.
Refuses to know: why a period was worked out again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

from tallygate.domain.invoice import Burn, Group, InvoiceLine, LineKind, Part, Selection
from tallygate.domain.money import exactly, rounded, shown
from tallygate.domain.price import ZERO, PriceId, Rounding
from tallygate.domain.window import Window


@dataclass(frozen=True, slots=True)
class LineKey:
    """What a line is for: the same in both workings of a period."""

    kind: LineKind
    plan: str
    segment: Window
    price_id: PriceId
    group: Group
    selection: Selection | None
    unit: str
    grant: tuple[str, int] | None
    adjusts: Window | None


PartKey: TypeAlias = tuple[Decimal, int | None]


@exactly
def differences(
    before: Sequence[InvoiceLine], after: Sequence[InvoiceLine]
) -> tuple[InvoiceLine, ...]:
    """Return by how much each line is another, in the order of what is now, then of what was."""
    was, now = _summed(before), _summed(after)
    changes = (_difference(was.get(key), now.get(key)) for key in dict.fromkeys((*now, *was)))
    return tuple(each for each in changes if _says(each))


@exactly
def converted(
    lines: Iterable[InvoiceLine], rate: Decimal, currency: str, rounding: Rounding
) -> list[InvoiceLine]:
    """Return lines in another currency: their sum is rounded once, each is what it changes by."""
    found: list[InvoiceLine] = []
    exact, sofar = ZERO, ZERO
    for line in lines:
        exact += line.amount * rate
        now = rounded(exact, currency, rounding)
        found.append(
            replace(line, amount=now - sofar, exact=shown(line.exact * rate), rate=line.rate * rate)
        )
        sofar = now
    return found


def _summed(lines: Iterable[InvoiceLine]) -> dict[LineKey, InvoiceLine]:
    """Return lines by what they are for; a fee may be taken back and asked for anew."""
    found: dict[LineKey, InvoiceLine] = {}
    for line in lines:
        key = _key(line)
        same = found.get(key)
        found[key] = line if same is None else _added(line, same, 1)
    return found


def _difference(was: InvoiceLine | None, now: InvoiceLine | None) -> InvoiceLine:
    if now is None:
        assert was is not None
        now = _nothing(was)
    return _added(now, was, -1) if was is not None else now


def _nothing(line: InvoiceLine) -> InvoiceLine:
    burn = replace(line.burn, units=ZERO) if line.burn is not None else None
    return replace(
        line,
        amount=ZERO,
        exact=ZERO,
        quantity=ZERO,
        count=0,
        parts=(),
        charged=ZERO,
        burn=burn,
    )


def _added(line: InvoiceLine, other: InvoiceLine, sign: int) -> InvoiceLine:
    burn: Burn | None = None
    if line.burn is not None and other.burn is not None:
        burn = replace(line.burn, units=line.burn.units + sign * other.burn.units)
    return replace(
        line,
        amount=line.amount + sign * other.amount,
        exact=line.exact + sign * other.exact,
        quantity=line.quantity + sign * other.quantity,
        count=line.count + sign * other.count,
        included=0,
        parts=_parts(line.parts, other.parts, sign),
        charged=line.charged + sign * other.charged,
        burn=burn,
    )


def _parts(parts: Sequence[Part], others: Sequence[Part], sign: int) -> tuple[Part, ...]:
    """Return steps of a working whose sum is the difference of both workings' sums."""
    found: dict[PartKey, Part] = {}
    for part in (*parts, *(_times(part, sign) for part in others)):
        key = (part.each, part.up_to)
        same = found.get(key, Part(ZERO, part.each, ZERO, part.up_to))
        found[key] = replace(same, units=same.units + part.units, flat=same.flat + part.flat)
    return tuple(part for part in found.values() if part.units or part.flat)


def _times(part: Part, sign: int) -> Part:
    return replace(part, units=sign * part.units, flat=sign * part.flat)


def _says(line: InvoiceLine) -> bool:
    """Say whether anything of a difference is not nothing."""
    burned = line.burn is not None and line.burn.units
    return bool(line.amount or line.quantity or line.count or line.charged or burned)


def _key(line: InvoiceLine) -> LineKey:
    return LineKey(
        line.kind,
        line.plan,
        line.segment,
        line.price_id,
        line.group,
        line.selection,
        line.unit,
        (line.burn.limit_id, line.burn.seq) if line.burn is not None else None,
        line.adjusts,
    )
