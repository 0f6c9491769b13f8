"""A real API server asks the injector: pods, jobs and deployments come back with their sidecar.

Everything here is one story on one control plane, as starting one takes seconds: the chart is
applied, the injector runs with the rights that the chart gives it, and makes its own certificate.
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tallygate.adapters.kubernetes.client import Access, KubernetesApi
from tallygate.domain.errors import TallygateError
from tallygate.domain.injection import Asked, HostNetwork, Rules, inject
from tallygate.ports.kubernetes import KubernetesRefused
from tallygate.settings import Settings
from tallygate.wiring.injecting import RunningInjector, injecting, look_once
from tallygate.wiring.injection_rules import sidecar_now
from tests.chart.cases import NEEDED
from tests.chart.helm import NAMESPACE, Helm
from tests.chart.objects import objects
from tests.injector.conftest import metrics
from tests.servers import eventually

from .servers import ControlPlane, control_plane

Manifest = dict[str, Any]

# Shapes that only an API server can say are whole.
SHAPES = (
    {"mode": "container", "init-order": "last"},
    {"journal-volume": "ephemeral", "journal-size": "1Gi", "journal-storage-class": "fast"},
    {"journal-volume": "claim/mine", "ops-port": "19464", "grpc-port": "50052"},
    {"cpu-limit": "2", "memory-limit": "512Mi", "socket-path": "/run/q/q.sock", "fs-group": "7"},
    {"image": "other.example/tallygate:2", "log-level": "debug", "set.redis-timeout-ms": "90"},
)
# Kinds that this API server does not know, as others define them.
FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/", "keda.sh/")
VALUES: dict[str, object] = {**NEEDED, "injector": {"enabled": True}}


class Cluster:
    """A control plane, as its administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = KubernetesApi(Access(plane.url, plane.token_file, plane.ca_file))

    async def ready(self) -> bool:
        """Say whether the API server answers."""
        try:
            return await self.api.get("/api/v1/namespaces/default") is not None
        except TallygateError:
            return False

    async def kinds(self, group: str) -> dict[str, tuple[str, bool]]:
        """Return each kind's plural, and whether it lies in a namespace."""
        path = f"/apis/{group}" if "/" in group else f"/api/{group}"
        found = await self.api.get(path)
        assert found is not None, group
        listed: Any = found["resources"]
        return {
            each["kind"]: (each["name"], each["namespaced"])
            for each in listed
            if "/" not in each["name"]
        }

    async def apply(self, manifest: Manifest, namespace: str = NAMESPACE) -> None:
        """Create an object."""
        group = manifest["apiVersion"]
        name, namespaced = (await self.kinds(group))[manifest["kind"]]
        base = f"/apis/{group}" if "/" in group else f"/api/{group}"
        inside = manifest["metadata"].get("namespace", namespace)
        scope = f"/namespaces/{inside}" if namespaced else ""
        await self.api.post(f"{base}{scope}/{name}", manifest)

    async def made(self, manifest: Manifest, namespace: str = "default") -> Manifest:
        """Return what a pod would be, and leave it at that."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        answer: Any = await self.api._ask("POST", path, params={"dryRun": "All"}, body=manifest)
        found: Manifest = answer
        return found

    async def space(self, name: str, label: str = "") -> None:
        """Create a namespace, with the account that its pods run as."""
        labels = {"tallygate.dev/inject": label} if label else {}
        metadata = {"name": name, "labels": labels}
        await self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        await self.account(name)

    async def account(self, namespace: str) -> None:
        """Wait for the account that a namespace's pods run as."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        await eventually(lambda: self.get(path), timeout_s=60)

    async def get(self, path: str) -> Any:
        """Return an object, for reading."""
        return await self.api.get(path)

    async def pods(self, namespace: str) -> list[Manifest]:
        """Return the pods of a namespace."""
        found: Any = await self.api.get(f"/api/v1/namespaces/{namespace}/pods")
        listed: list[Manifest] = found["items"]
        return listed


def pod(name: str, *, asks: str = "true", **spec: Any) -> Manifest:
    """Return a pod of one container."""
    labels = {"tallygate.dev/inject": asks} if asks else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": spec.pop("annotations", {})},
        "spec": {"containers": [{"name": "web", "image": "web:1"}], **spec},
    }


