"""How a channel is made: the same options for both kinds of client."""

from __future__ import annotations

from importlib import resources
from typing import Any

import grpc
import grpc.aio

from .options import ClientOptions, Tls
from .version import SDK

# The sidecar is on the same host: when it is back, the next call finds it.
RECONNECT_FIRST_MS = 50
RECONNECT_MAX_MS = 1_000


def channel_options(options: ClientOptions) -> list[tuple[str, Any]]:
    """Return gRPC's own options; retries are its own, by the service config of all clients."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", SDK),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", RECONNECT_MAX_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
        # Else two clients of one target share a connection, and its back-off.
        ("grpc.use_local_subchannel_pool", 1),
        # The sidecar is no business of a proxy that the environment names.
        ("grpc.enable_http_proxy", 0),
    ]
    if options.retry:
        chosen.append(("grpc.service_config", service_config()))
    else:
        chosen.append(("grpc.enable_retries", 0))
    if options.tls is not None and options.tls.server_name is not None:
        chosen.append(("grpc.ssl_target_name_override", options.tls.server_name))
    return chosen


def service_config() -> str:
    """Return the service config that every client of every language has."""
    return resources.files(__package__).joinpath("service_config.json").read_text("utf-8")


def sync_channel(options: ClientOptions) -> grpc.Channel:
    """Open a channel for threads; it connects when it is first used."""
    chosen = channel_options(options)
    if options.tls is None:
        return grpc.insecure_channel(options.target, options=chosen)
    return grpc.secure_channel(options.target, _credentials(options.tls), options=chosen)


def async_channel(options: ClientOptions) -> grpc.aio.Channel:
    """Open a channel for the running loop; it connects when it is first used."""
    chosen = channel_options(options)
    if options.tls is None:
        return grpc.aio.insecure_channel(options.target, options=chosen)
    return grpc.aio.secure_channel(options.target, _credentials(options.tls), options=chosen)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca, private_key=tls.key, certificate_chain=tls.certificate
    )
