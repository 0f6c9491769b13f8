"""Which transport a server runs on.

Guarantees: what a transport cannot do is never left out silently: it is refused, or another
transport does it.
Refuses to know: how either works.
"""

from collections.abc import Callable

import structlog

from tallygate.api.edge import Edge
from tallygate.api.transport import (
    Methods,
    ServerOptions,
    Transport,
    TransportName,
    TransportUnable,
)
from tallygate.api.transport_grpcio import GrpcioTransport

try:
    from tallygate.api.native import NativeTransport, amiss, unbounded
except ModuleNotFoundError as error:
    if error.name != "pygrpc_native":
        raise
    NativeTransport = None  # type: ignore[assignment, misc]  # the extra is not installed

log = structlog.get_logger(__name__)

MISSING = "pygrpc-native is not installed: pip install 'tallygate[native]'"

Make = Callable[[ServerOptions, Methods, Edge], Transport]


def chosen(options: ServerOptions) -> tuple[TransportName, Make]:
    """Return the transport that is asked for, or that is able. Raises `TransportUnable`."""
    if options.transport is TransportName.GRPCIO:
        return TransportName.GRPCIO, GrpcioTransport
    reason = MISSING if NativeTransport is None else amiss(options)
    if options.transport is TransportName.NATIVE:
        if reason is not None:
            raise TransportUnable(f"the native transport cannot be used: {reason}")
        if gaps := unbounded():
            log.warning("native_transport_has_gaps", gaps=gaps)
        return TransportName.NATIVE, NativeTransport
    # Nobody has asked for it by name: then it has to be bounded as well as the other is.
    reason = reason or unbounded()
    if reason is not None:
        log.info("transport_is_grpcio", reason=reason)
        return TransportName.GRPCIO, GrpcioTransport
    return TransportName.NATIVE, NativeTransport
