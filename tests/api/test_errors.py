"""Every error a caller can meet, over a real channel: its status, reason and field."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest

from tallygate.api.status import CODES
from tallygate.domain.catalog import OnExceed, Tenant
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import AMOUNT_MAX, TenantId
from tallygate.gen.v1 import event_pb2, quota_pb2, quota_pb2_grpc, reason_pb2
from tests.builders import CatalogInMemory, catalog, window
from tests.sidecar import QUOTA, USAGE, Tuning, channel, charge, failure, refused, sidecar

Code = grpc.StatusCode
INVALID, NOT_FOUND = Code.INVALID_ARGUMENT, Code.NOT_FOUND
CONSUME = f"/{QUOTA}/CheckAndConsume"
Request = quota_pb2.CheckAndConsumeRequest


@dataclass(frozen=True)
class Side:
    """A sidecar that a test calls, and the catalog it goes by."""

    view: CatalogInMemory
    channel: grpc.aio.Channel
    quota: "quota_pb2_grpc.QuotaServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "quota", quota_pb2_grpc.QuotaServiceStub(self.channel))

    async def raw(self, data: bytes, method: str = CONSUME) -> object:
        """Send bytes as they are."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return await call(data, timeout=10)


@pytest.fixture
async def side(redis_url: str) -> AsyncIterator[Side]:
    """A sidecar with one soft limit."""
    view = CatalogInMemory(catalog(window(limit=1_000, on_exceed=OnExceed.ALLOW)))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        yield Side(view, opened)


def item(
    meter: str = "requests", amount: int = 1, dimensions: dict[str, str] | None = None
) -> quota_pb2.Item:
    """Return one item."""
    return quota_pb2.Item(meter=meter, amount=amount, dimensions=dimensions)


def request(**fields: object) -> Request:
    """Return a good charge with other fields replaced."""
    values: dict[str, object] = {"tenant_id": "acme", "items": [item()]}
    return Request(**{**values, **fields})  # type: ignore[arg-type]  # fields by name


# Per case: what it is about, the request, the code, the reason, the field.
BAD_CHARGES = [
    ("nothing", Request(), INVALID, "INVALID_FIELD", "tenant_id"),
    ("no tenant", request(tenant_id=""), INVALID, "INVALID_FIELD", "tenant_id"),
    ("a long tenant", request(tenant_id="x" * 129), INVALID, "INVALID_FIELD", "tenant_id"),
    ("a tenant with a space", request(tenant_id="a b"), INVALID, "INVALID_FIELD", "tenant_id"),
    ("a tenant with CRLF", request(tenant_id="a\r\nb"), INVALID, "INVALID_FIELD", "tenant_id"),
    ("a tenant with NUL", request(tenant_id="a\0"), INVALID, "INVALID_FIELD", "tenant_id"),
    ("no items", request(items=[]), INVALID, "INVALID_FIELD", "items"),
    ("65 items", request(items=[item()] * 65), INVALID, "TOO_MANY_ITEMS", "items"),
    ("10,000 items", request(items=[item()] * 10_000), INVALID, "TOO_MANY_ITEMS", "items"),
    ("no meter", request(items=[item("")]), INVALID, "INVALID_FIELD", "items[0].meter"),
    ("a meter's odd name", request(items=[item("A;b")]), INVALID, "INVALID_FIELD",
     "items[0].meter"),
    ("an unknown meter", request(items=[item(), item("nope")]), NOT_FOUND, "UNKNOWN_METER",
     "items[1].meter"),
    ("amount 0", request(items=[item(amount=0)]), INVALID, "INVALID_FIELD", "items[0].amount"),
    ("amount -1", request(items=[item(amount=-1)]), INVALID, "INVALID_FIELD", "items[0].amount"),
    ("amount 2^53", request(items=[item(amount=2**53)]), INVALID, "INVALID_FIELD",
     "items[0].amount"),
    ("the largest int64", request(items=[item(), item(amount=2**63 - 1)]), INVALID,
     "INVALID_FIELD", "items[1].amount"),
    ("the smallest int64", request(items=[item(amount=-(2**63))]), INVALID, "INVALID_FIELD",
     "items[0].amount"),
    ("NUL in a dimension", request(items=[item(dimensions={"path": "a\0"})]), INVALID,
     "INVALID_FIELD", "items[0].dimensions['path']"),
    ("17 dimensions", request(items=[item(dimensions={f"k{n}": "" for n in range(17)})]), INVALID,
     "INVALID_FIELD", "items[0].dimensions"),
    ("a long operation id", request(operation_id="x" * 129), INVALID, "INVALID_FIELD",
     "operation_id"),
    ("an operation id beyond ASCII", request(operation_id="é"), INVALID, "INVALID_FIELD",
     "operation_id"),
    ("NUL in the context", request(context=event_pb2.EventContext(region="\0")), INVALID,
     "INVALID_FIELD", "context.region"),
    ("a long context", request(context=event_pb2.EventContext(sku="x" * 257)), INVALID,
     "INVALID_FIELD", "context.sku"),
    ("an unknown durability", request(min_durability=99), INVALID, "INVALID_FIELD",
     "min_durability"),
    ("a negative durability", request(min_durability=-1), INVALID, "INVALID_FIELD",
     "min_durability"),
    ("a durability not offered", request(min_durability=event_pb2.DURABILITY_POSTGRES),
     Code.FAILED_PRECONDITION, "DURABILITY_NOT_OFFERED", "min_durability"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "code", "reason", "path"), [pytest.param(*case[1:], id=case[0]) for case in BAD_CHARGES]
)
async def test_a_bad_charge_is_refused_by_field(
    side: Side, bad: Request, code: Code, reason: str, path: str
) -> None:
    """Alone it is a status; in a list it is an item's error, and its neighbours are served."""
    found = await failure(side.quota.CheckAndConsume(bad))
    assert (found.code, found.reason, list(found.fields)) == (code, reason, [path])
    assert (found.retry_us, found.pushback_ms) == (None, None)
    batch = quota_pb2.BatchCheckAndConsumeRequest(requests=[charge(), bad, charge()])
    reply = await side.quota.BatchCheckAndConsume(batch)
    kinds = [result.WhichOneof("outcome") for result in reply.results]
    assert kinds == ["response", "error", "response"]
    error = reply.results[1].error
    assert reason_pb2.Reason.Name(error.reason) == f"REASON_{reason}"
    assert (error.code, error.field, error.message) == (code.value[0], path, found.message)
    assert not error.HasField("retry_after")
    first, last = reply.results[0].response, reply.results[2].response
    assert (first.limits[0].used, last.limits[0].used) == (1, 2)


