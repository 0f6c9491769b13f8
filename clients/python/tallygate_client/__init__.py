"""Clients of Tallygate: ask before costly work, tell what was used.

`Client` is for threads, `AsyncClient` for asyncio; all that they give and raise is here.
"""

from .aio import AsyncClient
from .aio_reservation import AsyncReservation
from .cancellation import Cancellation
from .client import Client, Reservation
from .errors import (
    BufferFull,
    Cancelled,
    Closed,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    ResourceExhausted,
    SpoolFailed,
    SpoolInUse,
    TallygateError,
    Unauthenticated,
    Unavailable,
)
from .options import BufferOptions, Hooks, Tls
from .results import (
    Decision,
    Durability,
    Excess,
    Extension,
    LimitState,
    LimitStatus,
    Outcome,
    Quota,
    QuotaChange,
    Recorded,
    Refunded,
    Settlement,
    WatchCause,
)
from .stats import Stats
from .values import Charge, Context, Item, Usage
from .version import VERSION

__version__ = VERSION

__all__ = [
    "AsyncClient",
    "AsyncReservation",
    "BufferFull",
    "BufferOptions",
    "Cancellation",
    "Cancelled",
    "Charge",
    "Client",
    "Closed",
    "Context",
    "DeadlineExceeded",
    "Decision",
    "Durability",
    "Excess",
    "Extension",
    "FailedPrecondition",
    "Hooks",
    "Internal",
    "InvalidRequest",
    "Item",
    "LimitState",
    "LimitStatus",
    "NotFound",
    "Outcome",
    "PermissionDenied",
    "Quota",
    "QuotaChange",
    "QuotaExceeded",
    "Recorded",
    "Refunded",
    "Reservation",
    "ResourceExhausted",
    "Settlement",
    "SpoolFailed",
    "SpoolInUse",
    "Stats",
    "TallygateError",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "WatchCause",
    "__version__",
]
