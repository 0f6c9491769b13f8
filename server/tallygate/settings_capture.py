"""What an operator may set of usage that comes by other ways than a call of the app.

Guarantees: each number has its bounds and its reason. Refuses to know how usage is captured.
"""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tallygate.settings_types import Address, PostgresDsn

KIB = 1024


class CaptureSettings(BaseSettings):
    """Capture in an app's own database, and events over HTTP."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    capture_dsn: PostgresDsn | None = None
    """The app's own Postgres whose outbox `tallygate capture run` drains, as the role
    *tallygate_capture* or a login in it."""

    capture_poll_ms: int = Field(default=500, ge=10, le=600_000)
    """Between looks at an empty outbox: usage counts within a second, for two cheap reads."""

    record_target: Address | None = None
    """The sidecar that captured usage and events over HTTP are recorded by; unset, the first of
    `grpc_address`. Over TLS where `call_ca_file` is set."""

    http_address: Address | None = None
    """Where control takes CloudEvents over HTTP; unset, it takes none."""

    http_body_max_bytes: int = Field(default=1024 * KIB, ge=KIB, le=64 * 1024 * KIB)
    """The largest body of a call: a thousand events of a kilobyte."""

    http_calls_max: int = Field(default=64, ge=1, le=10_000)
    """Calls at once that are being read or recorded; one more is told to come back. Each may hold
    a body, and several times that once it is read."""

    http_timeout_ms: int = Field(default=15_000, ge=100, le=120_000)
    """For a whole call, its body included: a sidecar answers within 10 s or not at all."""
