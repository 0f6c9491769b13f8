"""Connections to Redis, with timeouts, and what its errors mean here.

Guarantees: no call waits longer than its timeout; no call is repeated behind the caller's back, as
a script that ran once must not run twice; errors speak of Redis, never of its address or password.
Refuses to know: what is sent.
"""

import re
from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from tallygate.adapters.redis.cluster import ClusterClient
from tallygate.adapters.redis.credentials import without_user
from tallygate.adapters.redis.renewed import RenewedConnection
from tallygate.domain.errors import BackendUnavailable, StorageFault, TallygateError

CLUSTER_SUFFIX: Final = "+cluster"
CONNECT_TIMEOUT_S: Final = 2.0
HEALTH_CHECK_INTERVAL_S: Final = 15

# What a server says when it cannot serve now, by the first word of its error.
_UNAVAILABLE: Final = {
    "BUSY": "Redis is busy with a long script",
    "CLUSTERDOWN": "the Redis cluster is down",
    "LOADING": "Redis is loading its data",
    "MASTERDOWN": "the Redis replica has lost its master",
    "MISCONF": "Redis cannot persist to its disk and refuses writes",
    "NOREPLICAS": "Redis has too few replicas for a write",
    "OOM": "Redis is out of memory and refuses writes",
    "READONLY": "this Redis is a replica and refuses writes",
    "TRYAGAIN": "the Redis cluster is moving this slot",
    "UNBLOCKED": "Redis ended a blocking call",
}
_REFUSED: Final = ("NOPERM", "NOAUTH", "WRONGTYPE")
_WORDS: Final = re.compile(rf"\b({'|'.join((*_UNAVAILABLE, *_REFUSED))})\b")
_CLASSES: Final[Mapping[type[Exception], str]] = {
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    NoPermissionError: "NOPERM",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}


def connect(
    url: str,
    timeout_ms: int,
    *,
    connections_max: int = 4,
    credentials: CredentialProvider | None = None,
) -> Redis:
    """Return a client for `url`. It connects at first use; every call is bounded by the timeout.

    `redis+cluster://` and `rediss+cluster://` name some servers of a cluster, comma-separated.
    With `credentials`, user and password are theirs, and not the address'.
    """
    if credentials is not None:
        url = without_user(url)
    scheme, _, rest = url.partition("://")
    if not scheme.endswith(CLUSTER_SUFFIX):
        return _client_of_one(url, timeout_ms, connections_max, credentials)
    user, mark, hosts = rest.rpartition("@")
    kind = scheme.removesuffix(CLUSTER_SUFFIX)
    # What follows the last of them, such as files of certificates, is of them all.
    hosts, question, options = hosts.partition("?")
    urls = [f"{kind}://{user}{mark}{host}{question}{options}" for host in hosts.split(",")]
    seeds = [_client_of_one(each, timeout_ms, connections_max, credentials) for each in urls]
    return ClusterClient([each.connection_pool for each in seeds])


def _client_of_one(
    url: str, timeout_ms: int, connections_max: int, credentials: CredentialProvider | None
) -> Redis:
    # A Unix socket has no keepalive, and redis-py refuses to be told of one.
    keepalive = {} if url.startswith("unix") else {"socket_keepalive": True}
    client: Redis = Redis.from_url(
        url,
        **keepalive,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=min(CONNECT_TIMEOUT_S, timeout_ms / 1000),
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        max_connections=connections_max,
        retry=Retry(NoBackoff(), 0),
        client_name="tallygate",
        credential_provider=credentials,
    )
    if url.startswith("rediss"):
        # The address decides the class of its connections, and knows of one only.
        client.connection_pool.connection_class = RenewedConnection
    return client


def translate(error: RedisError | OSError) -> TallygateError:
    """Return the domain error that a client's or server's error means, the cause kept for logs."""
    meaning = _meaning(error)
    meaning.__cause__ = error
    return meaning


def _meaning(error: RedisError | OSError) -> TallygateError:
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return BackendUnavailable("Redis did not answer in time")
    # A connection that was refused its password has that as its cause.
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        return BackendUnavailable("Redis refused the credentials")
    word = _word(error)
    if word in _UNAVAILABLE:
        return BackendUnavailable(_UNAVAILABLE[word])
    if isinstance(error, ResponseError):
        return StorageFault(f"Redis refused a command: {word or 'see the log'}")
    return BackendUnavailable("Redis cannot be reached")


def _word(error: RedisError | OSError) -> str:
    """Return the first word of what the server said, empty for none that is known.

    redis-py turns some of these words into classes and cuts them off the text; a pipeline, and a
    script of Redis 6.2, put words of their own before them; a refused connection has them as cause.
    """
    for kind, word in _CLASSES.items():
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return word
    found = _WORDS.search(f"{type(error).__name__} {error}")
    return found[0] if found else ""
