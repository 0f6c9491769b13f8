"""Ids and quantities: their types, their bounds, and how a tenant finds its shard.

Guarantees: what passes here can be a Redis key, a Postgres text and a metric label value.
Refuses to know: where an id came from.
"""

import re
import zlib
from functools import lru_cache
from typing import Final, NewType

from tallygate.domain.errors import InvalidField

TenantId = NewType("TenantId", str)
MeterName = NewType("MeterName", str)
LimitId = NewType("LimitId", str)
PlanName = NewType("PlanName", str)
EventId = NewType("EventId", str)
OperationId = NewType("OperationId", str)
SourceId = NewType("SourceId", str)
ReservationId = NewType("ReservationId", str)
AccountId = NewType("AccountId", str)
"""Whose counters: a tenant's id, or after it a space and `KEY=VALUE` for one value of `per`."""

ID_LENGTH_MAX: Final = 128
# The largest integer below which every integer is a double, and so exact in Lua.
AMOUNT_MAX: Final = 2**53 - 1

# Printable ASCII with no space: an operation id travels in headers, keys and logs.
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}")


def tenant_id(value: str, field: str = "tenant_id") -> TenantId:
    """Return `value` as a tenant id: 1 to 128 printable characters with no white space.

    Raises `InvalidField` naming `field`.
    """
    _bounded(value, field)
    # Of all white space, only the plain space counts as printable.
    if not value.isprintable() or " " in value:
        raise InvalidField("must be printable, without spaces", field=field)
    return TenantId(value)


def operation_id(value: str, field: str = "operation_id") -> OperationId:
    """Return `value` as an operation id: 1 to 128 printable ASCII characters.

    Raises `InvalidField` naming `field`.
    """
    _bounded(value, field)
    if not _PRINTABLE.fullmatch(value):
        raise InvalidField("must be printable ASCII, without spaces", field=field)
    return OperationId(value)


def event_id(value: str, field: str = "event_id") -> EventId:
    """Return `value` as an event id; the rules are those of an operation id."""
    return EventId(operation_id(value, field))


@lru_cache(maxsize=1024)
def is_name(value: str) -> bool:
    """Say whether `value` may name a meter, a limit or a plan in the catalog."""
    return _NAME.fullmatch(value) is not None


def amount(value: int, field: str = "amount") -> int:
    """Return `value` if it is an amount: 1 to 2^53 - 1.

    Raises `InvalidField` naming `field`.
    """
    if not 1 <= value <= AMOUNT_MAX:
        raise InvalidField(f"must be from 1 to {AMOUNT_MAX}", field=field)
    return value


def account_of(tenant: TenantId, per: str = "", value: str = "") -> AccountId:
    """Return the account of a tenant, or of one value of a dimension within it.

    Tenant ids hold no space, so that no two accounts share a name.
    """
    return AccountId(f"{tenant} {per}={value}" if per else tenant)


def tenant_of(account: AccountId) -> TenantId:
    """Return the tenant whose account it is."""
    return TenantId(account.partition(" ")[0])


def scope_of(account: AccountId) -> str:
    """Return `KEY=VALUE` of a dimension's account, empty for the tenant's own."""
    return account.partition(" ")[2]


def numbered_in(source: SourceId, epoch: str) -> SourceId:
    """Return the name under which a source's events are numbered in an epoch.

    Numbers begin at 1 in each epoch: under one name for all, those of a new epoch would pass for
    numbers that the ledger has seen.
    """
    return SourceId(f"{source}.{epoch}")


def epoch_of(numbered: SourceId) -> str:
    """Return the epoch of such a name, empty for a name that has none."""
    return numbered.rpartition(".")[2] if "." in numbered else ""


def shard_of(root: TenantId, shards: int) -> int:
    """Return the shard, from 0, of the tenant family whose topmost tenant is `root`.

    CRC-32 as zlib has it: stable over versions and machines, as the answer is stored for ever.
    """
    return zlib.crc32(root.encode()) % shards


def _bounded(value: str, field: str) -> None:
    if not value:
        raise InvalidField("is required", field=field)
    if len(value) > ID_LENGTH_MAX:
        raise InvalidField(f"must be at most {ID_LENGTH_MAX} characters", field=field)
