"""What a catalog document says of Stripe: a meter's `stripe`, and a destination's own keys.

Guarantees: a scale is kept as it is written, so that no decimal is rounded in reading.
Refuses to know: whether meters and destinations hold together; that is for the catalog's rules.
"""

from typing import Final

from yaml.nodes import Node, ScalarNode

from tallygate.adapters.catalog.nodes import Reader
from tallygate.domain.stripe_sync import (
    SETTLE_US,
    Mode,
    Proration,
    StripeAccount,
    StripeSync,
    SyncWindow,
    Way,
    is_scale,
)

ACCOUNT_KEYS: Final = ("mode", "shadow", "account", "calls_per_s", "reports_secret", "fees")
_SYNC: Final = (
    *("way", "event_name", "since", "window", "scale", "settle", "early", "overwrite"),
    *("v2_stream", "dimensions", "price", "destination", "proration"),
)


def sync(read: Reader, node: Node | None, path: str) -> StripeSync | None:
    """Return how a meter is synced, None where nothing is said of it."""
    if node is None:
        return None
    parts = read.mapping(node, path, _SYNC)
    read.needed(parts, "way", node, path)
    dimensions = read.mapping(parts.get("dimensions"), f"{path}.dimensions")
    since = parts.get("since")
    return StripeSync(
        way=read.choice(parts.get("way"), f"{path}.way", Way, default=Way.INVOICE_ITEMS),
        event_name=read.text(parts.get("event_name"), f"{path}.event_name"),
        since_us=read.instant_us(since, f"{path}.since", "UTC") if since is not None else 0,
        window=read.choice(
            parts.get("window"), f"{path}.window", SyncWindow, default=SyncWindow.HOUR
        ),
        scale=_scale(read, parts.get("scale"), f"{path}.scale"),
        settle_us=read.duration_us(parts.get("settle"), f"{path}.settle", SETTLE_US),
        early=read.flag(parts.get("early"), f"{path}.early"),
        overwrite=read.flag(parts.get("overwrite"), f"{path}.overwrite"),
        v2_stream=read.flag(parts.get("v2_stream"), f"{path}.v2_stream"),
        dimensions=tuple(
            (key, read.text(name, f"{path}.dimensions.{key}"))
            for key, name in sorted(dimensions.items())
        ),
        price=read.text(parts.get("price"), f"{path}.price"),
        destination=read.text(parts.get("destination"), f"{path}.destination"),
        proration=read.choice(
            parts.get("proration"), f"{path}.proration", Proration, default=Proration.CREATE
        ),
    )


def account(
    read: Reader, parts: dict[str, Node], path: str, reports: dict[str, str]
) -> StripeAccount:
    """Return what a destination of kind stripe has of its own."""
    return StripeAccount(
        mode=read.choice(parts.get("mode"), f"{path}.mode", Mode, default=Mode.SANDBOX),
        shadow=read.flag(parts.get("shadow"), f"{path}.shadow"),
        account=read.text(parts.get("account"), f"{path}.account"),
        calls_per_s=read.integer(parts.get("calls_per_s"), f"{path}.calls_per_s"),
        reports_env=reports.get("env", ""),
        reports_file=reports.get("file", ""),
        fees=read.flag(parts.get("fees"), f"{path}.fees"),
    )


def _scale(read: Reader, node: Node | None, path: str) -> str:
    if node is None:
        return "1"
    value = read.text(node, path)
    if value and isinstance(node, ScalarNode) and not is_scale(value):
        read.fault(node, path, "must be a decimal above 0, with at most 12 decimals, as 0.001")
        return "1"
    return value or "1"
