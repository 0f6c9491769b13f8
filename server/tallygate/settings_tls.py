"""Settings of transport and identity: certificates, who may ask for what, and sockets' owners.

Guarantees: what would leave callers unproven where rules need them proven is refused.
Refuses to know: what is in the files.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def octal(value: object) -> object:
    """Return a mode that YAML has read as a number as it was written; anything else as it is."""
    return f"{value:04o}" if isinstance(value, int) else value


class TlsSettings(BaseSettings):
    """What listeners prove themselves with, and whom they believe."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    tls_cert_file: Path | None = None
    """The certificate, in PEM, and after it what leads to its root. With it, the data plane and
    control speak TLS on their TCP addresses; Unix sockets never do."""

    tls_key_file: Path | None = None
    """The certificate's private key, in PEM, without a password."""

    tls_client_ca_file: Path | None = None
    """The authorities of callers, in PEM. With it, nobody is let in over TCP without a certificate
    of theirs."""

    tls_identities: Path | None = None
    """Which SPIFFE ids may ask for which tenants and meters, in YAML. Without it, who is let in may
    ask for everything."""

    tls_poll_ms: int = Field(default=1_000, ge=10, le=600_000)
    """Between looks at these files, and at those below: renewals come hours before they are due."""

    tls_ops: Literal["off", "on"] = "off"
    """Whether health and metrics speak TLS too, by the same certificate. Nobody is asked for his,
    as probes of Kubernetes have none."""

    socket_mode: Annotated[str, BeforeValidator(octal), Field(pattern=r"^0[67][0-7]{2}$")] = "0660"
    """The permissions of Unix sockets, in octal as of `chmod`. They are all that keeps others out:
    whoever may write to the socket may call."""

    socket_group: str = ""
    """The group of Unix sockets, as name or number; empty for the process's own. The process must
    be in it, or be root."""

    call_ca_file: Path | None = None
    """The authorities that commands believe when they call control and the data plane. With it,
    they speak TLS to TCP addresses."""

    call_cert_file: Path | None = None
    """The certificate that commands show of themselves, in PEM."""

    call_key_file: Path | None = None
    """The private key of that certificate."""

    call_server_name: str = ""
    """The name that the server's certificate has to have, where that is not its address's."""

    @model_validator(mode="after")
    def check_tls(self) -> Self:
        """Refuse values that are each right and wrong together."""
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file need each other")
        if self.tls_cert_file is None and self.tls_client_ca_file is not None:
            raise ValueError("tls_client_ca_file needs tls_cert_file: without it nothing is TLS")
        if self.tls_cert_file is None and self.tls_ops == "on":
            raise ValueError("tls_ops needs tls_cert_file")
        if (self.call_cert_file is None) != (self.call_key_file is None):
            raise ValueError("call_cert_file and call_key_file need each other")
        if self.call_cert_file is not None and self.call_ca_file is None:
            raise ValueError("call_cert_file needs call_ca_file: without it commands speak no TLS")
        return self
