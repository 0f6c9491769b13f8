"""The TLS of a listener whose certificate changes while it listens.

Guarantees: a pair is in use whole or not at all; connections that are open go on with what they
began with; no key is written to a disk.
Refuses to know: where certificates come from.
"""

import os
import ssl
from typing import Final

from tallygate.domain.errors import InvalidField


class ServingTls:
    """A context for a server; it has no certificate before the first `take`."""

    def __init__(self) -> None:
        self.context: Final = _context()
        self.ready = False

    def take(self, certificate: bytes, key: bytes) -> None:
        """Serve new connections with this pair. Raises `InvalidField`, and keeps the old one."""
        # Tried apart first: a pair that does not fit would spoil the context in use.
        _load(_context(), certificate, key)
        _load(self.context, certificate, key)
        self.ready = True


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # The library reads files alone; this one lies in memory and has no name.
    handle = os.memfd_create("tallygate-certificate")
    try:
        with os.fdopen(os.dup(handle), "wb") as written:
            written.write(key.rstrip() + b"\n" + certificate)
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or "it cannot be read"
        raise InvalidField(f"certificate and key cannot be used: {reason}") from error
    finally:
        os.close(handle)
