"""Settings of who may call control, and of what our own commands call it with.

Guarantees: a key set comes from one place. Refuses to know how tokens are verified.
"""

import ipaddress
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class AccessSettings(BaseSettings):
    """What an operator may set of it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    token_keys_file: Path | None = None
    """The public keys (JWKS) that bearer tokens for control are verified with; read anew when the
    file changes. With this or `token_keys_url`, control answers nobody without a token."""

    token_keys_url: str | None = None
    """The same at an address, as identity providers publish them: https, but on this machine."""

    token_keys_refresh_ms: int = Field(default=30_000, ge=100, le=3_600_000)
    """How often that address is asked at most, however many tokens name keys that nobody knows:
    a provider publishes a key minutes before it signs with it."""

    token_issuer: str = Field(default="tallygate", min_length=1, max_length=512)
    """What a token's `iss` must be; `tallygate token mint` writes it."""

    token_audience: str = Field(default="tallygate", min_length=1, max_length=512)
    """What a token's `aud` must have: a token that was made for another program is refused."""

    token_leeway_ms: int = Field(default=30_000, ge=0, le=600_000)
    """How far the clock of whoever makes tokens may be from ours: servers keep to a second."""

    token_roles_claim: str = Field(default="roles", min_length=1, max_length=256)
    """The claim that lists a caller's roles: reader, operator, finance, admin. Others count as
    none."""

    token_tenants_claim: str = Field(default="tenants", min_length=1, max_length=256)
    """The claim that lists whose data a caller may see, as `acme` or `team-*`. Without the claim:
    everybody's."""

    token_file: Path | None = None
    """The token that our commands send to control, read for each call."""

    bearer_over: Literal["private", "any"] = "private"
    """What our commands send it over: with `private` only within this machine or by TLS; `any` is
    for a mesh that encrypts on the way."""

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        """Refuse two sets of keys: which of them counts would be a guess."""
        if self.token_keys_file is not None and self.token_keys_url is not None:
            raise ValueError("token_keys_file and token_keys_url are both set: leave one")
        return self

    def lets_everybody_in(self, address: str) -> bool:
        """Say whether a control there answers other machines without asking who calls."""
        # Whoever has to show a certificate is known by it.
        proofs = ("token_keys_file", "token_keys_url", "tls_client_ca_file")
        asks = any(getattr(self, name, None) is not None for name in proofs)
        return not asks and not stays_here(address)


def stays_here(address: str) -> bool:
    """Say whether what is sent to, or heard at, an address stays on this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
