"""The reference: grpc.aio with a handler that does nothing but answer.

Guarantees: it decodes nothing and answers with an empty message, so that what is measured is the
transport. Refuses to know: Tallygate.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc


async def main() -> None:
    """Serve `CheckAndConsume` emptily on a free port, which is printed, until told to stop."""

    async def answer(_: bytes, __: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return b""

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    generic = grpc.method_handlers_generic_handler(
        "tallygate.v1.QuotaService", {"CheckAndConsume": handler}
    )
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stderr.write(f"listening on 127.0.0.1:{port};\n")
    sys.stderr.flush()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(main())
