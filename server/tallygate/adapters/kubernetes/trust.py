"""The Secret in which replicas share their certificates, and the webhook's list of authorities.

Guarantees: a write over somebody else's is refused by the API server, and told; nothing else in
either object is changed.
Refuses to know: what is in a certificate, and when it is renewed.
"""

import base64
import binascii
from typing import Final

from tallygate.adapters.kubernetes.client import KubernetesApi
from tallygate.domain.json_patch import Json, Object
from tallygate.domain.pod_parts import object_in, objects_in, text_in, texts_in
from tallygate.ports.kubernetes import (
    ChangedMeanwhile,
    KeptCertificates,
    KubernetesRefused,
    Pair,
)

AUTHORITY: Final = ("ca.crt", "ca.key")
SERVING: Final = ("tls.crt", "tls.key")
BUNDLE: Final = "bundle.crt"
# How a patch is answered whose test does not hold.
UNPROCESSABLE: Final = 422
WEBHOOKS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class SharedSecret:
    """The `CertificateSecret` port."""

    def __init__(self, api: KubernetesApi, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._path = f"/api/v1/namespaces/{namespace}/secrets"

    async def read(self) -> KeptCertificates:
        """Return what is kept; what cannot be read counts as missing."""
        found = await self._api.get(f"{self._path}/{self._name}")
        if found is None:
            return KeptCertificates()
        held = texts_in(found, "data")
        return KeptCertificates(
            _pair(held, AUTHORITY),
            _decoded(held, BUNDLE),
            _pair(held, SERVING),
            text_in(object_in(found, "metadata"), "resourceVersion"),
        )

    async def write(self, kept: KeptCertificates) -> None:
        """Create the Secret, or replace the version that was read."""
        metadata: Object = {
            "name": self._name,
            "namespace": self._namespace,
            "labels": {"app.kubernetes.io/managed-by": "tallygate-injector"},
        }
        secret: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": metadata,
            "data": _encoded(kept),
        }
        if not kept.version:
            await self._api.post(self._path, secret)
            return
        metadata["resourceVersion"] = kept.version
        await self._api.put(f"{self._path}/{self._name}", secret)


class RegisteredWebhook:
    """The `WebhookTrust` port, of one MutatingWebhookConfiguration."""

    def __init__(self, api: KubernetesApi, name: str) -> None:
        self._api = api
        self._name = name

    async def trust(self, bundle: bytes) -> bool:
        """Set each webhook's `caBundle`. Raises `KubernetesRefused` where there is no webhook."""
        path = f"{WEBHOOKS}/{self._name}"
        found = await self._api.get(path)
        if found is None:
            raise KubernetesRefused(f"there is no MutatingWebhookConfiguration {self._name}")
        wanted = base64.b64encode(bundle).decode()
        operations: list[Json] = []
        for place, webhook in enumerate(objects_in(found, "webhooks")):
            if text_in(object_in(webhook, "clientConfig"), "caBundle") != wanted:
                place_path = f"/webhooks/{place}/clientConfig/caBundle"
                operations.append({"op": "add", "path": place_path, "value": wanted})
        if not operations:
            return False
        # The places are those of this version alone: a test of it refuses any other.
        version = text_in(object_in(found, "metadata"), "resourceVersion")
        test: Object = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        try:
            await self._api.patch(path, [test, *operations])
        except KubernetesRefused as error:
            if error.status == UNPROCESSABLE:
                raise ChangedMeanwhile from error
            raise
        return True


def _encoded(kept: KeptCertificates) -> Object:
    found: Object = {BUNDLE: base64.b64encode(kept.bundle).decode()}
    for pair, (certificate, key) in ((kept.authority, AUTHORITY), (kept.serving, SERVING)):
        if pair is not None:
            found[certificate] = base64.b64encode(pair.certificate).decode()
            found[key] = base64.b64encode(pair.key).decode()
    return found


def _pair(held: dict[str, str], names: tuple[str, str]) -> Pair | None:
    certificate, key = (_decoded(held, name) for name in names)
    return Pair(certificate, key) if certificate and key else None


def _decoded(held: dict[str, str], name: str) -> bytes:
    try:
        return base64.b64decode(held.get(name, ""), validate=True)
    except binascii.Error:
        return b""
