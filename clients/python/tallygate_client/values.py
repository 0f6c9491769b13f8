"""What a caller gives to a call: items, circumstances, usage, charges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from .results import Durability, Excess

if TYPE_CHECKING:
    from .cancellation import Cancellation

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Item:
    """One use of one meter, in the meter's smallest unit."""

    meter: str
    amount: int
    dimensions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)


# `{"requests": 1}` where no item has dimensions and no meter comes twice.
Items = Mapping[str, int] | Iterable[Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The circumstances of a use, stored with its events. All are optional.

    Attributes:
        subject_id: who used it, inside the tenant.
        resource_id: what was used.
        session_id: the session in which it was used.
        region: where it was used.
        sku: the stock-keeping unit it is sold as.
        correlation_id: what ties it to your own traces.
        sdk: the client's name and version; this package's unless set.
    """

    subject_id: str = ""
    resource_id: str = ""
    session_id: str = ""
    region: str = ""
    sku: str = ""
    correlation_id: str = ""
    sdk: str = ""


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge of a list."""

    tenant: str
    items: Items
    operation_id: str = ""
    context: Context | None = None
    min_durability: Durability = Durability.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Usage:
    """One use that has happened.

    Attributes:
        tenant: who pays.
        meter: the meter's name in the catalog.
        amount: in the meter's smallest unit.
        event_id: unique per tenant; made where empty, once for all tries.
        event_time: when it was used, with its zone; None for now.
        dimensions: at most 16.
        context: the circumstances.
        metadata: at most 4 KiB as JSON.
        operation_id: the logical call; the event's id where empty.
        min_durability: the least durability that will do.
    """

    tenant: str
    meter: str
    amount: int
    event_id: str = ""
    event_time: datetime | None = None
    dimensions: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    context: Context | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    operation_id: str = ""
    min_durability: Durability = Durability.UNSPECIFIED


class CallOptions(TypedDict, total=False):
    """What any call takes.

    `timeout`: seconds for the whole logical call, retries included.
    `cancel`: ends the call from another thread; asyncio has its own means.
    """

    timeout: float
    cancel: Cancellation


class CheckOptions(CallOptions, total=False):
    """What `check` takes besides: `context`, the circumstances."""

    context: Context


class ChargeOptions(CheckOptions, total=False):
    """What a charge takes besides.

    `operation_id`: names the logical call; made where it is not given, once for all tries.
    `min_durability`: the least durability that will do.
    """

    operation_id: str
    min_durability: Durability


class ReserveOptions(CheckOptions, total=False):
    """What a reservation takes besides.

    `operation_id`: names the logical call.
    `ttl`: seconds after which the units come back by themselves, 60 unless set.
    `excess`: what to do with usage beyond what was reserved, `RECORD` unless set, as the work is
    done by then.
    """

    operation_id: str
    ttl: float
    excess: Excess


class CommitOptions(CallOptions, total=False):
    """What `commit` takes besides: `operation_id`, and `excess`, `ASK` unless set."""

    operation_id: str
    excess: Excess


class ReleaseOptions(CallOptions, total=False):
    """What `release` takes besides: `operation_id`."""

    operation_id: str


class RefundOptions(CallOptions, total=False):
    """What `refund` takes besides: `operation_id`, and `reason`, for people."""

    operation_id: str
    reason: str


class ReadOptions(CallOptions, total=False):
    """What reading takes besides: only these `meters`, and whose `dimensions`."""

    meters: Iterable[str]
    dimensions: Mapping[str, str]


class UsageOptions(TypedDict, total=False):
    """What an event may have besides tenant, meter and amount; see `Usage`."""

    event_id: str
    event_time: datetime
    dimensions: Mapping[str, str]
    context: Context
    metadata: Mapping[str, Any]
    operation_id: str
    min_durability: Durability


class RecordOptions(UsageOptions, total=False):
    """What `record` takes besides an event's own."""

    timeout: float
    cancel: Cancellation
