"""The transport over grpc.aio: slower by far, and able to do everything.

Guarantees: every bound that grpcio leaves open is set here.
Refuses to know: which methods it serves.
"""

import contextlib
from collections.abc import Callable
from typing import cast

import grpc

from tallygate.api.edge import Edge
from tallygate.api.edge_grpcio import handlers_of
from tallygate.api.socket_lock import path_of
from tallygate.api.transport import (
    AGE_GRACE_MS,
    KEEPALIVE_MS,
    KEEPALIVE_TIMEOUT_MS,
    Methods,
    ServerOptions,
)
from tallygate.domain.certificate import CurrentCredentials, ServerCredentials


class GrpcioTransport:
    """A `Transport`."""

    def __init__(self, options: ServerOptions, methods: Methods, edge: Edge) -> None:
        self._tls = options.tls
        self._server = grpc.aio.server(options=_channel_options(options))
        self._server.add_generic_rpc_handlers(tuple(handlers_of(methods, edge)))

    def listen(self, address: str) -> int:
        """Bind an address; return its port. Raises OSError."""
        try:
            if self._tls is None or path_of(address) is not None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(str(error)) from error

    async def start(self) -> None:
        """Serve what is bound."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Wait so long for calls that are inside, end the others, and close."""
        await self._server.stop(grace_s)

    async def abandon(self) -> None:
        """Give back what is bound: grpcio does so only once it has begun."""
        with contextlib.suppress(RuntimeError):
            await self._server.start()
        await self._server.stop(None)


def _credentials(current: CurrentCredentials) -> grpc.ServerCredentials:
    """Return credentials that follow what is current, for one port.

    gRPC asks at each handshake, and keeps what it has where the answer is None. A connection that
    is there already goes on under what it began with: no call notices.
    """
    given = current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        now = current()
        if now is given:
            return None
        given = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        # The stubs do not know of an answer that changes nothing; the library's words do.
        cast(Callable[[], grpc.ServerCertificateConfiguration], changed),
        require_client_authentication=bool(given.client_ca),
    )


def _configuration(credentials: ServerCredentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.chain)], credentials.client_ca or None
    )


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    chosen = []
    if options.connection_age_s:
        # Calls that are inside when a connection's time is over end on it all the same.
        chosen = [
            ("grpc.max_connection_age_ms", int(options.connection_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", AGE_GRACE_MS),
        ]
    return [
        *chosen,
        ("grpc.max_connection_idle_ms", int(options.connection_idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", int(options.handshake_s * 1000)),
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.max_metadata_size", options.metadata_bytes_max),
        # Between the two a share of the calls would be refused, by chance.
        ("grpc.absolute_max_metadata_size", options.metadata_bytes_max),
        ("grpc.max_concurrent_streams", options.streams_max),
        # It counts calls that have ended and are not yet forgotten: an honest client with as many
        # calls as it may have lost a quarter of them. What is begun is bounded at the edge.
        ("grpc.http.overload_protection", 0),
        # Two servers on one port would split the clients between them unseen.
        ("grpc.so_reuseport", int(options.reuse_port)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
    ]
