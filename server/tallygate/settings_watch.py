"""What an operator may set of the figures that are made to be watched.

Guarantees: each has bounds, as each costs the ledger reads. Refuses to know who draws the figures.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import tenant_id
from tallygate.settings_types import split_commas

WATCHED_TENANTS_MAX = 50


def check_tenant(value: str) -> str:
    """Return a tenant's id as it is; raise ValueError for what cannot be one."""
    try:
        return tenant_id(value)
    except InvalidField as error:
        raise ValueError(error.message) from None


class WatchSettings(BaseSettings):
    """Figures of usage and of money for dashboards, made by control."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    usage_figures: Literal["on", "off"] = "on"
    """Whether control adds up this day's and this month's usage by meter, as metrics. Each process
    of control does it by itself, by reads of rollups alone."""

    usage_figures_every_s: int = Field(default=60, ge=5, le=86_400)
    """Seconds between two such rounds over all tenants. A dashboard is looked at by the minute."""

    usage_figures_tenants: Annotated[
        tuple[Annotated[str, AfterValidator(check_tenant)], ...],
        NoDecode,
        BeforeValidator(split_commas),
        Field(max_length=WATCHED_TENANTS_MAX),
    ] = ()
    """Tenants whose usage is shown each by itself, comma-separated; no other tenant's name is ever
    in a metric. At most 50, as each adds a series for every meter that it uses."""

    revenue_preview: Literal["on", "off"] = "on"
    """Whether control adds up what all tenants would owe for their current billing periods, by
    currency, as metrics."""

    revenue_preview_every_s: int = Field(default=900, ge=5, le=604_800)
    """Seconds between two such rounds. A round works out an invoice for each tenant, at most some
    forty a second, so that it is never in the way of those that are issued."""