def sidecars(manifest: Manifest) -> list[Manifest]:
    """Return a pod's containers that are ours."""
    spec = manifest["spec"]
    both = [*spec.get("initContainers", []), *spec["containers"]]
    return [each for each in both if each["name"] == "tallygate"]


async def install(cluster: Cluster, rendered: list[Manifest]) -> None:
    """Apply the chart, but for the webhook: the API server takes every object as it is."""
    await cluster.account("default")
    await cluster.space(NAMESPACE)
    for each in rendered:
        foreign = each["apiVersion"].startswith(FOREIGN)
        if not foreign and each["kind"] != "MutatingWebhookConfiguration":
            await cluster.apply(each)


def of_kind(rendered: list[Manifest], kind: str, ending: str = "injector") -> Manifest:
    """Return the injector's object of a kind."""
    (found,) = [
        each for each in rendered if each["kind"] == kind and ending in each["metadata"]["name"]
    ]
    return found


async def settings_of(cluster: Cluster, rendered: list[Manifest], folder: Path) -> Settings:
    """Return the settings of the chart's injector, with its account's own token."""
    container = of_kind(rendered, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    told = {each["name"]: each.get("value", "") for each in container["env"]}
    account = of_kind(rendered, "ServiceAccount")["metadata"]["name"]
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    asked: Any = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer: Any = await cluster.api._ask("POST", path, body=asked)
    (folder / "token").write_text(answer["status"]["token"])
    pieces = [
        text
        for each in rendered
        if each["kind"] == "ConfigMap"
        for name, text in each.get("data", {}).items()
        if name == "sidecar.yaml"
    ]
    (folder / "sidecar.yaml").write_text(pieces[0])
    return Settings.model_validate(
        {
            "injector_address": "127.0.0.1:0",
            "ops_address": "127.0.0.1:0",
            "injector_config": folder / "sidecar.yaml",
            "injector_cert_secret": told["TALLYGATE_INJECTOR_CERT_SECRET"],
            "injector_webhook": told["TALLYGATE_INJECTOR_WEBHOOK"],
            # No cluster network leads to a Service here: the API server calls by URL.
            "injector_service": "localhost",
            "injector_namespace": NAMESPACE,
            "injector_kubernetes_url": cluster.plane.url,
            "injector_kubernetes_token_file": folder / "token",
            "injector_kubernetes_ca_file": cluster.plane.ca_file,
            "injector_report_ms": 300,
            "injector_linger_ms": 0,
        }
    )


@asynccontextmanager
async def admitting(
    cluster: Cluster, rendered: list[Manifest], folder: Path
) -> AsyncIterator[RunningInjector]:
    """Run the injector, register its webhooks, and wait until the API server asks it."""
    webhook = deepcopy(of_kind(rendered, "MutatingWebhookConfiguration"))
    async with injecting(await settings_of(cluster, rendered, folder)) as running:
        for each in webhook["webhooks"]:
            path = each["clientConfig"]["service"]["path"]
            each["clientConfig"] = {"url": f"https://localhost:{running.port}{path}"}
        await cluster.apply(webhook)

        async def asked() -> bool:
            return len(sidecars(await cluster.made(pod("probe")))) == 1

        await eventually(asked, timeout_s=60)
        yield running


async def admits(cluster: Cluster) -> None:
    """Pods get what they ask for, and the API server takes every shape of it."""
    await cluster.apply(pod("kept"), "default")
    kept = await cluster.get("/api/v1/namespaces/default/pods/kept")
    (sidecar,) = sidecars(kept)
    assert sidecar["restartPolicy"] == "Always"
    for annotations in SHAPES:
        named = {f"tallygate.dev/{name}": value for name, value in annotations.items()}
        shaped = await cluster.made(pod("shaped", annotations=named))
        assert len(sidecars(shaped)) == 1, annotations
    again = pod("again", annotations=kept["metadata"]["annotations"])
    spec = kept["spec"]
    again["spec"] = {key: spec[key] for key in ("containers", "initContainers", "volumes")}
    assert len(sidecars(await cluster.made(again))) == 1
    await cluster.space("shop", "true")
    for asks, count in (("", 1), ("true", 1), ("false", 0)):
        assert len(sidecars(await cluster.made(pod("any", asks=asks), "shop"))) == count
    assert sidecars(await cluster.made(pod("any", asks=""))) == []
    for excluded in (NAMESPACE, "kube-system"):
        await cluster.account(excluded)
        assert sidecars(await cluster.made(pod("any"), excluded)) == []
    for why, wrong in (
        ("spec.hostNetwork: ", pod("host", hostNetwork=True)),
        ("tallygate.dev/mode: ", pod("mode", annotations={"tallygate.dev/mode": "x"})),
    ):
        with pytest.raises(KubernetesRefused, match=why):
            await cluster.made(wrong)


async def controllers_are_served(cluster: Cluster) -> None:
    """Pods that a Deployment and a Job make have their sidecars, a Job's a native one."""
    template: Manifest = {
        "metadata": {"labels": {"app": "web", "tallygate.dev/inject": "true"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    }
    selector = {"matchLabels": {"app": "web"}}
    once: Any = deepcopy(template)
    once["metadata"] = {"labels": {"tallygate.dev/inject": "true"}}
    once["spec"] = {**once["spec"], "restartPolicy": "Never"}
    for kind, version, spec in (
        ("Deployment", "apps/v1", {"replicas": 2, "selector": selector, "template": template}),
        ("Job", "batch/v1", {"template": once}),
    ):
        metadata = {"name": f"made-by-{kind.lower()}"}
        manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        await cluster.apply(manifest, "default")

    async def made() -> list[Manifest]:
        found = [each for each in await cluster.pods("default") if _owner(each)]
        return found if len(found) == 3 else []

    for each in await eventually(made, timeout_s=60):
        (sidecar,) = sidecars(each)
        assert sidecar["restartPolicy"] == "Always"


def _owner(manifest: Manifest) -> bool:
    return "ownerReferences" in manifest["metadata"]


async def replicas_serve_alike(running: RunningInjector, settings: Settings) -> None:
    """A second replica reads the Secret of the first and shows the same certificate."""
    async with injecting(settings) as second:

        async def alike() -> bool:
            ports = (running.port, second.port)
            found = [await asyncio.to_thread(_certificate, port) for port in ports]
            return found[0] == found[1] != ""

        await eventually(alike, timeout_s=60)


def _certificate(port: int) -> str:
    try:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)
    except OSError:
        return ""


async def misses_are_reported(cluster: Cluster, running: RunningInjector) -> None:
    """A pod that was there before its namespace asked is counted, and nobody else is."""
    await cluster.space("late")
    await cluster.apply(pod("early", asks=""), "late")
    operation: Any = {"op": "add", "path": "/metadata/labels/tallygate.dev~1inject"}
    await cluster.api.patch("/api/v1/namespaces/late", [{**operation, "value": "true"}])

    async def told() -> bool:
        return "tallygate_injector_missed_pods 1.0" in await metrics(running)

    await eventually(told, timeout_s=60)


async def goes_on_without(cluster: Cluster, settings: Settings) -> None:
    """With the injector away pods start all the same; the report then names them, and why."""
    await cluster.apply(pod("unlucky"), "default")
    found = await cluster.get("/api/v1/namespaces/default/pods/unlucky")
    assert sidecars(found) == []
    sockets = Rules(host_network=HostNetwork.SOCKET)
    host = inject(
        Asked(pod("host", hostNetwork=True), "default"),
        sidecar_now(settings.injector_config),
        sockets,
    )
    (sidecar,) = sidecars(await cluster.made(host.pod))
    assert all("hostPort" not in each for each in sidecar.get("ports", []))
    look = await look_once(settings)
    assert {each.pod for each in look.missed} == {"early", "unlucky"}
    assert all("while the injector was away" in each.reason for each in look.missed)


async def check_everything(folder: Path) -> None:
    """Run the story."""
    with control_plane(folder) as plane:
        cluster = Cluster(plane)
        try:
            await eventually(cluster.ready, timeout_s=120)
            with Helm() as helm:
                rendered = objects(helm.render(VALUES))
            await install(cluster, rendered)
            async with admitting(cluster, rendered, folder) as running:
                await admits(cluster)
                await controllers_are_served(cluster)
                settings = await settings_of(cluster, rendered, folder)
                await replicas_serve_alike(running, settings)
                await misses_are_reported(cluster, running)
            await goes_on_without(cluster, settings)
        except BaseException:
            sys.stdout.write(plane.told())
            raise
        finally:
            await cluster.api.close()


def test_a_real_api_server_is_served(tmp_path: Path) -> None:
    """The chart is taken as it is; pods come back injected, refused, or listed as missed."""
    asyncio.run(check_everything(tmp_path))
