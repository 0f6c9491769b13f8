"""Certificates that change under a server, under load: the new is taken, the bad is not."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tallygate.gen.v1 import quota_pb2_grpc
from tests.servers import eventually
from tests.sidecar import charge, refused
from tests.tls.certs import Authority, Made
from tests.tls.world import CHECKOUT, Secure, replace, secure_channel, secured_sidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")

RENEWALS = 5
ERRORS = "tallygate_certificate_errors_total"
RELOADS = "tallygate_certificate_reloads_total"
EXPIRY = "tallygate_certificate_expiry_timestamp_seconds"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secure]:
    """The sidecar of all tests here."""
    async with secured_sidecar(tmp_path_factory.mktemp("renewed")) as found:
        yield found


def caller(secure: Secure, *, roots: bytes = b"", client: Made | None = None) -> grpc.aio.Channel:
    """Return a new connection of a caller who is let in."""
    return secure_channel(
        secure.address,
        roots=roots or secure.authority.pem,
        client=client or secure.client(CHECKOUT),
    )


async def charged(lent: grpc.aio.Channel) -> bool:
    """Make a call."""
    stub = quota_pb2_grpc.QuotaServiceStub(lent)
    return (await stub.CheckAndConsume(charge(tenant="acme"), timeout=60)).allowed


async def shown(secure: Secure) -> str:
    """Return the fingerprint of the certificate that a new connection is shown."""
    host, _, port = secure.address.rpartition(":")
    context = secure.client_context()
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(found).fingerprint(hashes.SHA256()).hex()


def fingerprint(made: Made) -> str:
    """Return a certificate's fingerprint."""
    return made.certificate.fingerprint(hashes.SHA256()).hex()


async def taken(secure: Secure, made: Made) -> None:
    """Renew, and wait until new connections are shown it."""
    secure.renew(made)

    async def is_shown() -> bool:
        return await shown(secure) == fingerprint(made)

    await eventually(is_shown, 30.0, what="the new certificate")


def _reached(calls: Counter[str], goal: Counter[str]) -> bool:
    return calls >= goal


async def test_renewal_under_load_fails_no_call(secure: Secure) -> None:
    """While certificates change five times, no call fails, on old connections or on new ones."""
    stop = asyncio.Event()
    calls = Counter[str]()

    async def on_one_connection(lent: grpc.aio.Channel) -> None:
        while not stop.is_set():
            assert await charged(lent)
            calls["old"] += 1

    async def each_on_its_own() -> None:
        while not stop.is_set():
            async with caller(secure) as lent:
                assert await charged(lent)
            calls["new"] += 1

    async with caller(secure) as lent, asyncio.TaskGroup() as tasks:
        await lent.channel_ready()
        tasks.create_task(on_one_connection(lent))
        for _ in range(2):
            tasks.create_task(each_on_its_own())
        for _ in range(RENEWALS):
            await taken(secure, secure.authority.server())
            # Of the new ones, one more than were on their way.
            goal = Counter(old=calls["old"] + 1, new=calls["new"] + 3)
            await eventually(partial(_reached, calls, goal), 60.0, what="calls under the new one")
        stop.set()
    assert secure.metric(RELOADS, file=str(secure.folder / "server.crt")) >= RENEWALS


async def test_bad_renewal_keeps_the_last_good(secure: Secure) -> None:
    """A key of another certificate, and one that is over, are told, and nothing changes."""
    cert, key = secure.folder / "server.crt", secure.folder / "server.key"
    good = secure.authority.server()
    await taken(secure, good)
    before = secure.metric(ERRORS, file=str(key))
    replace(key, secure.authority.server().key_pem)
    await eventually(lambda: secure.metric(ERRORS, file=str(key)) > before, 30.0, what="a refusal")
    assert await shown(secure) == fingerprint(good)

    before = secure.metric(ERRORS, file=str(cert))
    secure.renew(secure.authority.server(from_days=-3, days=-1))
    await eventually(lambda: secure.metric(ERRORS, file=str(cert)) > before, 30.0, what="a refusal")
    assert await shown(secure) == fingerprint(good)
    cert.unlink()
    async with caller(secure) as lent:
        assert await charged(lent)
    await taken(secure, secure.authority.server())


async def test_expiry_is_shown(secure: Secure) -> None:
    """The gauge says when the certificate in use is over, and the authority of callers."""
    made = secure.authority.server(days=3)
    await taken(secure, made)
    path = str(secure.folder / "server.crt")
    ends = made.certificate.not_valid_after_utc.timestamp()
    await eventually(lambda: secure.metric(EXPIRY, file=path) == ends, 30.0, what="the expiry")
    authority = x509.load_pem_x509_certificate(secure.authority.pem)
    ends = authority.not_valid_after_utc.timestamp()
    assert secure.metric(EXPIRY, file=str(secure.folder / "ca.crt")) == ends


async def test_authority_of_callers_changes(secure: Secure) -> None:
    """Another authority is taken over: its callers are let in, and the old ones while both stand.

    What is taken out lets no new connection in.
    """
    path, other = secure.folder / "ca.crt", Authority("other")
    theirs = other.client(CHECKOUT)

    async def let_in(client: Made) -> bool:
        async with caller(secure, client=client) as lent:
            try:
                return await charged(lent)
            except grpc.aio.AioRpcError:
                return False

    assert not await let_in(theirs)
    replace(path, secure.authority.pem + other.pem)
    await eventually(lambda: let_in(theirs), 30.0, what="callers of the other authority")
    assert await let_in(secure.client(CHECKOUT))
    replace(path, other.pem)

    async def ours_are_out() -> bool:
        return not await let_in(secure.client(CHECKOUT))

    await eventually(ours_are_out, 30.0, what="callers of the old authority to be left out")
    replace(path, secure.authority.pem)
    await eventually(lambda: let_in(secure.client(CHECKOUT)), 30.0, what="what was there before")


async def test_caller_believes_only_his_authority(secure: Secure) -> None:
    """A caller who is shown a certificate of somebody else makes no call."""
    stranger = Authority("stranger")
    async with caller(secure, roots=stranger.pem) as lent:
        stub = quota_pb2_grpc.QuotaServiceStub(lent)
        error = await refused(stub.CheckAndConsume(charge(tenant="acme")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
