"""User and password of a Redis, which may change while connections are open.

Guarantees: a new password counts once Redis has let us in by it; connections that were opened by
the one before end when they come back to their pool, and no call is cut by that.
Refuses to know: where passwords come from.
"""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis
from redis.credentials import CredentialProvider

from tallygate.adapters.redis.wire import primaries


class RedisCredentials(CredentialProvider):
    """What new connections show. Nothing, where the address has no user part."""

    def __init__(self, url: str) -> None:
        self._shown = _of(url)

    def get_credentials(self) -> Any:  # noqa: ANN401  redis-py has a tuple of one or two
        """Return what is shown now."""
        return self._shown

    async def get_credentials_async(self) -> Any:  # noqa: ANN401
        """Return what is shown now."""
        return self._shown

    def accept(self, url: str) -> None:
        """Show this address' user and password from now on."""
        self._shown = _of(url)


async def try_out(client: Redis, url: str) -> None:
    """Connect once by an address' user and password. Raises what redis-py raises."""
    for server in await primaries(client):
        pool = server.connection_pool
        kwargs = {**pool.connection_kwargs, "credential_provider": RedisCredentials(url)}
        connection = pool.connection_class(**kwargs)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        finally:
            await connection.disconnect()


async def drain(client: Redis) -> None:
    """Have each connection end when it next comes back to its pool."""
    for server in await primaries(client):
        pool: ConnectionPool = server.connection_pool
        # Those that lie idle too: who takes one meanwhile must not find it half closed.
        for connection in (*pool._available_connections, *pool._in_use_connections):  # noqa: SLF001
            connection.mark_for_reconnect()  # type: ignore[no-untyped-call]


def without_user(url: str) -> str:
    """Return an address without user and password, wherever in it they are."""
    parts = urlsplit(url)
    asked = [each for each in parse_qsl(parts.query) if each[0] not in _ASKED]
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(asked))
    # A socket has no host: the two slashes are lost without one.
    return f"{parts.scheme}://{bare.netloc}{urlunsplit(bare._replace(scheme='', netloc=''))}"


def _of(url: str) -> tuple[str, ...]:
    """Return user and password as they are shown: both, a password alone, or nothing."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    named = unquote(user) or asked.get("username", "")
    shown = unquote(password) or asked.get("password", "")
    if not shown:
        return ()
    return (named, shown) if named else (shown,)


_ASKED: Final = ("username", "password")
