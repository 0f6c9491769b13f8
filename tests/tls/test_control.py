"""Control over TLS: roles by SPIFFE id, names that are proved, and our own commands as callers."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tallygate.adapters.catalog.identities import parse_identities
from tallygate.api.caller import Permits
from tallygate.api.door import ACTOR_KEY
from tallygate.api.peer_door import PeerDoor
from tallygate.commands import usage
from tallygate.commands.channel import CallFailed, Target, TokenKept
from tallygate.domain.certificate import ServerCredentials
from tallygate.domain.identity import Refused
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc, credit_pb2
from tallygate.settings import Settings
from tallygate.wiring.dialing import CertificateUnread, Dialing
from tests.api.control import Control, controlled
from tests.catalog.documents import GOOD
from tests.sidecar import failure
from tests.tls.certs import Authority
from tests.tls.world import DOMAIN, secure_channel

pytestmark = pytest.mark.asyncio(loop_scope="module")

READER = f"{DOMAIN}/ns/books/sa/reader"
MIXED = f"{DOMAIN}/ns/books/sa/mixed"
ADMIN = f"{DOMAIN}/ns/ops/sa/admin"
SIDECAR = f"{DOMAIN}/ns/shop/sa/checkout"
RULES = f"""\
version: 1
identities:
  - id: {READER}
    roles: [reader]
    tenants: [acme]
  - id: {MIXED}
    roles: [finance]
    tenants: [team-*]
  - id: {DOMAIN}/ns/*/sa/mixed
    roles: [reader]
    tenants: ['*']
  - id: {ADMIN}
    roles: [admin]
    tenants: ['*']
  - id: {SIDECAR}
    tenants: [acme]
"""
DENIED = grpc.StatusCode.PERMISSION_DENIED


class Heard:
    """Hears refusals."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def refused(self, reason: str) -> None:
        """Note it."""
        self.reasons.append(reason)

    def caller_refused(self, identity: str, service: str, why: Refused) -> None:
        """Ignore it: it is of the data plane."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority of server and callers."""
    return Authority()


@pytest.fixture(scope="module")
def credentials(authority: Authority) -> ServerCredentials:
    """What the server proves itself with."""
    made = authority.server()
    return ServerCredentials(made.pem, made.key_pem, authority.pem)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def control(credentials: ServerCredentials) -> AsyncIterator[Control]:
    """A control that lets callers in by rules."""
    heard = Heard()
    door = PeerDoor(Permits(parse_identities(RULES), heard), heard)
    async with controlled(door, lambda: credentials) as found:
        yield found


def called_by(control: Control, authority: Authority, *uris: str) -> grpc.aio.Channel:
    """Return a channel of a caller with these URIs."""
    client = authority.client(*uris)
    return secure_channel(control.address, roots=authority.pem, client=client)


def asking(tenant: str) -> admin_pb2.QueryUsageRequest:
    """Return a question for a tenant's usage."""
    return admin_pb2.QueryUsageRequest(tenant_id=tenant)


async def test_role_and_tenants_are_those_of_the_rule(
    control: Control, authority: Authority
) -> None:
    """A reader of one tenant reads that one, no other, not all, and changes nothing."""
    async with called_by(control, authority, READER) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        await stub.QueryUsage(asking("acme"))
        for tenant in ("globex", "nobody-has-this", ""):
            told = await failure(stub.QueryUsage(asking(tenant)))
            assert (told.code, told.reason, told.fields) == (
                *(DENIED, "PERMISSION_DENIED", ["tenant_id"]),
            )
        change = await failure(stub.ApplyCatalog(admin_pb2.ApplyCatalogRequest(document=GOOD)))
        assert (change.code, change.reason) == (DENIED, "ROLE_LACKING")


async def test_rules_are_not_mixed(control: Control, authority: Authority) -> None:
    """Who reads all, and is finance for some, is not finance for all."""
    async with called_by(control, authority, MIXED) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        await stub.QueryUsage(asking(""))
        told = await failure(stub.ListCredits(_credits("acme")))
        assert told.code is DENIED
        assert (await stub.ListCredits(_credits("team-a"))).grants == []


def _credits(tenant: str) -> credit_pb2.ListCreditsRequest:
    return credit_pb2.ListCreditsRequest(tenant_id=tenant)


async def test_caller_of_the_data_plane_has_no_role(control: Control, authority: Authority) -> None:
    """A rule without roles opens nothing of control; what its caller tries is in the audit log."""
    async with called_by(control, authority, SIDECAR) as lent:
        told = await failure(admin_pb2_grpc.AdminServiceStub(lent).QueryUsage(asking("acme")))
    assert told.code is DENIED
    assert SIDECAR in {each.entry.actor for each in control.trail.rows}


async def test_nobody_is_refused_before_the_log(control: Control, authority: Authority) -> None:
    """A certificate without a SPIFFE id is nobody's, and fills no audit log."""
    rows = len(control.trail.rows)
    async with called_by(control, authority) as lent:
        told = await failure(admin_pb2_grpc.AdminServiceStub(lent).QueryUsage(asking("acme")))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert len(control.trail.rows) == rows


async def test_name_that_is_said_counts_for_nothing(control: Control, authority: Authority) -> None:
    """The audit log has the SPIFFE id, whatever the call says of who asks."""
    claimed = ((ACTOR_KEY, "somebody-else"),)
    async with called_by(control, authority, ADMIN) as lent:
        stub = admin_pb2_grpc.AdminServiceStub(lent)
        await stub.QueryUsage(asking("acme"), metadata=claimed)
    actors = [each.entry.actor for each in control.trail.rows]
    assert ADMIN in actors
    assert "somebody-else" not in actors


async def test_without_rules_a_certificate_still_proves_the_name(
    credentials: ServerCredentials, authority: Authority
) -> None:
    """Where everybody with a certificate may do all, each does it under his own name."""
    async with controlled(None, lambda: credentials) as open_control:
        async with called_by(open_control, authority, READER) as lent:
            stub = admin_pb2_grpc.AdminServiceStub(lent)
            await stub.ListMeters(
                admin_pb2.ListMetersRequest(), metadata=((ACTOR_KEY, "somebody-else"),)
            )
        assert [each.entry.actor for each in open_control.trail.rows] == [READER]


async def test_commands_call_over_tls(
    control: Control, authority: Authority, tmp_path: Path
) -> None:
    """With an authority, a certificate and its key in settings, commands call control by TLS.

    A name that the certificate does not have, and another authority, are not believed.
    """
    cert, key = authority.client(ADMIN).write(tmp_path, "admin")
    files = {"call_cert_file": cert, "call_key_file": key}
    address = control.address
    port = address.rpartition(":")[2]
    ca = authority.write(tmp_path)

    async def ask(**more: object) -> None:
        settings = Settings(control_address=address, **files, **more)  # type: ignore[arg-type]
        await usage.usage(Target.control(settings), usage.UsageAsked("acme"))

    await ask(call_ca_file=ca)
    await ask(call_ca_file=ca, call_server_name="localhost")
    with pytest.raises(CallFailed, match=f"nothing answers at 127.0.0.1:{port}"):
        await ask(call_ca_file=ca, call_server_name="elsewhere.example.org")
    with pytest.raises(CallFailed, match="set TALLYGATE_CALL_CA_FILE"):
        await usage.usage(Target(address), usage.UsageAsked("acme"))
    with pytest.raises(CallFailed):
        await ask(call_ca_file=Authority("other").write(tmp_path, "other"))
    with pytest.raises(CertificateUnread, match="TALLYGATE_CALL_CA_FILE"):
        await ask(call_ca_file=tmp_path / "missing.crt")


async def test_token_goes_out_over_tls(tmp_path: Path, authority: Authority) -> None:
    """A token leaves this machine once TLS is spoken, and not before."""
    token = tmp_path / "token"
    token.write_text("abc")
    plain = Target("control.example.org:443", token)
    with pytest.raises(TokenKept):
        plain.headers()
    secure = Target("control.example.org:443", token, dialing=Dialing(authority.write(tmp_path)))
    assert ("authorization", "Bearer abc") in secure.headers()
