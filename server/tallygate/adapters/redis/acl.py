"""What each process may do in Redis: one table of commands and keys, and the ACL made of it.

Guarantees: a user made of it can do its work and nothing else: no `CONFIG`, no `KEYS`, no
`FLUSHALL`, no key that is not ours. From Redis 7.0 on, a sidecar cannot write what it is told: the
catalog, which is control's to publish.
Refuses to know: passwords, beyond their digests.

Commands inside a script are held to the user that runs it, so that they stand here as well.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tallygate.adapters.redis.keys import CATALOG_TAG
from tallygate.domain.errors import InvalidField

# The first with rights to read alone, and with subcommands that can be denied.
READ_ONLY_MAJOR: Final = 7

# Saying who one is, finding the server that has a key, asking it how it is.
_CONNECT: Final = (
    *("auth", "hello", "ping", "select", "client|setname", "info", "time"),
    *("cluster|slots", "asking"),
)
# What is read: the catalog, counters, and how much waits in the streams for whom.
_READ: Final = (
    *("exists", "get", "mget", "hget", "hmget", "hgetall", "zrange", "zcard", "zscore"),
    "zrangebyscore",
    *("multi", "exec", "xlen", "xrange", "xrevrange", "xinfo|groups", "xpending"),
)
# What decides: scripts, and what they do.
_DECIDE: Final = (
    *("eval", "evalsha", "script|load", "set", "hset", "hdel", "zadd", "zrem"),
    *("pexpire", "pexpireat", "xadd"),
)
# A group that is gone is made anew by whoever looks how much waits for it.
_GROUP: Final = ("xgroup|create",)
_CONSUME: Final = (*_GROUP, "xreadgroup", "xack", "xclaim", "xtrim")
# What is told of an account, and what is taken from one shard to another.
_SEARCH: Final = ("scan",)
_CARRY: Final = ("dump", "restore", "pttl", "unlink")

SHARD_KEYS: Final = "{tg:[0-9a-f][0-9a-f]}:*"
CATALOG_KEYS: Final = f"{CATALOG_TAG}:*"
TENANT_KEYS: Final = "{tg:tenant:*"
LAYOUT_KEY: Final = f"{CATALOG_TAG}:layout"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do: commands, keys to write, and keys that are only read."""

    commands: tuple[str, ...]
    writes: tuple[str, ...]
    reads: tuple[str, ...] = ()


_SIDECAR: Final = (*_CONNECT, *_READ, *_DECIDE)
_COUNTERS: Final = (SHARD_KEYS, LAYOUT_KEY)
_PUBLISHED: Final = (CATALOG_KEYS, TENANT_KEYS)

USERS: Final[Mapping[str, Rights]] = {
    "serve": Rights(_SIDECAR, _COUNTERS, _PUBLISHED),
    # It makes lost counters anew as well, by what sidecars decide with.
    "ingest": Rights((*_SIDECAR, *_CONSUME), _COUNTERS, _PUBLISHED),
    "control": Rights(
        (*_SIDECAR, *_GROUP, *_SEARCH, *_CARRY), (SHARD_KEYS, CATALOG_KEYS, TENANT_KEYS)
    ),
    # Commands that only show: doctor, verify, explain.
    "read": Rights((*_CONNECT, *_READ, *_SEARCH), (), (SHARD_KEYS, *_PUBLISHED)),
}


def user_name(role: str) -> str:
    """Return what a role's user is called."""
    return f"tallygate-{role}"


def rules(role: str, password: str, *, major: int = READ_ONLY_MAJOR) -> list[str]:
    """Return the rules of `ACL SETUSER` for a role. Raises `InvalidField`.

    Servers before 7.0 know no rights to read alone: there, what is read can be written too.
    """
    if not password:
        raise InvalidField("is empty", field="password")
    rights = USERS[role]
    digest = hashlib.sha256(password.encode()).hexdigest()
    if major >= READ_ONLY_MAJOR:
        found = [f"~{each}" for each in rights.writes]
        found += [f"%R~{each}" for each in rights.reads if each not in rights.writes]
    else:
        found = [f"~{each}" for each in dict.fromkeys((*rights.writes, *rights.reads))]
    commands = [f"+{each}" for each in dict.fromkeys(rights.commands)]
    return ["reset", "on", f"#{digest}", *found, *commands]


def line(role: str, password: str, *, major: int = READ_ONLY_MAJOR) -> str:
    """Return a role's line of an ACL file."""
    return " ".join(("user", user_name(role), *rules(role, password, major=major)))
