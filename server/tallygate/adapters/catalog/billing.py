"""A tenant's `billing`: how its billing periods follow each other, and how long each is waited for.

Guarantees: without `billing`, periods are what the anchor alone says, as they always were.
Refuses to know: which tenant it is.
"""

from typing import Final

from yaml.nodes import MappingNode, Node

from tallygate.adapters.catalog.nodes import Reader
from tallygate.domain.window import Billing, BillingKind

_BILLING: Final = ("period", "grace")
_OWN: Final = ("every", "starts")


def billing(read: Reader, node: Node | None, path: str, time_zone: str) -> Billing | None:
    """Return a tenant's billing, None where nothing is said; what is wrong is told to `read`."""
    if node is None:
        return None
    parts = read.mapping(node, path, _BILLING)
    grace_us = read.duration_us(parts.get("grace"), f"{path}.grace", 0)
    period, at = parts.get("period"), f"{path}.period"
    if not isinstance(period, MappingNode):
        kind = read.choice(
            period,
            at,
            BillingKind,
            default=BillingKind.ANNIVERSARY,
        )
        if kind in _OWN and period is not None:
            read.fault(period, at, f"must say what: {{{kind}: ...}}")
            kind = BillingKind.ANNIVERSARY
        return Billing(kind, grace_us=grace_us)
    own = read.mapping(period, at, _OWN)
    if len(own) != 1:
        if own or not period.value:
            read.fault(period, at, "must have one of every, starts")
        # A key that is misspelt is told already.
        return Billing(grace_us=grace_us)
    if "every" in own:
        every_us = read.duration_us(own["every"], f"{at}.every", 0)
        return Billing(BillingKind.EVERY, every_us, grace_us=grace_us)
    starts_us = tuple(
        read.instant_us(item, place, time_zone)
        for item, place in read.sequence(own.get("starts"), f"{at}.starts")
    )
    return Billing(BillingKind.STARTS, starts_us=starts_us, grace_us=grace_us)
