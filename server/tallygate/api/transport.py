"""What a server asks of whatever carries its calls, and how it is bounded.

Guarantees: every transport serves the same methods behind the same edge.
Refuses to know: HTTP/2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from tallygate.api.edge import Edge, EdgeOptions, Method
from tallygate.api.socket_owner import OWN, SocketOwner
from tallygate.domain.certificate import CurrentCredentials
from tallygate.domain.errors import TallygateError

METADATA_BYTES_MAX: Final = 16 * 1024
# One connection's calls in flight; past this it waits in its client. These are ahead of any other
# connection's next call: as many as keep pipelines full, and no more.
STREAMS_MAX: Final = 128
# A connection on which nothing happens is closed after so long; its client opens another.
IDLE_S: Final = 600.0
# For a connection's first bytes: a client that is there sends them at once.
HANDSHAKE_S: Final = 10.0
# For the calls on a connection whose age is over: longer than any call's default deadline.
AGE_GRACE_MS: Final = 60_000
# A connection that has sent nothing for so long is asked whether it is there ...
KEEPALIVE_MS: Final = 60_000
# ... and closed if it does not say so within this.
KEEPALIVE_TIMEOUT_MS: Final = 20_000


class TransportName(StrEnum):
    """Which transport is asked for; `auto` takes the faster one that is able."""

    AUTO = "auto"
    GRPCIO = "grpcio"
    NATIVE = "native"


class TransportUnable(TallygateError):
    """The transport that was asked for cannot do what else was asked for."""

    reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where a server listens and how it is bounded."""

    addresses: Sequence[str]
    message_bytes_max: int
    edge: EdgeOptions
    metadata_bytes_max: int = METADATA_BYTES_MAX
    streams_max: int = STREAMS_MAX
    # Seconds after which a connection is closed in good order; 0 for never.
    connection_age_s: float = 0.0
    connection_idle_s: float = IDLE_S
    handshake_s: float = HANDSHAKE_S
    # Whether other processes may listen on the same TCP ports, and share their connections.
    reuse_port: bool = False
    transport: TransportName = TransportName.GRPCIO
    # What TCP addresses prove themselves with; None where they speak no TLS.
    tls: CurrentCredentials | None = None
    # Whether methods ask who calls.
    knows_callers: bool = False
    owner: SocketOwner = OWN


Methods = Mapping[str, Method]
"""By path, with the leading slash."""


class Transport(Protocol):
    """Carries calls from some addresses to methods and answers back."""

    def __init__(self, options: ServerOptions, methods: Methods, edge: Edge) -> None: ...

    def listen(self, address: str) -> int:
        """Bind an address; return its port, whatever for a path. Raises OSError."""
        ...

    async def start(self) -> None:
        """Serve what is bound."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Wait so long for calls that are inside, end the others, and close."""
        ...

    async def abandon(self) -> None:
        """Give back what is bound, of a transport that was not started or failed to."""
        ...