# Per case: what it is about, the method, the request, the reason, the field.
BAD_QUESTIONS = [
    ("a check of nothing", "Check", quota_pb2.CheckRequest(tenant_id="a"), "INVALID_FIELD",
     "items"),
    ("a check by nobody", "Check", quota_pb2.CheckRequest(items=[item()]), "INVALID_FIELD",
     "tenant_id"),
    ("a check of an unknown meter", "Check",
     quota_pb2.CheckRequest(tenant_id="a", items=[item("nope")]), "UNKNOWN_METER",
     "items[0].meter"),
    ("a quota of nobody", "GetQuota", quota_pb2.GetQuotaRequest(), "INVALID_FIELD", "tenant_id"),
    ("a quota of 65 meters", "GetQuota",
     quota_pb2.GetQuotaRequest(tenant_id="a", meters=["requests"] * 65), "TOO_MANY_ITEMS",
     "meters"),
    ("a quota of an odd meter", "GetQuota",
     quota_pb2.GetQuotaRequest(tenant_id="a", meters=["requests", "A b"]), "INVALID_FIELD",
     "meters[1]"),
    ("a quota of an unknown meter", "GetQuota",
     quota_pb2.GetQuotaRequest(tenant_id="a", meters=["nope"]), "UNKNOWN_METER", "meters"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "bad", "reason", "path"),
    [pytest.param(*case[1:], id=case[0]) for case in BAD_QUESTIONS],
)
async def test_a_bad_question_is_refused_by_field(
    side: Side, method: str, bad: object, reason: str, path: str
) -> None:
    """Reading is checked as charging is."""
    found = await failure(getattr(side.quota, method)(bad))
    assert (found.reason, list(found.fields)) == (reason, [path])


@pytest.mark.parametrize("count", [0, 1_001, 10_000])
async def test_a_list_has_its_bounds(side: Side, count: int) -> None:
    """1 to 1,000 requests; one more is refused whole."""
    batch = quota_pb2.BatchCheckAndConsumeRequest(requests=[charge()] * count)
    found = await failure(side.quota.BatchCheckAndConsume(batch))
    reason = "TOO_MANY_ITEMS" if count else "INVALID_FIELD"
    assert (found.code, found.reason, list(found.fields)) == (INVALID, reason, ["requests"])


