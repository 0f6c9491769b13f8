"""What an operator may set of the services that Envoy calls.

Guarantees: they listen apart from all else, as a proxy speaks for every tenant.
Refuses to know: what is answered there, which the catalog says.
"""

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tallygate.settings_types import Address, split_commas


class EnvoySettings(BaseSettings):
    """Where Envoy finds its rate limit service, and where it sends its access logs."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    envoy_address: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(split_commas)] = ()
    """Where `serve` answers Envoy's RateLimitService and takes its access logs; empty for nowhere.
    An address of its own, as who calls there may name any tenant that the catalog's rules let a
    descriptor name."""
