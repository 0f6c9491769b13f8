"""Tells a method's own options from those of the call that it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import requests
from .gen.v1 import quota_pb2
from .values import Charge, Items, Usage

if TYPE_CHECKING:
    from .values import (
        CallOptions,
        ChargeOptions,
        ReadOptions,
        RecordOptions,
        ReserveOptions,
        UsageOptions,
    )

_OF_CALL = ("timeout", "cancel")
_OF_USAGE = (
    *("event_id", "event_time", "dimensions", "context"),
    *("metadata", "operation_id", "min_durability"),
)


def charge_of(tenant: str, items: Items, options: ChargeOptions) -> tuple[Charge, CallOptions]:
    """Return a charge, and what is left for the call."""
    own, rest = _split(options, ("operation_id", "context", "min_durability"))
    return Charge(tenant, items, **own), rest


def reserve_of(
    tenant: str, items: Items, options: ReserveOptions
) -> tuple[quota_pb2.ReserveRequest, CallOptions]:
    """Return a reservation's request, and what is left for the call."""
    own, rest = _split(options, ("operation_id", "ttl", "context"))
    name = own.get("operation_id") or requests.new_id()
    return requests.reserve(tenant, items, name, own.get("ttl"), own.get("context")), rest


def quota_of(tenant: str, options: ReadOptions) -> tuple[quota_pb2.GetQuotaRequest, CallOptions]:
    """Return a reading's request, and what is left for the call."""
    own, rest = _split(options, ("meters", "dimensions"))
    return requests.get_quota(tenant, own.get("meters", ()), own.get("dimensions", {})), rest


def watch_of(tenant: str, options: ReadOptions) -> tuple[quota_pb2.WatchQuotaRequest, CallOptions]:
    """Return a watch's request, and what is left for the call."""
    own, rest = _split(options, ("meters", "dimensions"))
    return requests.watch_quota(tenant, own.get("meters", ()), own.get("dimensions", {})), rest


def usage_of(
    tenant: str, meter: str, amount: int, options: RecordOptions | UsageOptions
) -> tuple[Usage, CallOptions]:
    """Return a use, and what is left for the call."""
    own, rest = _split(options, _OF_USAGE)
    return Usage(tenant, meter, amount, **own), rest


def _split(options: Any, names: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """Divide options; one that nobody knows is refused as Python refuses a keyword."""
    own = {name: options[name] for name in names if name in options}
    rest = {name: value for name, value in options.items() if name not in own}
    for name in rest:
        if name not in _OF_CALL:
            raise TypeError(f"unexpected keyword argument {name!r}")
    return own, rest
