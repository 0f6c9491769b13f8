"""Health and metrics over TLS: for probes and scrapers without certificates."""

import asyncio
import socket
import ssl
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from tallygate.api.ops import OpsListener, OpsOptions, Readiness
from tallygate.domain.certificate import ServerCredentials
from tests.tls.certs import Authority

SERVICE = "tallygate.v1.QuotaService"


class Listening:
    """A listener, and what it proves itself with."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.credentials = self.made()
        self.listener = OpsListener(
            OpsOptions(
                "127.0.0.1:0",
                CollectorRegistry(),
                lambda: Readiness(True, {}),
                services=[SERVICE],
                tls=lambda: self.credentials,
            )
        )

    def made(self) -> ServerCredentials:
        """Return new credentials."""
        made = self.authority.server()
        return ServerCredentials(made.pem, made.key_pem)

    def get(self, path: str) -> tuple[str, bytes]:
        """Return the answer to a request, and the certificate that came before it."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        with (
            socket.create_connection(("127.0.0.1", self.listener.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            # To the end in good order: one that is cut off raises.
            parts = [*iter(lambda: secure.recv(65_536), b"")]
            return b"".join(parts).decode(), secure.getpeercert(binary_form=True) or b""


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    """A listener that speaks TLS."""
    found = Listening()
    found.listener.start()
    found.listener.set_serving(SERVICE, serving=True)
    yield found
    found.listener.stop()


def test_probes_and_scrapers_need_no_certificate(listening: Listening) -> None:
    """Liveness and metrics are answered over TLS, to whoever asks."""
    assert listening.get("/livez")[0].startswith("HTTP/1.1 200")
    assert listening.get("/metrics")[0].startswith("HTTP/1.1 200")


def test_renewed_certificate_is_shown(listening: Listening) -> None:
    """The next connection after a renewal is shown the new certificate."""
    before = listening.get("/livez")[1]
    listening.credentials = listening.made()
    after = listening.get("/livez")[1]
    assert before != after
    assert after == listening.get("/livez")[1]


def test_plain_text_is_not_answered(listening: Listening) -> None:
    """Who speaks no TLS is told nothing."""
    with socket.create_connection(("127.0.0.1", listening.listener.port), 10) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = plain.recv(1024)
    assert not answer.startswith(b"HTTP/")


async def test_health_over_grpc_is_watched(listening: Listening) -> None:
    """Health over gRPC is answered by TLS, and tells its watchers of each change."""
    credentials = grpc.ssl_channel_credentials(listening.authority.pem)
    address = f"localhost:{listening.listener.port}"
    async with grpc.aio.secure_channel(address, credentials) as lent:
        stub = health_pb2_grpc.HealthStub(lent)
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        watch = stub.Watch(asked)
        serving = health_pb2.HealthCheckResponse.SERVING
        assert (await watch.read()).status == serving
        await asyncio.to_thread(listening.listener.set_serving, SERVICE, False)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        listening.listener.set_serving(SERVICE, True)
        assert (await watch.read()).status == serving
        replies = await asyncio.gather(*(stub.Check(asked) for _ in range(50)))
        assert {each.status for each in replies} == {serving}
        watch.cancel()