async def test_a_full_list_is_served(side: Side) -> None:
    """1,000 requests are decided in order."""
    batch = quota_pb2.BatchCheckAndConsumeRequest(requests=[charge()] * 1_000)
    reply = await side.quota.BatchCheckAndConsume(batch)
    used = [result.response.limits[0].used for result in reply.results]
    assert used == list(range(1, 1_001))


# Bytes that are no request.
GARBAGE = [
    pytest.param(b"\xff\xff\xff", id="noise"),
    pytest.param(b"\x0a\x02\xff\xfe", id="a string that is not UTF-8"),
    pytest.param(b"\x0a\x03\xed\xa0\x80", id="a surrogate in UTF-8"),
    pytest.param(b"\x0a\x7fabc", id="a length past the end"),
    pytest.param(b"\x0c", id="the end of no group"),
]


@pytest.mark.parametrize("data", GARBAGE)
@pytest.mark.parametrize("method", [CONSUME, f"/{QUOTA}/GetQuota", f"/{USAGE}/RecordUsage"])
async def test_bytes_that_do_not_decode_are_malformed(side: Side, data: bytes, method: str) -> None:
    """Garbage and invalid UTF-8 get a mapped status, never UNKNOWN."""
    found = await failure(side.raw(data, method))
    assert (found.code, found.reason) == (INVALID, "MALFORMED_MESSAGE")
    assert "Decode" not in found.message


async def test_fields_that_are_not_known_are_passed_over(side: Side) -> None:
    """A newer client may send what this version does not know."""
    await side.raw(charge().SerializeToString() + b"\xfa\x3e\x03abc")


@pytest.mark.parametrize("method", [f"/{QUOTA}/Nope", "/tallygate.v9.Else/Call", "/x/y"])
async def test_a_method_that_does_not_exist_is_said_so(side: Side, method: str) -> None:
    """Unknown methods and services end as UNIMPLEMENTED with a reason."""
    found = await failure(side.raw(b"", method))
    assert (found.code, found.reason) == (Code.UNIMPLEMENTED, "UNKNOWN_METHOD")


async def test_what_is_too_large_is_refused_by_the_transport(side: Side) -> None:
    """A message over 4 MiB or metadata over 16 KiB ends as RESOURCE_EXHAUSTED; others go on."""
    oversize = await refused(side.raw(b"\x0a" + b"x" * (4 * 1024 * 1024)))
    assert oversize.code() is Code.RESOURCE_EXHAUSTED
    metadata = (("x-large", "x" * 40_000),)
    flooded = await refused(side.quota.CheckAndConsume(charge(), metadata=metadata))
    assert flooded.code() is Code.RESOURCE_EXHAUSTED
    assert (await side.quota.CheckAndConsume(charge())).limits[0].used == 1


async def test_an_unknown_tenant_is_refused_or_on_the_default_plan(side: Side) -> None:
    """Without a default plan a stranger is NOT_FOUND; with one it is served."""
    assert (await side.quota.CheckAndConsume(charge(tenant="stranger"))).allowed
    side.view.catalog = catalog(window(), default_plan=None)
    for call in (
        side.quota.CheckAndConsume(charge(tenant="stranger")),
        side.quota.GetQuota(quota_pb2.GetQuotaRequest(tenant_id="stranger")),
        side.quota.Check(quota_pb2.CheckRequest(tenant_id="stranger", items=[item()])),
    ):
        found = await failure(call)
        assert (found.code, found.reason) == (NOT_FOUND, "UNKNOWN_TENANT")


async def test_a_reused_operation_id_is_refused(side: Side) -> None:
    """The same id with another amount, meter or tenant's content is not a repeat."""
    await side.quota.CheckAndConsume(charge("op", 1))
    found = await failure(side.quota.CheckAndConsume(charge("op", 2)))
    assert (found.code, found.reason) == (INVALID, "OPERATION_ID_REUSED")
    assert found.fields == ["operation_id"]
    found = await failure(side.quota.CheckAndConsume(charge("op", 1, meter="egress_bytes")))
    assert found.reason == "OPERATION_ID_REUSED"
    assert (await side.quota.CheckAndConsume(charge("op", 1, tenant="other"))).allowed


async def test_a_counter_that_would_not_be_exact_is_refused(side: Side) -> None:
    """A soft limit counts to 2^53 - 1 and not further; so do items that add up past it."""
    assert (await side.quota.CheckAndConsume(charge("", AMOUNT_MAX))).allowed
    for call in (charge("", 1), charge("", AMOUNT_MAX, AMOUNT_MAX, tenant="other")):
        found = await failure(side.quota.CheckAndConsume(call))
        assert (found.code, found.reason) == (Code.OUT_OF_RANGE, "COUNTER_OVERFLOW")


