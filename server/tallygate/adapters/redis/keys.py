"""Every Redis key, spelled here and nowhere else.

Guarantees: all keys of a shard carry its hash tag, `{tg:07}`, and so lie in one cluster slot: a
script may touch them together. Keys of different shards never meet in one command.
Refuses to know: what the keys hold.

| key | type | what |
|---|---|---|
| `{tg:07}:m` | hash | `epoch`, and per source id the last sequence number given out |
| `{tg:07}:s` | stream | accepted operations, until the ledger has them |
| `{tg:07}:v` | hash | tenants that have moved between shards: version and `l`, `a` or `d` |
| `{tg:07}:a:ACCOUNT` | hash | counters by limit; `x`, when it expires; `h`, when a hold may have |
| `{tg:07}:h:ACCOUNT` | sorted set | what reservations hold of the account, by when they end |
| `{tg:07}:o:TENANT OPERATION` | string | the first answer to an operation, and its events |
| `{tg:07}:r:TENANT RESERVATION` | string | a reservation |
| `{tg:07}:f:TENANT EVENT` | string | the units of an event that were refunded |
| `{tg:catalog}:…` | | the published catalog |
"""

from typing import Final

from tallygate.domain.ids import AccountId, EventId, OperationId, ReservationId, TenantId

SHARDS_MAX: Final = 256
CATALOG_TAG: Final = "{tg:catalog}"


def tag(shard: int) -> str:
    """Return the shard's hash tag."""
    return f"{{tg:{shard:02x}}}"


def meta(shard: int) -> str:
    """Return the key of the shard's epoch and sequences."""
    return f"{tag(shard)}:m"


def stream(shard: int) -> str:
    """Return the key of the shard's usage stream."""
    return f"{tag(shard)}:s"


def moves(shard: int) -> str:
    """Return the key of the tenants that have left the shard, or have come from another."""
    return f"{tag(shard)}:v"


def of_tenant(shard: int, tenant: TenantId) -> str:
    """Return a pattern that all keys of a tenant match, and some of others."""
    spelled = "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in tenant)
    return f"{tag(shard)}:[ahorf]:{spelled}*"


def owner(key: bytes) -> TenantId | None:
    """Return whose key of a shard it is, None for the shard's own."""
    parts = key.split(b":", 3)
    return TenantId(parts[3].decode().partition(" ")[0]) if len(parts) == 4 else None


def kind(key: bytes) -> bytes:
    """Return the letter that tells what a key of a shard holds."""
    return key.split(b":", 3)[2]


def in_shard(key: bytes, shard: int) -> bytes:
    """Return what a key of some shard is called in another one."""
    return tag(shard).encode() + key[key.index(b"}") + 1 :]


def account_prefix(shard: int) -> str:
    """Return what every account key of the shard begins with; the tenant follows."""
    return f"{tag(shard)}:a:"


def account(shard: int, of: AccountId) -> str:
    """Return the key of an account's counters."""
    return f"{account_prefix(shard)}{of}"


def holds(shard: int, of: AccountId) -> str:
    """Return the key of what reservations hold of an account."""
    return f"{tag(shard)}:h:{of}"


def operation(shard: int, tenant: TenantId, operation_id: OperationId) -> str:
    """Return the key of an operation's first answer.

    Neither id can hold a space, so that no two pairs share a key.
    """
    return f"{tag(shard)}:o:{tenant} {operation_id}"


def reservation(shard: int, tenant: TenantId, reservation_id: ReservationId) -> str:
    """Return the key of a reservation."""
    return f"{tag(shard)}:r:{tenant} {reservation_id}"


def refunded(shard: int, tenant: TenantId, event_id: EventId) -> str:
    """Return the key of how much of an event was refunded."""
    return f"{tag(shard)}:f:{tenant} {event_id}"


def layout() -> str:
    """Return the key of the layout record: the shard count that was fixed at first start."""
    return f"{CATALOG_TAG}:layout"


def catalog_snapshot() -> str:
    """Return the key of the compiled catalog."""
    return f"{CATALOG_TAG}:snapshot"


def catalog_changes() -> str:
    """Return the key of the stream that says which tenants a version has changed."""
    return f"{CATALOG_TAG}:changes"


def tenant(bucket: int) -> str:
    """Return the key of a bucket of published tenants; buckets spread over the cluster's slots."""
    return f"{{tg:tenant:{bucket:x}}}"
