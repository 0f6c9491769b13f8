"""A real API server takes the chart: every object of every case, and a release's whole life.

Schemas say what an object looks like; only the server says what goes together: names of ports,
selectors that cannot change, accounts, classes of priority. Kinds of operators are left out, as
they are not installed here, and hooks are taken one by one, as no pod of theirs would ever run.
"""

import asyncio
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from tests.chart import kubernetes
from tests.chart.cases import CASES, EVERYTHING, NEEDED, SECURED, Values
from tests.chart.helm import NAMESPACE, RELEASE, Helm
from tests.chart.objects import Object, name, objects
from tests.servers import eventually

from .check_injection import Cluster
from .servers import control_plane

# What the values name and a cluster's administrator has made.
AROUND: Final = (
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "metering"},
        "value": 1000,
    },
    {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "gvisor"},
        "handler": "gvisor",
    },
)


def test_a_real_api_server_takes_the_chart(tmp_path: Path) -> None:
    """It takes what is rendered; an install is upgraded, rolled back, and leaves nothing."""
    asyncio.run(check_everything(tmp_path))


async def check_everything(folder: Path) -> None:
    """Run the story."""
    with control_plane(folder) as plane, Helm() as helm:
        cluster = Cluster(plane)
        try:
            await eventually(cluster.ready, timeout_s=120)
            await cluster.space(NAMESPACE)
            for each in AROUND:
                await cluster.apply(each)
            for values in CASES.values():
                for made in objects(helm.render(values)):
                    if made["kind"] not in kubernetes.FOREIGN:
                        await dry_run(cluster, made)
            await a_release_lives(cluster, helm, folder / "kubeconfig")
        except BaseException:
            sys.stdout.write(plane.told())
            raise
        finally:
            await cluster.api.close()


async def dry_run(cluster: Cluster, made: Object) -> None:
    """Have an object judged as if it were created: unknown fields are faults."""
    group = made["apiVersion"]
    plural, namespaced = (await cluster.kinds(group))[made["kind"]]
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    scope = f"/namespaces/{NAMESPACE}" if namespaced else ""
    asked = {"dryRun": "All", "fieldValidation": "Strict"}
    answer: Any = await cluster.api._ask("POST", f"{base}{scope}/{plural}", params=asked, body=made)
    assert answer["metadata"]["name"] == made["metadata"]["name"], name(made)


async def a_release_lives(cluster: Cluster, helm: Helm, kubeconfig: Path) -> None:
    """Nothing that a selector fixes changes between releases, and nothing is left of them."""
    story = (
        ("install", NEEDED, "deployed"),
        ("upgrade", EVERYTHING, "deployed"),
        ("upgrade", SECURED, "deployed"),
        ("rollback", NEEDED, "deployed"),
        ("uninstall", NEEDED, "gone"),
    )
    for what, values, expected in story:
        told = await asyncio.to_thread(helm.release, what, kubeconfig, without_hooks(values))
        assert told == expected, what
    for path, kinds in (
        ("/api/v1", ("services", "configmaps")),
        ("/apis/apps/v1", ("deployments",)),
    ):
        for kind in kinds:
            left: Any = await cluster.get(f"{path}/namespaces/{NAMESPACE}/{kind}")
            names = [each["metadata"]["name"] for each in left["items"]]
            assert [each for each in names if each.startswith(RELEASE)] == []


def without_hooks(values: Values) -> Values:
    """Return the values without what waits for a pod to end, or for an operator's kinds."""
    found = deepcopy(values)
    found.pop("fullnameOverride", None)
    found["migrate"] = {"enabled": False}
    found["catalog"] = {**found.get("catalog", {}), "apply": False}
    found["monitoring"] = {"dashboards": {"enabled": True}}
    if "autoscaling" in found.get("relay", {}):
        del found["relay"]["autoscaling"]
    return found
