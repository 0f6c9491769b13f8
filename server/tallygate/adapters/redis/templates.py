"""An operation's charges as the script takes them: all that does not change from call to call.

Guarantees: the charges of two operations that differ in accounts and amounts only have the same
template, so that a call sends it once, and the script decodes it once.
Refuses to know: accounts, amounts, and the rest of a call.
"""

import struct
from collections.abc import Sequence
from typing import Final, assert_never

from tallygate.domain.catalog import OnExceed
from tallygate.domain.decision import (
    BalanceRule,
    Charge,
    ConcurrencyRule,
    RateRule,
    Rule,
    SlidingRule,
    WindowRule,
)

# Asked for since the last change of generations. About a kilobyte each: what is bound for one call
# alone is kept here too, and must not take the memory of what is asked for again.
KEPT_MAX: Final = 2_000
# Plans, times the sets of meters that calls name, times the windows of a minute.
ALIKE_MAX: Final = 2_000

_ON_EXCEED: Final = {OnExceed.REFUSE: b"r", OnExceed.ALLOW: b"a", OnExceed.SHADOW: b"s"}
_SIZE: Final = struct.Struct("<H")
# Kind, on_exceed, limit, three numbers and a count of pairs by kind, the length of the field.
_CHARGE: Final = struct.Struct("<ccddddHH")

_Marks = Sequence[tuple[int, int]]
_Rule = tuple[bytes, int, int, int, _Marks]
_Kept = tuple[tuple[Charge, ...], bytes]
_Settings = tuple[tuple[str, str, str, int, OnExceed, Rule], ...]


class Templates:
    """Templates by the tuple of charges that they were made of, the same one and not an equal one.

    Whoever binds a tenant's limits once for many calls has them encoded once; what is bound anew,
    for another tenant of the plan, is at least not encoded anew.
    """

    def __init__(self) -> None:
        # What a generation asked for again outlives it; the rest of it is forgotten.
        self._kept: dict[int, _Kept] = {}
        self._before: dict[int, _Kept] = {}
        self._alike: dict[_Settings, bytes] = {}

    def of(self, charges: tuple[Charge, ...]) -> bytes:
        """Return the template of charges, empty for none."""
        known = self._kept.get(id(charges))
        if known is None:
            # The tuple is kept too: its identity must not be another's.
            known = self._before.get(id(charges)) or (charges, self._made(charges))
            if len(self._kept) >= KEPT_MAX:
                self._before, self._kept = self._kept, {}
            self._kept[id(charges)] = known
        return known[1]

    def _made(self, charges: tuple[Charge, ...]) -> bytes:
        settings = tuple(
            [
                (each.field, each.limit_id, each.meter, each.limit, each.on_exceed, each.rule)
                for each in charges
            ]
        )
        made = self._alike.get(settings)
        if made is None:
            if len(self._alike) >= ALIKE_MAX:
                self._alike.clear()
            made = self._alike[settings] = template(charges)
        return made


def template(charges: Sequence[Charge]) -> bytes:
    """Return the template of charges, empty for none."""
    if not charges:
        return b""
    labels = ";".join(f"{charge.limit_id},{charge.meter}" for charge in charges).encode()
    return b"".join((_SIZE.pack(len(labels)), labels, *map(_charge, charges)))


def _charge(charge: Charge) -> bytes:
    kind, one, two, three, marks = _rule(charge)
    field = charge.field.encode()
    head = _CHARGE.pack(
        kind, _ON_EXCEED[charge.on_exceed], charge.limit, one, two, three, len(marks), len(field)
    )
    numbers = [number for pair in marks for number in pair]
    return head + field + struct.pack(f"<{len(numbers)}d", *numbers)


def _rule(charge: Charge) -> _Rule:
    match charge.rule:
        case WindowRule() as rule:
            return b"w", rule.starts_us, rule.turns_us, rule.ends_us, rule.thresholds
        case RateRule() as rule:
            return b"g", rule.weight, rule.drain, rule.period_us, ()
        case SlidingRule() as rule:
            return b"s", rule.width_us, rule.buckets, 0, ()
        case ConcurrencyRule():
            return b"h", 0, 0, 0, ()
        case BalanceRule() as rule:
            return b"b", rule.overdraft, 0, 0, [(0, units) for units in rule.low_at]
        case _:
            assert_never(charge.rule)
