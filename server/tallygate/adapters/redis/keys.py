"""Every Redis key, spelled here and nowhere else.

Guarantees: all keys of a shard carry its hash tag, `{tg:07}`, and so lie in one cluster slot: a
script may touch them together. Keys of different shards never meet in one command.
Refuses to know: what the keys hold.

| key | type | what |
|---|---|---|
| `{tg:07}:m` | hash | `epoch`, and per source id the last sequence number given out |
| `{tg:07}:s` | stream | accepted operations, until the ledger has them |
| `{tg:07}:a:TENANT` | hash | a tenant's counters by limit, and `x`, when the key expires |
| `{tg:07}:o:TENANT OPERATION` | string | the first answer to an operation |
| `{tg:catalog}:…` | | the published catalog |
"""

from typing import Final

from tallygate.domain.ids import OperationId, TenantId

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


def account_prefix(shard: int) -> str:
    """Return what every account key of the shard begins with; the tenant follows."""
    return f"{tag(shard)}:a:"


def account(shard: int, tenant: TenantId) -> str:
    """Return the key of a tenant's counters."""
    return f"{account_prefix(shard)}{tenant}"


def operation(shard: int, tenant: TenantId, operation_id: OperationId) -> str:
    """Return the key of an operation's first answer.

    Neither id can hold a space, so that no two pairs share a key.
    """
    return f"{tag(shard)}:o:{tenant} {operation_id}"


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
