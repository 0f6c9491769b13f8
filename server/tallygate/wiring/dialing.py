"""How our own programs speak to servers: in plain text, or by TLS with a certificate of theirs.

Guarantees: what is shown and believed is read from its files for each channel; a file that cannot
be used is named. Unix sockets speak no TLS.
Refuses to know: which calls are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import grpc

from tallygate.api.socket_lock import path_of
from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings

FILE_BYTES_MAX: Final = 1024 * 1024


class CertificateUnread(TallygateError):
    """A certificate cannot be read."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Dialing:
    """What a command believes, what it shows, and the name that it looks for."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return how the settings have it, None for plain text."""
        if settings.call_ca_file is None:
            return None
        return cls(
            settings.call_ca_file,
            settings.call_cert_file,
            settings.call_key_file,
            settings.call_server_name,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel needs. Raises `CertificateUnread`."""
        return grpc.ssl_channel_credentials(
            _read(self.ca, "call_ca_file"),
            _read(self.key, "call_key_file") if self.key else None,
            _read(self.cert, "call_cert_file") if self.cert else None,
        )


def opened(
    address: str,
    dialing: Dialing | None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """Return a channel to an address. Raises `CertificateUnread`."""
    if dialing is None or path_of(address) is not None:
        return grpc.aio.insecure_channel(address, interceptors=interceptors)
    name = dialing.server_name
    options = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.aio.secure_channel(
        address, dialing.credentials(), options=options, interceptors=interceptors
    )


def _read(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        message = f"TALLYGATE_{field.upper()}: {path} cannot be read: {error.strerror}"
        raise CertificateUnread(message, field=field) from None
