"""The pods of a cluster that ask for a sidecar.

Guarantees: lists are read in pages; a namespace that refuses sidecars by its label is left out, as
the API server leaves it out.
Refuses to know: what is right about a pod.
"""

from collections.abc import AsyncIterator
from typing import Final

from tallygate.adapters.kubernetes.client import KubernetesApi
from tallygate.domain.injection import Asked
from tallygate.domain.injection_wishes import INJECT
from tallygate.domain.json_patch import Object
from tallygate.domain.pod_parts import object_in, objects_in, text_in, texts_in

PAGE: Final = "250"
RUNNING: Final = "status.phase!=Succeeded,status.phase!=Failed"


class ClusterPods:
    """The `PodsAsking` port."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api

    async def asking(self) -> AsyncIterator[Asked]:
        """Yield each pod that asks by its label, then those whose namespace does."""
        namespaces = {}
        async for each in self._listed("/api/v1/namespaces", {"labelSelector": INJECT}):
            metadata = object_in(each, "metadata")
            namespaces[text_in(metadata, "name")] = texts_in(metadata, "labels").get(INJECT)
        by_label = {"labelSelector": f"{INJECT}=true", "fieldSelector": RUNNING}
        async for pod in self._listed("/api/v1/pods", by_label):
            namespace = text_in(object_in(pod, "metadata"), "namespace")
            if namespaces.get(namespace) != "false":
                yield Asked(pod, namespace, namespaces.get(namespace) == "true")
        others = {"labelSelector": f"{INJECT} notin (true,false)", "fieldSelector": RUNNING}
        for namespace, label in namespaces.items():
            if label == "true":
                path = f"/api/v1/namespaces/{namespace}/pods"
                async for pod in self._listed(path, others):
                    yield Asked(pod, namespace, by_namespace=True)

    async def _listed(self, path: str, params: dict[str, str]) -> AsyncIterator[Object]:
        rest = ""
        while True:
            page = await self._api.get(path, {**params, "limit": PAGE, "continue": rest})
            if page is None:
                return
            for each in objects_in(page, "items"):
                yield each
            rest = text_in(object_in(page, "metadata"), "continue")
            if not rest:
                return
