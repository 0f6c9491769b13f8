"""Every call to the admin service is in the audit log, with what came of it."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message

from tallygate.adapters.log import redact_value
from tallygate.api.audited import AuditedRegistry
from tallygate.api.edge import Registry
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.trail import TrailEntry
from tallygate.flow.trail import Trail
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc, credit_pb2
from tallygate.testing.trail import FakeTrailLog
from tests.api.control import Control, controlled
from tests.sidecar import failure

ADA = (("x-tallygate-actor", "ada@example.org"),)
SECRET = "whsec_c2VjcmV0LW9mLTMyLWJ5dGVz"


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control whose log begins after its catalog was applied."""
    async with controlled() as found:
        found.trail.rows.clear()
        yield found


def entries(control: Control) -> list[TrailEntry]:
    """Return what is in the log."""
    return [row.entry for row in control.trail.rows]


async def test_reads_are_recorded_once(control: Control) -> None:
    """A read is one entry, with the tenant it is about and what was asked."""
    await control.stub.QueryUsage(
        admin_pb2.QueryUsageRequest(tenant_id="acme", meter="requests"), metadata=ADA
    )
    (entry,) = entries(control)
    assert (entry.actor, entry.role, entry.action) == ("ada@example.org", "control", "QueryUsage")
    assert (entry.tenant_id, entry.outcome) == ("acme", "done")
    assert json.loads(entry.request) == {"tenant_id": "acme", "meter": "requests"}
    assert len(entry.request_sha256) == 64


async def test_changes_are_recorded_twice(control: Control) -> None:
    """A change is asked for and then done, under one call's id; a nested tenant is found."""
    tenant = (await control.stub.GetTenant(admin_pb2.GetTenantRequest(tenant_id="acme"))).tenant
    await control.stub.ApplyTenant(admin_pb2.ApplyTenantRequest(tenant=tenant), metadata=ADA)
    _, asked, done = entries(control)
    assert (asked.outcome, done.outcome) == ("asked", "done")
    assert asked.call_id == done.call_id != ""
    assert {each.tenant_id for each in (asked, done)} == {"acme"}


async def test_refusals_are_recorded(control: Control) -> None:
    """What was refused is in the log with the reason, and an absent name stands as unnamed."""
    request = credit_pb2.GrantCreditRequest(tenant_id="nobody", limit_id="credits", grant_id="g")
    await failure(control.stub.GrantCredit(request))
    assert [each.outcome for each in entries(control)] == ["asked", "refused: INVALID_FIELD"]
    assert {each.actor for each in entries(control)} == {"unnamed"}


@pytest.mark.parametrize("name", ["", "  ", "a" * 129])
async def test_a_name_that_is_none_is_refused(control: Control, name: str) -> None:
    """Who gives a name must give one that can be read, or the call is refused by the header's."""
    metadata = (("x-tallygate-actor", name),)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await control.stub.ListPlans(admin_pb2.ListPlansRequest(), metadata=metadata)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert entries(control) == []


async def test_no_change_without_the_log(control: Control) -> None:
    """Where the log cannot be written, a change is not made and a read is not answered."""
    version = (await control.store.newest()).version
    meter = (await control.stub.GetMeter(admin_pb2.GetMeterRequest(name="requests"))).meter
    for call in (
        lambda: control.stub.ApplyMeter(admin_pb2.ApplyMeterRequest(meter=meter)),
        lambda: control.stub.ListMeters(admin_pb2.ListMetersRequest()),
    ):
        control.trail.failure = BackendUnavailable()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await control.store.newest()).version == version


async def test_no_secret_and_no_document_is_recorded(control: Control) -> None:
    """A catalog is recorded by its length and digest, and keys that name themselves are hidden."""
    await control.apply(f"# {SECRET}\n" + "x: 1\n" * 2_000)
    request = credit_pb2.GrantCreditRequest(tenant_id="acme", reason=f"for {SECRET}")
    await failure(control.stub.GrantCredit(request))
    texts = [each.request for each in entries(control)]
    assert len(texts) == 4
    assert not any(SECRET in text for text in texts)
    assert max(map(len, texts)) < 200


def test_every_method_is_a_read_or_a_change() -> None:
    """The names of reads are those that begin as reads do; a new kind of name is a change."""
    service = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
    assert hasattr(admin_pb2_grpc, f"{service.name}Stub")
    changes = {each.name for each in service.methods if not each.name.startswith(("Get", "List"))}
    assert {"ApplyCatalog", "GrantCredit", "ResetLimit"} <= changes


async def test_streams_are_recorded_too() -> None:
    """A method that sends several messages is in the log from its first, and when it ends early."""
    log = FakeTrailLog()
    registry = Registry()
    sent: list[str] = []

    async def listed(request: Message, context: object) -> AsyncGenerator[str, None]:
        try:
            for each in ("one", "two"):
                yield each
        finally:
            sent.append("closed")

    trail = Trail(log)
    audited = AuditedRegistry(registry, trail, redact_value)
    handler: Any = grpc.unary_stream_rpc_method_handler(cast(Any, listed))
    audited.add_registered_method_handlers("S", {"Tail": handler})
    # Its types are those of any method's, of either of grpcio's kinds.
    behaviour = cast(Any, registry.methods["/S/Tail"].handler.unary_stream)
    request = admin_pb2.ListPlansRequest()
    context = SimpleNamespace(
        invocation_metadata=lambda: ADA, peer=lambda: "ipv4:127.0.0.1:1", auth_context=dict
    )
    assert [each async for each in behaviour(request, context)] == ["one", "two"]
    cut = behaviour(request, context)
    assert await anext(cut) == "one"
    await cut.aclose()
    await trail.close()
    assert [row.entry.outcome for row in log.rows] == ["asked", "done", "asked", "failed"]
    assert sent == ["closed", "closed"]
