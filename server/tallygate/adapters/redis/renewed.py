"""Connections to Redis over TLS that are made with the certificates of now.

Guarantees: whoever connects again has read the files again: a certificate that lives for a day does
not outlive it in a process that runs for a month.
Refuses to know: which files these are.

The library keeps what it has once read for as long as it has the connection's object.
"""

from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import SSLConnection


class RenewedConnection(SSLConnection):
    """A connection that forgets what it has read of its files before it connects."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = None
        return super()._connection_arguments()
