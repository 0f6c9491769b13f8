"""What an operator may set of traces.

Guarantees: as of `Settings`, of which this is a part.
Refuses to know: who records and sends spans.
"""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def check_endpoint(endpoint: str) -> str:
    """Return an endpoint as it is; raise ValueError unless `http(s)://host:port`."""
    parts = urlsplit(endpoint)
    plain = not (parts.username or parts.password or parts.query or parts.path.strip("/"))
    # Asked for by name, as it raises for a port that is none.
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port or not plain:
        raise ValueError(
            "an endpoint is http://host:port, or https://host:port for TLS; keys for it go into"
            " tracing_headers_file"
        )
    return endpoint


class TracingSettings(BaseSettings):
    """Whether calls are recorded as traces, and where these go."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    tracing: Literal["off", "otlp"] = "off"
    """Whether calls are recorded as OpenTelemetry spans and sent over OTLP; `otlp` needs the extra
    `otel`. Off, nothing of it is loaded or asked for."""

    tracing_endpoint: Annotated[str, AfterValidator(check_endpoint)] = "http://127.0.0.1:4317"
    """Where the collector takes OTLP over gRPC: `https://` for TLS, `http://` for one beside us."""

    tracing_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """How many of the calls that come without a trace begin one: a hundredth shows what is usual at
    next to no cost. Calls that come with one are recorded as their caller has decided."""

    tracing_calls_per_s_max: int = Field(default=200, ge=1, le=100_000)
    """How many calls are recorded in a second, at most, whatever callers decide: each costs some
    250 µs of CPU for its spans, so that these are a twentieth of a core. Others pass unrecorded,
    and are counted."""

    tracing_queue_max: int = Field(default=8_192, ge=512, le=1_000_000)
    """How many ended spans wait for the collector, at most, some 2 KB each: ten seconds without it
    at the most calls by default. What finds no room is dropped, and counted."""

    tracing_headers_file: Path | None = None
    """A file of what is sent along to the collector, such as its key: `name: value` in each line.
    Read again when it changes."""

    tracing_ca_file: Path | None = None
    """The certificates that the collector's is held against; unset, those of the system."""

    tracing_cert_file: Path | None = None
    """Our certificate, where the collector asks for one; read again when it changes."""

    tracing_key_file: Path | None = None
    """The key of that certificate."""

    tracing_tenant_key_file: Path | None = None
    """A file with a key, 16 bytes at least, by which spans of calls name their tenant: as the first
    16 digits of an HMAC-SHA256 of its id. Unset, no span says anything of tenants."""

    @model_validator(mode="after")
    def check_tracing(self) -> Self:
        """Refuse files that mean nothing together."""
        if (self.tracing_cert_file is None) != (self.tracing_key_file is None):
            raise ValueError("tracing_cert_file and tracing_key_file come together, or not at all")
        plain = self.tracing_endpoint.startswith("http://")
        if plain and (self.tracing_ca_file or self.tracing_cert_file):
            raise ValueError(
                "tracing_ca_file and tracing_cert_file need an https:// tracing_endpoint: over"
                " http:// nothing is encrypted"
            )
        return self
