"""A cluster in memory: pods, namespaces, one Secret and one webhook, as the injector needs them.

Guarantees: what the ports' contract asks; a write over another's is refused, as an API server does.
Refuses to know: HTTP. It is no part of a running service.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from tallygate.domain.injection import Asked
from tallygate.domain.injection_wishes import INJECT
from tallygate.domain.json_patch import Object
from tallygate.domain.pod_parts import object_in, text_in, texts_in
from tallygate.ports.kubernetes import (
    ChangedMeanwhile,
    KeptCertificates,
    KubernetesRefused,
    KubernetesSilent,
)

ENDED = ("Succeeded", "Failed")


@dataclass(slots=True)
class FakeCluster:
    """The three ports of a cluster. `webhook` is None where there is none; `away` is silent."""

    namespaces: dict[str, str] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    kept: KeptCertificates = field(default_factory=KeptCertificates)
    webhook: bytes | None = b""
    away: bool = False
    writes: int = 0

    async def asking(self) -> AsyncIterator[Asked]:
        """Yield each pod that asks by its label, then those whose namespace does."""
        self._answer()
        for by_namespace in (False, True):
            for pod in self.pods:
                metadata = object_in(pod, "metadata")
                namespace = text_in(metadata, "namespace")
                asks = self.namespaces.get(namespace, "")
                label = texts_in(metadata, "labels").get(INJECT, "")
                if text_in(object_in(pod, "status"), "phase") in ENDED:
                    continue
                if by_namespace and asks == "true" and label not in ("true", "false"):
                    yield Asked(pod, namespace, by_namespace=True)
                if not by_namespace and label == "true" and asks != "false":
                    yield Asked(pod, namespace, asks == "true")

    async def read(self) -> KeptCertificates:
        """Return what is kept."""
        self._answer()
        return self.kept

    async def write(self, kept: KeptCertificates) -> None:
        """Keep it, if nobody wrote since it was read."""
        self._answer()
        if kept.version != self.kept.version:
            raise ChangedMeanwhile
        self.writes += 1
        self.kept = replace(kept, version=str(self.writes))

    async def trust(self, bundle: bytes) -> bool:
        """Have these authorities trusted."""
        self._answer()
        if self.webhook is None:
            raise KubernetesRefused("there is no such webhook")
        changed = self.webhook != bundle
        self.webhook = bundle
        return changed

    def _answer(self) -> None:
        if self.away:
            raise KubernetesSilent
