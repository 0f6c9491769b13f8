"""A cluster as the injector sees it: the fake and the adapters over HTTP alike."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from tallygate.adapters.kubernetes.client import Access, KubernetesApi, url_of_pod
from tallygate.adapters.kubernetes.pods import ClusterPods
from tallygate.adapters.kubernetes.trust import RegisteredWebhook, SharedSecret
from tallygate.ports.kubernetes import (
    CertificateSecret,
    ChangedMeanwhile,
    KeptCertificates,
    KubernetesRefused,
    KubernetesSilent,
    Pair,
    PodsAsking,
    WebhookTrust,
)
from tallygate.testing.kubernetes import FakeCluster

from .fake_api import FakeApi
from .pods import Manifest, pod

HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tallygate"
NOWHERE = Path("/nonexistent")


class Cluster(Protocol):
    """A cluster to look at, and how tests put something into it."""

    pods: PodsAsking
    secret: CertificateSecret
    webhook: WebhookTrust

    def add(self, namespace: str, name: str, label: str, phase: str = "Running") -> None:
        """Have a pod there."""

    def name_space(self, name: str, label: str) -> None:
        """Have a namespace there."""


class InMemory:
    """The fake."""

    def __init__(self) -> None:
        self.fake = FakeCluster(webhook=None)
        self.pods = self.secret = self.webhook = self.fake

    def add(self, namespace: str, name: str, label: str, phase: str = "Running") -> None:
        """Have a pod there."""
        manifest = _pod(name, label, phase)
        manifest["metadata"]["namespace"] = namespace
        self.fake.pods.append(manifest)

    def name_space(self, name: str, label: str) -> None:
        """Have a namespace there."""
        self.fake.namespaces[name] = label

    def register(self) -> None:
        """Have the webhook there."""
        self.fake.webhook = b""


class OverHttp:
    """The adapters."""

    def __init__(self, api: FakeApi, client: KubernetesApi) -> None:
        self.api = api
        self.pods = ClusterPods(client)
        self.secret = SharedSecret(client, "tallygate", "cert")
        self.webhook = RegisteredWebhook(client, "tallygate")

    def add(self, namespace: str, name: str, label: str, phase: str = "Running") -> None:
        """Have a pod there."""
        self.api.put(f"/api/v1/namespaces/{namespace}/pods/{name}", **_pod(name, label, phase))

    def name_space(self, name: str, label: str) -> None:
        """Have a namespace there."""
        labels = {"tallygate.dev/inject": label}
        self.api.put(f"/api/v1/namespaces/{name}", metadata={"labels": labels})

    def register(self) -> None:
        """Have the webhook there."""
        hooks: list[Manifest] = [
            {"name": each, "clientConfig": {"service": {}}} for each in ("a", "b")
        ]
        self.api.put(HOOK, webhooks=hooks)


def _pod(name: str, label: str, phase: str) -> Manifest:
    manifest = pod(labels={"tallygate.dev/inject": label} if label else {})
    manifest["metadata"]["name"] = name
    return {**manifest, "status": {"phase": phase}}


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """An API over HTTP."""
    fake = FakeApi()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[KubernetesApi]:
    """A client of it."""
    found = KubernetesApi(Access(api.url, NOWHERE, NOWHERE))
    yield found
    await found.close()


@pytest.fixture(params=["fake", "http"])
def cluster(
    request: pytest.FixtureRequest, api: FakeApi, client: KubernetesApi
) -> InMemory | OverHttp:
    """Either cluster."""
    return InMemory() if request.param == "fake" else OverHttp(api, client)


async def test_pods_ask_by_label_or_namespace(cluster: InMemory | OverHttp) -> None:
    """What says no is left out, as is what has ended; pages are put together; each comes once."""
    for name, label in (("asks", "true"), ("says-no", "false"), ("silent", "maybe")):
        cluster.name_space(name, label)
        for pod_label in ("", "true", "false"):
            cluster.add(name, f"{name}-{pod_label or 'none'}", pod_label)
        cluster.add(name, f"{name}-ended", "true", phase="Succeeded")
    found = [
        (str(each.pod["metadata"]["name"]), each.by_namespace)  # type: ignore[index, call-overload]
        async for each in cluster.pods.asking()
    ]
    assert sorted(found) == [("asks-none", True), ("asks-true", True), ("silent-true", False)]


async def test_a_secret_is_written_by_the_first_alone(cluster: InMemory | OverHttp) -> None:
    """Of two who have read the same version the second is refused, and finds what is there."""
    empty = await cluster.secret.read()
    assert empty == KeptCertificates()
    kept = KeptCertificates(Pair(b"ca", b"key"), b"bundle", None, empty.version)
    await cluster.secret.write(kept)
    with pytest.raises(ChangedMeanwhile):
        await cluster.secret.write(kept)
    found = await cluster.secret.read()
    assert (found.authority, found.bundle, found.serving) == (kept.authority, b"bundle", None)
    served = KeptCertificates(kept.authority, b"b2", Pair(b"tls", b"k"), found.version)
    await cluster.secret.write(served)
    with pytest.raises(ChangedMeanwhile):
        await cluster.secret.write(served)
    assert (await cluster.secret.read()).serving == Pair(b"tls", b"k")


async def test_a_webhook_trusts_what_it_is_told(cluster: InMemory | OverHttp) -> None:
    """It is told once; where there is none that is said."""
    with pytest.raises(KubernetesRefused):
        await cluster.webhook.trust(b"bundle")
    cluster.register()
    assert await cluster.webhook.trust(b"bundle")
    assert not await cluster.webhook.trust(b"bundle")
    assert await cluster.webhook.trust(b"other")


async def test_every_webhook_of_the_configuration_is_told(
    api: FakeApi, client: KubernetesApi
) -> None:
    """Each of a configuration's webhooks has the authorities, and keeps the rest."""
    OverHttp(api, client).register()
    await RegisteredWebhook(client, "tallygate").trust(b"bundle")
    configs = [each["clientConfig"] for each in api.objects[HOOK]["webhooks"]]
    assert configs == [{"service": {}, "caBundle": "YnVuZGxl"}] * 2


async def test_an_api_that_fails_is_silent(api: FakeApi, client: KubernetesApi) -> None:
    """A fault of the server's may pass; a refusal says why; nobody there is silence too."""
    api.fail_with = 503
    with pytest.raises(KubernetesSilent, match="503"):
        await client.get("/api/v1/pods")
    api.fail_with = 403
    with pytest.raises(KubernetesRefused, match="403: told to fail"):
        await client.get("/api/v1/pods")
    await api.stop()
    with pytest.raises(KubernetesSilent, match="does not answer /api/v1/pods"):
        await client.get("/api/v1/pods")
    await api.start()


async def test_over_tls_a_token_is_needed() -> None:
    """Where the account's files are missing that is said, by name."""
    away = KubernetesApi(Access("https://127.0.0.1:1", NOWHERE / "token", NOWHERE / "ca.crt"))
    with pytest.raises(KubernetesSilent, match="/nonexistent/token"):
        await away.get("/api")
    await away.close()


def test_a_pod_is_told_where_the_api_is() -> None:
    """By its variables; outside of a pod the setting is named."""
    told = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert url_of_pod(told) == "https://[fd00::1]:6443"
    with pytest.raises(KubernetesSilent, match="TALLYGATE_INJECTOR_KUBERNETES_URL"):
        url_of_pod({})
