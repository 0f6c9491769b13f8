"""Who is let in over TLS, and what each caller may ask for: real handshakes, a real sidecar."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace as replaced

import grpc
import pytest
import pytest_asyncio

from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc, reason_pb2, usage_pb2, usage_pb2_grpc
from tests.servers import eventually
from tests.sidecar import Failure, channel, charge, failure, refused
from tests.tls.certs import Authority, Made
from tests.tls.world import (
    CHECKOUT,
    DOMAIN,
    RULES,
    Secure,
    replace,
    secure_channel,
    secured_sidecar,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DENIED = grpc.StatusCode.PERMISSION_DENIED
REPORTS = f"{DOMAIN}/ns/shop/sa/reports"
NARROW = f"{DOMAIN}/ns/shop/sa/narrow"
STRANGER = f"{DOMAIN}/ns/shop/sa/stranger"

Ask = Callable[[grpc.aio.Channel, str], Awaitable[object]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    """The sidecar of all tests here."""
    async with secured_sidecar(tmp_path_factory.mktemp("secure")) as found:
        yield found


def called_by(secure: Secure, identity: str) -> grpc.aio.Channel:
    """Return a channel of a caller with this SPIFFE id."""
    return secure_channel(
        secure.address, roots=secure.authority.pem, client=secure.client(identity)
    )


def record(tenant: str, meter: str = "requests") -> usage_pb2.RecordUsageRequest:
    """Return one event."""
    return usage_pb2.RecordUsageRequest(tenant_id=tenant, meter=meter, amount=1)


def quota(lent: grpc.aio.Channel) -> "quota_pb2_grpc.QuotaServiceAsyncStub":
    """Return the calls of the quota service."""
    return quota_pb2_grpc.QuotaServiceStub(lent)


def usage(lent: grpc.aio.Channel) -> "usage_pb2_grpc.UsageServiceAsyncStub":
    """Return the calls of the usage service."""
    return usage_pb2_grpc.UsageServiceStub(lent)


async def first(
    stream: "grpc.aio.UnaryStreamCall[quota_pb2.WatchQuotaRequest, quota_pb2.WatchQuotaResponse]",
) -> object:
    """Return a stream's first message."""
    message = await stream.read()
    stream.cancel()
    return message


# Every method of the data plane that names one tenant, as a caller asks for a tenant with it.
EVERY: dict[str, Ask] = {
    "CheckAndConsume": lambda lent, tenant: quota(lent).CheckAndConsume(charge(tenant=tenant)),
    "Check": lambda lent, tenant: quota(lent).Check(
        quota_pb2.CheckRequest(tenant_id=tenant, items=[quota_pb2.Item(meter="requests", amount=1)])
    ),
    "GetQuota": lambda lent, tenant: quota(lent).GetQuota(
        quota_pb2.GetQuotaRequest(tenant_id=tenant)
    ),
    "WatchQuota": lambda lent, tenant: first(
        quota(lent).WatchQuota(quota_pb2.WatchQuotaRequest(tenant_id=tenant))
    ),
    "Reserve": lambda lent, tenant: quota(lent).Reserve(
        quota_pb2.ReserveRequest(
            tenant_id=tenant, items=[quota_pb2.Item(meter="requests", amount=1)]
        )
    ),
    "Commit": lambda lent, tenant: quota(lent).Commit(
        quota_pb2.CommitRequest(tenant_id=tenant, reservation_id="00-nothing")
    ),
    "Release": lambda lent, tenant: quota(lent).Release(
        quota_pb2.ReleaseRequest(tenant_id=tenant, reservation_id="00-nothing")
    ),
    "ExtendReservation": lambda lent, tenant: quota(lent).ExtendReservation(
        quota_pb2.ExtendReservationRequest(tenant_id=tenant, reservation_id="00-nothing")
    ),
    "Refund": lambda lent, tenant: quota(lent).Refund(
        quota_pb2.RefundRequest(tenant_id=tenant, event_id="nothing", operation_id="r")
    ),
    "RecordUsage": lambda lent, tenant: usage(lent).RecordUsage(record(tenant)),
}
LISTS = {"BatchCheckAndConsume", "BatchRecordUsage", "StreamRecordUsage"}