async def test_too_many_limits_are_refused(side: Side) -> None:
    """One decision holds 32 limits: with 33 the plan is at fault, not the request."""
    side.view.catalog = catalog(*[window(f"w{n}") for n in range(33)])
    found = await failure(side.quota.CheckAndConsume(charge()))
    assert (found.code, found.reason) == (Code.FAILED_PRECONDITION, "TOO_MANY_LIMITS")


async def test_without_a_catalog_nothing_is_decided(side: Side) -> None:
    """Callers are asked to come back, in every way a client may listen to."""
    side.view.catalog = None
    found = await failure(side.quota.CheckAndConsume(charge()))
    assert (found.code, found.reason) == (Code.UNAVAILABLE, "CATALOG_NOT_LOADED")
    assert found.comes_back


async def test_overload_pushes_back(redis_url: str) -> None:
    """A full queue refuses at once and says when to come back."""
    view = CatalogInMemory(catalog(window()))
    tuning = Tuning(queue_max=2)
    async with sidecar(redis_url, view, tuning) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        batch = quota_pb2.BatchCheckAndConsumeRequest(requests=[charge()] * 3)
        found = await failure(quota.BatchCheckAndConsume(batch))
        assert (found.code, found.reason) == (Code.UNAVAILABLE, "OVERLOADED")
        assert found.retry_us is not None
        assert found.retry_us >= 50_000
        assert found.pushback_ms == str(found.retry_us // 1000)
        assert (await quota.CheckAndConsume(charge())).limits[0].used == 1


def reasons_of(error: type[TallygateError]) -> Iterator[str]:
    """Return the reasons of an error and all that descend from it."""
    yield error.reason
    for child in error.__subclasses__():
        yield from reasons_of(child)


def test_the_table_covers_every_reason() -> None:
    """Each reason of the proto has a code, and each error of the tree has a reason of the proto."""
    values = reason_pb2.DESCRIPTOR.enum_types_by_name["Reason"].values
    named = {value.name.removeprefix("REASON_") for value in values} - {"UNSPECIFIED"}
    assert set(CODES) == named
    assert set(reasons_of(TallygateError)) <= named
    assert Code.UNKNOWN not in CODES.values()
    assert Code.OK not in CODES.values()


SECRET = "postgresql://billing:hunter2@10.0.0.7/ledger"


class Exploding(CatalogInMemory):
    """A catalog view that fails as no one expects."""

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Fail with an address in the text."""
        raise ValueError(f"cannot connect to {SECRET}")


class Waiting(CatalogInMemory):
    """A catalog view that never answers."""

    async def lineage(self, tenant_id: TenantId) -> tuple[Tenant, ...]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return ()


async def test_an_unexpected_error_tells_a_reference_and_nothing_else(redis_url: str) -> None:
    """The exception's text stays inside; the reference is another each time."""
    view = Exploding(catalog(window()))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        quota = quota_pb2_grpc.QuotaServiceStub(opened)
        batch = quota_pb2.BatchCheckAndConsumeRequest(requests=[charge()])
        calls: list[Awaitable[object]] = [
            quota.CheckAndConsume(charge()),
            quota.BatchCheckAndConsume(batch),
        ]
        found = [await failure(call) for call in calls]
    for each in found:
        assert (each.code, each.reason) == (Code.INTERNAL, "INTERNAL")
        assert each.message == f"internal error, reference {each.reference}"
        assert "hunter2" not in repr(each)
    assert found[0].reference != found[1].reference


async def test_a_call_without_a_deadline_gets_one(redis_url: str) -> None:
    """What never ends inside ends for the caller, with a reason."""
    view = Waiting(catalog(window()))
    tuning = Tuning(default_deadline_s=0.2)
    async with sidecar(redis_url, view, tuning) as address, channel(address) as opened:
        found = await failure(quota_pb2_grpc.QuotaServiceStub(opened).CheckAndConsume(charge()))
        assert (found.code, found.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")


@pytest.mark.parametrize("timeout_s", [0.0, 0.0005])
async def test_an_expired_deadline_is_charged_at_most_once(side: Side, timeout_s: float) -> None:
    """A caller that gave up asks again with the same id and is charged once in all."""
    for _ in range(20):
        call = side.quota.CheckAndConsume(charge("op"), timeout=timeout_s)
        assert await call.code() in (Code.DEADLINE_EXCEEDED, Code.OK)
    reply = await side.quota.CheckAndConsume(charge("op"))
    assert reply.limits[0].used == 1
