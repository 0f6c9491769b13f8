"""Every Redis key, spelled here and nowhere else.

Guarantees: all keys of a shard carry its hash tag, `{tg:07}`, and so lie in one cluster slot: a
script may touch them together. Keys of different shards never meet in one command.
Refuses to know: what the keys hold.

| key | type | what |
|---|---|---|
| `{tg:07}:m` | hash | `epoch`, `open` (its stage), and per source the last number given out |
| `{tg:07}:s` | stream | accepted operations, until the ledger has them |
| `{tg:07}:v` | hash | tenants that have moved between shards: version and `l`, `a` or `d` |
| `{tg:07}:w` | hash | per source of an epoch, which of its numbers the ledger has |
| `{tg:07}:j:EPOCH` | hash | who has operations of older epochs to hand in, and who is done |
| `{tg:07}:a:EPOCH:ACCOUNT` | hash | counters by limit; `x`: its end; `h`: a hold's; `b`: rebuilt |
| `{tg:07}:h:EPOCH:ACCOUNT` | sorted set | what reservations hold of the account, by their ends |
| `{tg:07}:o:EPOCH:TENANT OPERATION` | string | the first answer to an operation, and its events |
| `{tg:07}:o:EPOCH:TENANT STEM +` | string | the same of operations whose ids are of one stem |
| `{tg:07}:r:EPOCH:TENANT RESERVATION` | string | a reservation |
| `{tg:07}:f:EPOCH:TENANT EVENT` | string | the units of an event that were refunded |
| `{tg:catalog}:…` | | the published catalog |

What a tenant has carries its epoch, one life of the shard's counters: a new epoch is an empty
shard, also on a stale copy of the data, where what older epochs wrote is read by nobody.
"""

from typing import Final

from tallygate.domain.ids import AccountId, EventId, OperationId, ReservationId, TenantId

SHARDS_MAX: Final = 256
CATALOG_TAG: Final = "{tg:catalog}"
EPOCH_FIELD: Final = b"epoch"
OPEN_FIELD: Final = b"open"
META_FIELDS: Final = frozenset((EPOCH_FIELD, OPEN_FIELD))
"""What a shard's meta hash has beside its sources, whose names hold a dot."""


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


def seen(shard: int) -> str:
    """Return the key of which numbers of the shard's sources the ledger has."""
    return f"{tag(shard)}:w"


def announced(shard: int, epoch: str) -> str:
    """Return the key of who has something to hand in to an epoch of the shard."""
    return f"{tag(shard)}:j:{epoch}"


def of_tenants(shard: int, epoch: str) -> str:
    """Return a pattern that all keys of all tenants match."""
    return f"{tag(shard)}:[ahorf]:{epoch}:*"


def of_tenant(shard: int, epoch: str, tenant: TenantId) -> str:
    """Return a pattern that all keys of a tenant match, and some of others."""
    spelled = "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in tenant)
    return f"{tag(shard)}:[ahorf]:{epoch}:{spelled}*"


def owner(key: bytes) -> TenantId | None:
    """Return whose key of a shard it is, None for the shard's own."""
    parts = key.split(b":", 4)
    return TenantId(parts[4].decode().partition(" ")[0]) if len(parts) == 5 else None


def kind(key: bytes) -> bytes:
    """Return the letter that tells what a key of a shard holds."""
    return key.split(b":", 4)[2]


def in_shard(key: bytes, shard: int, epoch: str) -> bytes:
    """Return what a tenant's key of some shard is called in an epoch of another one."""
    _, _, letter, _, rest = key.split(b":", 4)
    return b":".join((tag(shard).encode(), letter, epoch.encode(), rest))


def account_prefix(shard: int, epoch: str) -> str:
    """Return what every account key of an epoch begins with; the tenant follows."""
    return f"{tag(shard)}:a:{epoch}:"


def holds_prefix(shard: int, epoch: str) -> str:
    """Return what every key of an account's holds begins with in an epoch; the account follows."""
    return f"{tag(shard)}:h:{epoch}:"


def operation_prefix(shard: int, epoch: str) -> str:
    """Return what every operation's key of an epoch begins with; tenant and operation follow."""
    return f"{tag(shard)}:o:{epoch}:"


def account(shard: int, epoch: str, of: AccountId) -> str:
    """Return the key of an account's counters."""
    return f"{account_prefix(shard, epoch)}{of}"


def holds(shard: int, epoch: str, of: AccountId) -> str:
    """Return the key of what reservations hold of an account."""
    return f"{holds_prefix(shard, epoch)}{of}"


def operation(shard: int, epoch: str, tenant: TenantId, operation_id: OperationId) -> str:
    """Return the key of an operation's first answer.

    Neither id can hold a space, so that no two pairs share a key.
    """
    return f"{operation_prefix(shard, epoch)}{tenant} {operation_id}"


def stem(shard: int, epoch: str, tenant: TenantId, of: str) -> str:
    """Return the key of what operations have in common whose ids are of one stem.

    No operation's id holds a space, so that none has this key.
    """
    return f"{operation_prefix(shard, epoch)}{tenant} {of} +"


def reservation(shard: int, epoch: str, tenant: TenantId, reservation_id: ReservationId) -> str:
    """Return the key of a reservation."""
    return f"{tag(shard)}:r:{epoch}:{tenant} {reservation_id}"


def refunded(shard: int, epoch: str, tenant: TenantId, event_id: EventId) -> str:
    """Return the key of how much of an event was refunded."""
    return f"{tag(shard)}:f:{epoch}:{tenant} {event_id}"


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
