"""The limits of a catalog document's plans, and the overrides of its tenants.

Guarantees: a key that does not suit its limit's kind is a fault even where it says nothing.
Refuses to know: whether numbers hold together; that is for the catalog's rules.
"""

import re
from typing import Final

from yaml.nodes import Node, ScalarNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.adapters.catalog.wheres import where
from tallygate.domain.catalog import Limit, LimitKind, OnExceed, OnOutage, Override
from tallygate.domain.ids import AMOUNT_MAX, LimitId, MeterName
from tallygate.domain.limit_rules import SUITS, unsuited
from tallygate.domain.path_fault import closest
from tallygate.domain.window import Period

_LIMIT: Final = (
    *("id", "meter", "kind", "period", "duration", "limit", "burst", "on_exceed", "warn_at"),
    *("overdraft", "low_at", "per", "where", "on_outage", "exact"),
)
_OVERRIDE: Final = ("limit", "burst", "expires", "reason")
_NEEDED: Final = ("period", "duration", "limit")
"""Required wherever they suit; the other fields that suit some kinds may be left out."""

_OUTAGES: Final = (OnOutage.REFUSE, OnOutage.ALLOW, "local_budget(500)")
_BUDGET: Final = re.compile(r"local_budget\((0|[1-9][0-9]{0,15}(?:_[0-9]{1,15}){0,15})\)")


def limit(read: Reader, node: Node, path: str) -> Limit:
    """Return one limit of a plan; what is wrong is told to `read`."""
    parts = read.mapping(node, path, _LIMIT)
    for name in ("id", "meter", "kind"):
        read.needed(parts, name, node, path)
    kind = read.choice(parts.get("kind"), f"{path}.kind", LimitKind, default=LimitKind.WINDOW)
    _suit(read, parts, node, path)
    number = 0
    if kind is not LimitKind.BALANCE:
        # Where no number could be read, one that breaks no other rule stands in.
        number = read.quantity(parts.get("limit"), f"{path}.limit", 1)
    followed = number if kind is LimitKind.RATE else 0
    on_outage, local_budget = _outage(read, parts.get("on_outage"), f"{path}.on_outage")
    return Limit(
        limit_id=LimitId(read.text(parts.get("id"), f"{path}.id")),
        meter=MeterName(read.text(parts.get("meter"), f"{path}.meter")),
        kind=kind,
        period=_period(read, parts.get("period"), kind, f"{path}.period"),
        limit=number,
        burst=read.integer(parts.get("burst"), f"{path}.burst", followed),
        on_exceed=read.choice(
            parts.get("on_exceed"), f"{path}.on_exceed", OnExceed, default=OnExceed.REFUSE
        ),
        warn_at_ppm=read.ratios_ppm(parts.get("warn_at"), f"{path}.warn_at"),
        duration_us=read.duration_us(parts.get("duration"), f"{path}.duration", 0),
        overdraft=read.integer(parts.get("overdraft"), f"{path}.overdraft"),
        low_at=read.integers(parts.get("low_at"), f"{path}.low_at"),
        per=read.text(parts.get("per"), f"{path}.per"),
        where=where(read, parts.get("where"), f"{path}.where"),
        on_outage=on_outage,
        local_budget=local_budget,
        exact=read.flag(parts.get("exact"), f"{path}.exact"),
    )


def override(read: Reader, limit_id: str, node: Node, *, path: str, time_zone: str) -> Override:
    """Return one override; an expiry that names no offset is in `time_zone`."""
    parts = read.mapping(node, path, _OVERRIDE)
    number = read.quantity(read.needed(parts, "limit", node, path), f"{path}.limit")
    expires = parts.get("expires")
    expires_at_us, told = 0, len(read.faults)
    if expires is not None:
        expires_at_us = read.instant_us(expires, f"{path}.expires", time_zone)
        if expires_at_us == 0 and len(read.faults) == told:
            # The epoch itself: 0 says that there is no end.
            read.fault(expires, f"{path}.expires", "must be after 1970-01-01")
    return Override(
        limit_id=LimitId(limit_id),
        limit=number,
        burst=read.integer(parts.get("burst"), f"{path}.burst"),
        expires_at_us=expires_at_us,
        reason=read.text(parts.get("reason"), f"{path}.reason"),
    )


def _suit(read: Reader, parts: dict[str, Node], node: Node, path: str) -> None:
    kind = parts.get("kind")
    if not isinstance(kind, ScalarNode) or kind.value not in [*LimitKind]:
        # Whatever stands in for the kind says nothing of what suits it.
        return
    for name, kinds in SUITS.items():
        if name in parts and kind.value not in kinds:
            read.fault(parts[name], f"{path}.{name}", unsuited(name))
        elif name in _NEEDED and kind.value in kinds:
            read.needed(parts, name, node, path)


def _period(read: Reader, node: Node | None, kind: LimitKind, path: str) -> Period | None:
    # A period that could not be read, or is not there, is told already.
    found = read.choice(node, path, Period, default=Period.MINUTE)
    return found if kind in SUITS["period"] else None


def _outage(read: Reader, node: Node | None, path: str) -> tuple[OnOutage, int]:
    if node is None:
        return OnOutage.REFUSE, 0
    text = read.text(node, path)
    if text in (OnOutage.REFUSE, OnOutage.ALLOW):
        return OnOutage(text), 0
    budget = _BUDGET.fullmatch(text) if isinstance(node, ScalarNode) else None
    if budget:
        units = int(budget[1])
        if 1 <= units <= AMOUNT_MAX:
            return OnOutage.LOCAL_BUDGET, units
        read.fault(node, path, f"local_budget must be from 1 to {AMOUNT_MAX}")
    elif text:
        message = f"must be one of {', '.join(_OUTAGES)}, not {text!r}"
        read.fault(node, path, message, closest(text, _OUTAGES))
    return OnOutage.REFUSE, 0
