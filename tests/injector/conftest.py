"""A running injector with certificates of its own, in front of a small Kubernetes API."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector

from tallygate.adapters.certificates.authority import OwnAuthorities
from tallygate.ports.kubernetes import Pair
from tallygate.settings import Settings
from tallygate.wiring.injecting import RunningInjector, injecting

from .fake_api import FakeApi
from .pods import FILE

NOW_US = 1_790_000_000_000_000
NAME = "tallygate-injector.tallygate.svc"
HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tallygate"
AUTHORITIES = OwnAuthorities()


@dataclass
class Ground:
    """Files, an authority, and the API."""

    folder: Path
    authority: Pair
    api: FakeApi

    def certify(self, names: tuple[str, ...] = (NAME,)) -> Pair:
        """Write another certificate and key; return them."""
        pair = AUTHORITIES.issue(self.authority, names, NOW_US)
        (self.folder / "tls.key").write_bytes(pair.key)
        (self.folder / "tls.crt").write_bytes(pair.certificate)
        return pair

    def settings(self, **more: object) -> Settings:
        """Return the settings of an injector with its certificate in files."""
        given = {
            "injector_address": "127.0.0.1:0",
            "ops_address": "127.0.0.1:0",
            "injector_config": self.folder / "sidecar.yaml",
            "injector_cert_file": self.folder / "tls.crt",
            "injector_key_file": self.folder / "tls.key",
            "injector_namespace": "tallygate",
            "injector_kubernetes_url": self.api.url,
            "injector_linger_ms": 0,
            **more,
        }
        return Settings.model_validate(given)

    @asynccontextmanager
    async def asking(self, bundle: bytes = b"") -> AsyncIterator[ClientSession]:
        """Lend a client that trusts the authority, as an API server does."""
        trusted = (bundle or self.authority.certificate).decode()
        context = ssl.create_default_context(cadata=trusted)
        async with ClientSession(connector=TCPConnector(ssl=context)) as session:
            yield session


def url_of(running: RunningInjector, path: str = "/inject/pod") -> str:
    """Return where the webhook is asked."""
    return f"https://127.0.0.1:{running.port}{path}"


async def ops(running: RunningInjector, path: str) -> str:
    """Return what the ops listener answers, its head too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.ops_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: ops\r\n\r\n".encode())
    found = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return found


async def metrics(running: RunningInjector) -> str:
    """Return the injector's metrics."""
    return await ops(running, "/metrics")


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    """Files and an API; the time of certificates is a fixed one."""
    api = FakeApi()
    await api.start()
    found = Ground(tmp_path, AUTHORITIES.found(NOW_US), api)
    found.certify()
    (tmp_path / "sidecar.yaml").write_bytes(FILE.read_bytes())
    yield found
    await api.stop()


@pytest.fixture
async def running(ground: Ground) -> AsyncIterator[RunningInjector]:
    """An injector that serves with the files."""
    async with injecting(ground.settings(injector_report_ms=0)) as found:
        yield found
