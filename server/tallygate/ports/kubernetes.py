"""Seams to a Kubernetes cluster, as the injector needs it: pods, a Secret, a webhook's trust.

Guarantees: a cluster that does not answer is `KubernetesSilent`, one that says no is
`KubernetesRefused`; neither holds a token or a key.
Refuses to know: HTTP, and how certificates are made.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tallygate.domain.errors import BackendUnavailable, TallygateError
from tallygate.domain.injection import Asked


class KubernetesSilent(BackendUnavailable):
    """The Kubernetes API did not answer."""


class KubernetesRefused(TallygateError):
    """The Kubernetes API refused what was asked of it."""

    reason = "INVALID_FIELD"

    def __init__(self, detail: str | None = None, *, status: int = 0) -> None:
        super().__init__(detail)
        self.status = status


class ChangedMeanwhile(TallygateError):
    """Another replica wrote it first; read it again."""

    transient = True


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeptCertificates:
    """What the Secret holds. `version` is of what was read, "" where there is no Secret yet."""

    authority: Pair | None = None
    bundle: bytes = b""
    serving: Pair | None = None
    version: str = ""


class PodsAsking(Protocol):
    """The cluster's pods that ask for a sidecar."""

    def asking(self) -> AsyncIterator[Asked]:
        """Yield each pod that asks by its label or its namespace's. Raises `KubernetesSilent`."""
        ...


class CertificateSecret(Protocol):
    """Where replicas share an authority and a certificate."""

    async def read(self) -> KeptCertificates:
        """Return what is kept."""
        ...

    async def write(self, kept: KeptCertificates) -> None:
        """Keep it, if nobody wrote since it was read. Raises `ChangedMeanwhile`."""
        ...


class WebhookTrust(Protocol):
    """Whom the API server trusts when it calls the webhook."""

    async def trust(self, bundle: bytes) -> bool:
        """Have these authorities trusted; say whether that changed anything."""
        ...


class Authorities(Protocol):
    """What makes certificates and reads them. Times are in microseconds."""

    def found(self, now_us: int) -> Pair:
        """Return a new authority."""
        ...

    def issue(self, authority: Pair, names: Sequence[str], now_us: int) -> Pair:
        """Return a certificate for a server of these names."""
        ...

    def due(self, certificate: bytes, now_us: int) -> bool:
        """Say whether a certificate has used up two thirds of its time, or cannot be read."""
        ...

    def issued(self, serving: Pair, authority: Pair, names: Sequence[str]) -> bool:
        """Say whether a certificate is the authority's, for these names, and its key its own."""
        ...

    def unexpired(self, bundle: bytes, now_us: int) -> bytes:
        """Return those certificates of a bundle that are good still, each once."""
        ...

    def expires_us(self, certificate: bytes) -> int:
        """Return when the first certificate ends. Raises `InvalidField` where there is none."""
        ...
