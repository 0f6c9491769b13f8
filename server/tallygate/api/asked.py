"""What a request asks for that callers need leave for: its tenant and its meters.

Guarantees: a request that names no meter, and would get all of them, asks for all; of a method that
is not in the table nobody can ask.
Refuses to know: who may ask.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tallygate.domain import ids
from tallygate.domain.identity import ANY, NO_METER
from tallygate.domain.request import ITEMS_MAX

Meters = Sequence[tuple[str, str]]
"""Meters, each with the field that names it."""
Asked = tuple[str, Meters]
"""The tenant, and the meters."""
AskedOf = Callable[[Any], Asked]

# A reservation's meters were asked for when it was made: who may ask for its tenant settles it.
_NONE: Final[Meters] = ((NO_METER, "tenant_id"),)
# Nothing in the request says whose usage is taken back, but its tenant.
_ALL: Final[Meters] = ((ANY, "tenant_id"),)


def _of_items(message: Any) -> Asked:  # noqa: ANN401  any request with items
    # More are refused for their number, and none for that, whoever asks.
    items = message.items[:ITEMS_MAX]
    named = [(each.meter, f"items[{index}].meter") for index, each in enumerate(items)]
    return message.tenant_id, named or _NONE


def _of_meters(message: Any) -> Asked:  # noqa: ANN401  any request with meters
    meters = message.meters[:ITEMS_MAX]
    named = [(each, f"meters[{index}]") for index, each in enumerate(meters)]
    return message.tenant_id, named or ((ANY, "meters"),)


def _of_usage(message: Any) -> Asked:  # noqa: ANN401  any request with a meter
    return message.tenant_id, ((message.meter, "meter"),)


def _of_tenant(message: Any) -> Asked:  # noqa: ANN401  any request with a tenant alone
    return message.tenant_id, _NONE


def _of_any_event(message: Any) -> Asked:  # noqa: ANN401  a refund
    return message.tenant_id, _ALL


_FINDERS: Final[Mapping[str, AskedOf]] = {
    "CheckAndConsume": _of_items,
    "BatchCheckAndConsume": _of_items,
    "Check": _of_items,
    "GetQuota": _of_meters,
    "WatchQuota": _of_meters,
    "Reserve": _of_items,
    "Commit": _of_tenant,
    "Release": _of_tenant,
    "ExtendReservation": _of_tenant,
    "Refund": _of_any_event,
    "RecordUsage": _of_usage,
    "BatchRecordUsage": _of_usage,
    "StreamRecordUsage": _of_usage,
}
"""By method; of those that take lists, for one request of the list."""


def asked_of(method: str) -> AskedOf:
    """Return how to find it in a method's requests. It raises `InvalidField` for no tenant's id."""
    found = _FINDERS[method]

    def asked(message: Any) -> Asked:  # noqa: ANN401  the method's own
        # What is no tenant's id at all is told to everybody, as it is nobody's secret.
        ids.tenant_id(message.tenant_id)
        return found(message)

    return asked
