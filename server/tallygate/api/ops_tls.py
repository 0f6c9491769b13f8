"""TLS of the ops listener: the certificate of now, and connections that two threads cannot share.

Guarantees: a handshake has the newest certificate; nobody is asked for his, as probes have none.
Refuses to know: what is asked and answered.
"""

import contextlib
import os
import select
import socket
import ssl
import tempfile
from collections.abc import Sequence
from typing import Final

from tallygate.domain.certificate import CurrentCredentials, ServerCredentials

COPY_BYTES: Final = 64 * 1024
# What clients of health and metrics speak: each tells by it which of the two it wants.
PROTOCOLS: Final = ("h2", "http/1.1")


class OpsTls:
    """Makes connections secure. Used by one thread; what it returns, by another."""

    def __init__(self, current: CurrentCredentials, folder: str) -> None:
        self._current = current
        self._folder = folder
        self._made_of: ServerCredentials | None = None
        self._context = self._made(current())

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection before its handshake. Raises OSError."""
        credentials = self._current()
        if credentials is not self._made_of:
            self._context = self._made(credentials)
        return self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )

    def _made(self, credentials: ServerCredentials) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols([*PROTOCOLS])
        # The library reads files alone; the ones that they came from may be half renewed.
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(credentials.chain + credentials.key)
            file.flush()
            context.load_cert_chain(file.name)
        self._made_of = credentials
        return context


def end(connection: ssl.SSLSocket) -> None:
    """Say that nothing more comes, without waiting for the other side to say so too."""
    with contextlib.suppress(OSError, ValueError):
        connection.setblocking(False)
        connection.unwrap()


def relay(connection: ssl.SSLSocket, server: socket.socket, timeout_s: float) -> None:
    """Copy both ways until either side ends, in this one thread.

    A secure connection has one state for both ways, which threads would have to share. Who does not
    read is waited for so long.
    """
    with contextlib.suppress(OSError):
        while True:
            ready: Sequence[socket.socket] = (connection,)
            if not connection.pending():
                ready, _, _ = select.select([connection, server], [], [])
            if connection in ready:
                connection.settimeout(0.0)
                try:
                    part = connection.recv(COPY_BYTES)
                except ssl.SSLWantReadError:
                    continue  # part of a record, or one that is no message
                finally:
                    connection.settimeout(timeout_s)
                if not part:
                    return
                server.sendall(part)
            if server in ready:
                part = server.recv(COPY_BYTES)
                if not part:
                    return
                connection.sendall(part)
