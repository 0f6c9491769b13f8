"""Every bad field of the two phases and of refunds: its status, its reason, its path."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tallygate.domain.ids import AMOUNT_MAX, TenantId
from tallygate.gen.v1 import quota_pb2
from tests.api.phases import Pair, item, pair
from tests.builders import CatalogInMemory, catalog, tenant, window
from tests.sidecar import failure

ITEMS = [item(1)]
HELD = "03-job"
DAY_S = 86_400
Bad = tuple[str, dict[str, object], str]


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Pair]:
    """Two sidecars, and a tenant that is suspended."""
    tenants = {TenantId("late"): tenant("late", suspended=True)}
    async with pair(redis_url, CatalogInMemory(catalog(window()), tenants)) as made:
        yield made


def ttl(seconds: int = 0, nanos: int = 0) -> dict[str, object]:
    """Return a reservation with a time to live."""
    return {"items": ITEMS, "ttl": Duration(seconds=seconds, nanos=nanos)}


RESERVE: list[Bad] = [
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("a tenant with a space", {"tenant_id": "a b"}, "tenant_id"),
    ("no items", {"items": []}, "items"),
    ("65 items", {"items": ITEMS * 65}, "items"),
    ("amount 0", {"items": [item(1), item(0)]}, "items[1].amount"),
    ("a negative amount", {"items": [item(-1)]}, "items[0].amount"),
    ("amount 2^53", {"items": [item(AMOUNT_MAX + 1)]}, "items[0].amount"),
    ("an unknown meter", {"items": [item(1, "nope")]}, "items[0].meter"),
    ("a long operation id", {"items": ITEMS, "operation_id": "x" * 129}, "operation_id"),
    ("an operation id with a space", {"items": ITEMS, "operation_id": "a b"}, "operation_id"),
    ("a ttl of nothing", ttl(), "ttl"),
    ("a ttl under 1 ms", ttl(nanos=999_999), "ttl"),
    ("a ttl over a day", ttl(DAY_S, 1_000), "ttl"),
    ("a negative ttl", ttl(-1), "ttl"),
    ("a ttl that is none", ttl(1, 2**31 - 1), "ttl"),
    ("the longest ttl of all", ttl(2**63 - 1), "ttl"),
]
COMMIT: list[Bad] = [
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("no reservation", {"reservation_id": ""}, "reservation_id"),
    ("a long reservation", {"reservation_id": "03-" + "x" * 129}, "reservation_id"),
    ("a reservation with a space", {"reservation_id": "03-a b\u00fc"}, "reservation_id"),
    ("a negative amount", {"amounts": [1, -1]}, "amounts[1]"),
    ("amount 2^53", {"amounts": [AMOUNT_MAX + 1]}, "amounts[0]"),
    ("65 amounts", {"amounts": [1] * 65}, "amounts"),
    ("an odd excess", {"excess": 9}, "excess"),
    ("a long operation id", {"operation_id": "x" * 129}, "operation_id"),
]
EXTEND: list[Bad] = [
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("no reservation", {"reservation_id": ""}, "reservation_id"),
    ("a ttl over a day", {"ttl": Duration(seconds=DAY_S + 1)}, "ttl"),
    ("a ttl of nothing", {"ttl": Duration()}, "ttl"),
]
RELEASE: list[Bad] = [
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("no reservation", {"reservation_id": ""}, "reservation_id"),
    ("an operation id with a line end", {"operation_id": "a\r\n"}, "operation_id"),
]
REFUND: list[Bad] = [
    ("no tenant", {"tenant_id": ""}, "tenant_id"),
    ("no event", {"event_id": ""}, "event_id"),
    ("a long event", {"event_id": "x" * 133}, "event_id"),
    ("an event with a space", {"event_id": "a b"}, "event_id"),
    ("a long event with a space", {"event_id": "x" * 128 + " 1"}, "event_id"),
    ("no operation id", {"operation_id": ""}, "operation_id"),
    ("a negative amount", {"amount": -1}, "amount"),
    ("amount 2^53", {"amount": AMOUNT_MAX + 1}, "amount"),
    ("a long reason", {"reason": "x" * 257}, "reason"),
    ("NUL in a reason", {"reason": "a\0"}, "reason"),
]
CASES: list[tuple[str, Any, dict[str, object], str]] = [
    (method, request, {**good, **fields}, path)
    for method, request, good, cases in (
        ("Reserve", quota_pb2.ReserveRequest, {"tenant_id": "acme"}, RESERVE),
        (
            "Commit",
            quota_pb2.CommitRequest,
            {"tenant_id": "acme", "reservation_id": HELD},
            COMMIT,
        ),
        (
            "ExtendReservation",
            quota_pb2.ExtendReservationRequest,
            {"tenant_id": "acme", "reservation_id": HELD},
            EXTEND,
        ),
        (
            "Release",
            quota_pb2.ReleaseRequest,
            {"tenant_id": "acme", "reservation_id": HELD},
            RELEASE,
        ),
        (
            "Refund",
            quota_pb2.RefundRequest,
            {"tenant_id": "acme", "event_id": "op:0", "operation_id": "r"},
            REFUND,
        ),
    )
    for _, fields, path in cases
]
NAMES = [
    f"{method}: {case[0]}"
    for method, cases in (
        ("Reserve", RESERVE),
        ("Commit", COMMIT),
        ("Extend", EXTEND),
        ("Release", RELEASE),
        ("Refund", REFUND),
    )
    for case in cases
]


async def test_a_bad_field_is_refused_by_its_path(side: Pair) -> None:
    """Each is told by the path of its field, and none leaves a trace."""
    for name, (method, request, fields, path) in zip(NAMES, CASES, strict=True):
        told = await failure(getattr(side.a, method)(request(**fields)))
        assert told.fields == [path], name
        unknown = name == "Reserve: an unknown meter"
        wanted = grpc.StatusCode.NOT_FOUND if unknown else grpc.StatusCode.INVALID_ARGUMENT
        assert told.code is wanted, name
        reasons = ("UNKNOWN_METER",) if unknown else ("INVALID_FIELD", "TOO_MANY_ITEMS")
        assert told.reason in reasons, name
    assert await side.used() == {"monthly": 0}
    assert await side.events() == []


async def test_a_suspended_tenant_reserves_nothing_but_settles(redis_url: str) -> None:
    """What was granted before is settled and refunded still; nothing new is held."""
    view = CatalogInMemory(catalog(window()))
    async with pair(redis_url, view) as side:
        held, freed = await side.reserve(10, name="job"), await side.reserve(5, name="freed")
        view.tenants = {TenantId("acme"): tenant(suspended=True)}
        told = await failure(side.reserve(1))
        assert (told.reason, told.fields) == ("TENANT_SUSPENDED", ["tenant_id"])
        assert (await side.extend(held)).outcome == quota_pb2.RESERVATION_OUTCOME_EXTENDED
        done = await side.commit(held, 7)
        assert done.outcome == quota_pb2.RESERVATION_OUTCOME_COMMITTED
        assert (await side.release(freed)).outcome == quota_pb2.RESERVATION_OUTCOME_RELEASED
        assert (await side.refund(done.event_ids[0], 2)).amount == 2
        assert await side.used() == {"monthly": 5}
