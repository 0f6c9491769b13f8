"""The settings of `tallygate injector`.

Guarantees: nothing but their form and what holds among themselves.
Refuses to know the other settings, and what a role cannot do without.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tallygate.settings_types import Address, split_commas

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KubernetesName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]
KubernetesNames = Annotated[tuple[KubernetesName, ...], NoDecode, BeforeValidator(split_commas)]


class InjectorSettings(BaseSettings):
    """What an operator may set of the injector. Each field is also `TALLYGATE_` and its name."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    injector_address: Address = "127.0.0.1:8443"
    """Where the injector listens for the API server's questions, over HTTPS."""

    injector_config: Path | None = None
    """The sidecar's pieces as YAML: its container, volumes, socket (`docs/injector.md`). The chart
    makes it of the template that apps include. Read again when it changes."""

    injector_cert_file: Path | None = None
    """The injector's certificate, PEM, with what it was issued by below. Read again when it
    changes; no connection is dropped."""

    injector_key_file: Path | None = None
    """The key of the same."""

    injector_cert_secret: KubernetesName = ""
    """Instead of files: the Secret of the injector's own namespace in which it keeps an authority
    and a certificate that it makes and renews itself."""

    injector_webhook: KubernetesName = ""
    """With the same: the MutatingWebhookConfiguration in which it keeps its `caBundle`."""

    injector_service: KubernetesName = ""
    """With the same: the name by which the API server calls it, as in
    `tallygate-injector.tallygate.svc`."""

    injector_namespace: KubernetesName = ""
    """The injector's own namespace, in which nothing is injected; else the service account's."""

    injector_excluded_namespaces: KubernetesNames = (
        "kube-system",
        "kube-public",
        "kube-node-lease",
    )
    """Namespaces in which nothing is injected, whatever their pods ask: the cluster's own."""

    injector_host_network: Literal["refuse", "socket"] = "refuse"
    """Pods in their node's network: refused, or given a sidecar that takes no port of the node."""

    injector_calls_max: int = Field(default=64, ge=1, le=10_000)
    """Questions at once: each takes a millisecond and holds a pod's manifest. One more is answered
    503, and the webhook's `failurePolicy` decides."""

    injector_report_ms: int = Field(default=60_000, ge=0, le=86_400_000)
    """Between looks for pods that ask for a sidecar and have none; 0 for never. Each lists the pods
    that ask, 250 at a time."""

    injector_linger_ms: int = Field(default=5_000, ge=0, le=600_000)
    """How long a stopping injector goes on answering: what is still sent to it after it has left
    its Service would else go without a sidecar."""

    injector_kubernetes_url: str = Field(default="", pattern=r"^(https?://[^\s/?#@]+)?$")
    """Where the Kubernetes API is, with the service account's token; else as pods are told. Over
    plain HTTP no token is sent: it is for `kubectl proxy`."""

    injector_kubernetes_token_file: Path = ACCOUNT / "token"
    """The token that the Kubernetes API is asked with. Read for each call, as it is renewed."""

    injector_kubernetes_ca_file: Path = ACCOUNT / "ca.crt"
    """The authority of the Kubernetes API's certificate, PEM. Read again when it changes."""

    @model_validator(mode="after")
    def check_injector(self) -> Self:
        """Refuse halves: a certificate without its key, a Secret without who is to trust it."""
        files = (self.injector_cert_file, self.injector_key_file)
        own = (self.injector_cert_secret, self.injector_webhook, self.injector_service)
        if any(files) and not all(files):
            raise ValueError("injector_cert_file and injector_key_file need each other")
        if any(own) and not all(own):
            raise ValueError(
                "injector_cert_secret, injector_webhook and injector_service need each other"
            )
        if any(files) and any(own):
            raise ValueError("injector_cert_file and injector_cert_secret exclude each other")
        return self