async def test_every_method_is_asked_for() -> None:
    """The tests here ask by every method of the data plane."""
    files = (quota_pb2.DESCRIPTOR, usage_pb2.DESCRIPTOR)
    methods = {
        each.name
        for file in files
        for service in file.services_by_name.values()
        for each in service.methods
    }
    assert methods == {*EVERY, *LISTS}


async def test_caller_of_a_rule_is_let_in(secure: Secure) -> None:
    """A certificate whose SPIFFE id a rule matches is let in to that rule's tenants."""
    async with called_by(secure, CHECKOUT) as lent:
        for tenant in ("acme", "team-blue"):
            assert (await quota(lent).CheckAndConsume(charge(tenant=tenant))).allowed
            assert (await usage(lent).RecordUsage(record(tenant))).event_id


@pytest.mark.parametrize("method", EVERY)
async def test_other_tenant_is_denied_by_every_method(secure: Secure, method: str) -> None:
    """Each method refuses another's tenant with a reason and a field, before it looks for it."""
    async with called_by(secure, CHECKOUT) as lent:
        told = await failure(EVERY[method](lent, "rival"))
    assert (told.code, told.reason, told.fields) == (DENIED, "PERMISSION_DENIED", ["tenant_id"])


async def test_denial_does_not_tell_what_exists(secure: Secure) -> None:
    """A tenant that has usage, and one that nobody has heard of, are denied by the same words."""
    async with called_by(secure, f"{DOMAIN}/ns/any/sa/checkout") as lent:
        assert (await quota(lent).CheckAndConsume(charge(tenant="team-red"))).allowed
    async with called_by(secure, NARROW) as lent:
        for ask in EVERY.values():
            there = await failure(ask(lent, "team-red"))
            not_there = await failure(ask(lent, "nobody-has-this-name"))
            assert there == not_there


async def test_reservation_of_another_tenant_is_not_there(secure: Secure) -> None:
    """Under his own tenant's name, a caller finds no reservation of another's: as if it never was.

    The name of another tenant is denied already.
    """
    async with called_by(secure, CHECKOUT) as lent:
        held = await quota(lent).Reserve(
            quota_pb2.ReserveRequest(
                tenant_id="team-blue", items=[quota_pb2.Item(meter="requests", amount=5)]
            )
        )
    async with called_by(secure, NARROW) as lent:

        async def settle(reservation: str) -> Failure:
            request = quota_pb2.CommitRequest(tenant_id="acme", reservation_id=reservation)
            told = await failure(quota(lent).Commit(request))
            return replaced(told, message=told.message.replace(reservation, "it"))

        there, not_there = await settle(held.reservation_id), await settle("00-nothing")
        assert there == not_there
        assert there.reason == "RESERVATION_NOT_FOUND"


async def test_meters_of_a_rule_are_all(secure: Secure) -> None:
    """A caller with one meter gets no other, none that he does not name, and refunds nothing."""
    async with called_by(secure, NARROW) as lent:
        assert (await quota(lent).CheckAndConsume(charge(tenant="acme"))).allowed
        named = quota_pb2.GetQuotaRequest(tenant_id="acme", meters=["requests"])
        assert len((await quota(lent).GetQuota(named)).limits) == 1
        other = await failure(quota(lent).CheckAndConsume(charge(tenant="acme", meter="tokens")))
        assert (other.code, other.fields) == (DENIED, ["items[0].meter"])
        two = quota_pb2.GetQuotaRequest(tenant_id="acme", meters=["requests", "tokens"])
        assert (await failure(quota(lent).GetQuota(two))).fields == ["meters[1]"]
        assert (await failure(EVERY["GetQuota"](lent, "acme"))).fields == ["meters"]
        assert (await failure(EVERY["Refund"](lent, "acme"))).reason == "PERMISSION_DENIED"
        event = await failure(usage(lent).RecordUsage(record("acme", "tokens")))
        assert event.fields == ["meter"]


async def test_service_of_a_rule_is_all(secure: Secure) -> None:
    """A caller who may record may not ask for quota."""
    async with called_by(secure, REPORTS) as lent:
        assert (await usage(lent).RecordUsage(record("acme"))).event_id
        told = await failure(quota(lent).CheckAndConsume(charge(tenant="acme")))
    assert (told.code, told.reason) == (DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("listed", ["BatchRecordUsage", "StreamRecordUsage"])
async def test_list_is_denied_item_by_item(secure: Secure, listed: str) -> None:
    """Of a list, what is denied has its error in its place, and its neighbours are recorded."""
    events = [record("acme"), record("rival"), record("team-x"), record("")]
    async with called_by(secure, CHECKOUT) as lent:
        if listed == "BatchRecordUsage":
            request = usage_pb2.BatchRecordUsageRequest(requests=events)
            results = (await usage(lent).BatchRecordUsage(request)).results
            only = usage_pb2.BatchRecordUsageRequest(requests=[record("rival")])
            alone = (await usage(lent).BatchRecordUsage(only)).results
        else:
            stream = usage(lent).StreamRecordUsage()
            await stream.write(usage_pb2.StreamRecordUsageRequest(requests=events))
            await stream.write(usage_pb2.StreamRecordUsageRequest(requests=[record("rival")]))
            await stream.done_writing()
            results, alone = [each.results async for each in stream]
    assert [each.WhichOneof("outcome") for each in results] == [
        *("response", "error", "response", "error")
    ]
    assert results[1].error.reason == reason_pb2.REASON_PERMISSION_DENIED
    assert (results[1].error.code, results[1].error.field) == (DENIED.value[0], "tenant_id")
    assert results[3].error.reason == reason_pb2.REASON_INVALID_FIELD
    assert [each.error.reason for each in alone] == [reason_pb2.REASON_PERMISSION_DENIED]


async def test_charges_of_a_list_are_denied_one_by_one(secure: Secure) -> None:
    """A list of charges is decided but for those of other tenants."""
    charges = [charge(tenant=each) for each in ("rival", "acme", "team-x")]
    async with called_by(secure, CHECKOUT) as lent:
        request = quota_pb2.BatchCheckAndConsumeRequest(requests=charges)
        results = (await quota(lent).BatchCheckAndConsume(request)).results
        whole = quota_pb2.BatchCheckAndConsumeRequest(requests=charges[1:])
        both = (await quota(lent).BatchCheckAndConsume(whole)).results
        none = await failure(
            quota(lent).BatchCheckAndConsume(quota_pb2.BatchCheckAndConsumeRequest())
        )
    assert results[0].error.reason == reason_pb2.REASON_PERMISSION_DENIED
    assert [each.response.allowed for each in [*results[1:], *both]] == [True] * 4
    assert none.reason == "INVALID_FIELD"


async def test_identity_without_a_rule_is_denied(secure: Secure) -> None:
    """A good certificate of a SPIFFE id that no rule names is denied, and counted."""
    before = secure.metric("tallygate_callers_refused_total", why="identity")
    async with called_by(secure, STRANGER) as lent:
        told = await failure(EVERY["GetQuota"](lent, "acme"))
    assert (told.code, told.reason, told.fields) == (DENIED, "PERMISSION_DENIED", [])
    assert secure.metric("tallygate_callers_refused_total", why="identity") == before + 1


@pytest.mark.parametrize("uris", [(), ("https://example.org/x",), (CHECKOUT, f"{CHECKOUT}2")])
async def test_certificate_without_one_spiffe_id_is_nobody(
    secure: Secure, uris: tuple[str, ...]
) -> None:
    """A certificate of ours without exactly one SPIFFE id proves nobody: UNAUTHENTICATED."""
    client = secure.authority.client(*uris)
    async with secure_channel(secure.address, roots=secure.authority.pem, client=client) as lent:
        told = await failure(EVERY["GetQuota"](lent, "acme"))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


def no_certificate(secure: Secure) -> Made | None:
    """Return none."""
    del secure
    return None


def expired(secure: Secure) -> Made | None:
    """Return one that was good until yesterday."""
    return secure.authority.client(CHECKOUT, from_days=-3, days=-1)


def of_another_authority(secure: Secure) -> Made | None:
    """Return one that somebody else has signed, who calls himself as ours does."""
    del secure
    return Authority().client(CHECKOUT)


@pytest.mark.parametrize("made", [no_certificate, expired, of_another_authority])
async def test_bad_certificate_ends_the_handshake(
    secure: Secure, made: Callable[[Secure], Made | None]
) -> None:
    """Without a certificate of our authority that is good now, no call arrives.

    gRPC tells the client UNAVAILABLE, as it has no connection; no status of ours can reach it.
    """
    roots = secure.authority.pem
    async with secure_channel(secure.address, roots=roots, client=made(secure)) as lent:
        error = await refused(EVERY["GetQuota"](lent, "acme"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_is_not_answered(secure: Secure) -> None:
    """A caller without TLS gets nothing over TCP, and no service, health included."""
    async with channel(secure.address) as lent:
        error = await refused(EVERY["GetQuota"](lent, "acme"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_socket_has_a_rule_of_its_own(secure: Secure) -> None:
    """Who may open the Unix socket is `unix`, whatever he says of himself."""
    async with channel(secure.socket) as lent:
        assert (await quota(lent).CheckAndConsume(charge(tenant="local"))).allowed
        request = quota_pb2.GetQuotaRequest(tenant_id="acme")
        claimed = (("x-forwarded-client-cert", f"URI={CHECKOUT}"), ("peer_spiffe_id", CHECKOUT))
        told = await failure(quota(lent).GetQuota(request, metadata=claimed))
    assert told.reason == "PERMISSION_DENIED"


async def test_rules_are_replaced_while_calls_go_on(secure: Secure) -> None:
    """New rules hold for connections and watches that are there; bad ones leave the last good."""
    path, wider = secure.folder / "identities.yaml", RULES.replace("[local]", "[local, rival]")
    async with called_by(secure, STRANGER) as lent, channel(secure.socket) as local:
        assert (await failure(EVERY["GetQuota"](lent, "acme"))).code is DENIED
        rule = f"  - id: {STRANGER}\n    tenants: [acme]\n"
        replace(path, f"{wider}{rule}".encode())

        async def let_in() -> bool:
            return (await answer(EVERY["GetQuota"](lent, "acme"))) is grpc.StatusCode.OK

        await eventually(let_in, 30.0, what="new rules")
        watch = quota(lent).WatchQuota(quota_pb2.WatchQuotaRequest(tenant_id="acme"))
        await watch.read()

        replace(path, b"version: 1\nidentities:\n  - id: spiffe://*/x\n")
        await eventually(
            lambda: secure.metric("tallygate_identities_errors_total") > 0, 30.0, what="a refusal"
        )
        assert await let_in()

        replace(path, RULES.encode())

        async def shut_out() -> bool:
            return not await let_in()

        await eventually(shut_out, 30.0, what="the old rules")
        async with called_by(secure, CHECKOUT) as checkout:
            await quota(checkout).CheckAndConsume(charge(tenant="acme"))
        error = await refused(watch.read())
        assert error.code() is DENIED
        assert (await failure(EVERY["GetQuota"](local, "rival"))).code is DENIED


async def answer(call: Awaitable[object]) -> grpc.StatusCode:
    """Return the status of a call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
