"""Channels to running servers, and what their errors look like to a person.

Guarantees: a server that is not there is said to be not there, with its address.
Refuses to know: which calls are made.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from tallygate.domain.errors import TallygateError


class CallFailed(TallygateError):
    """A call to a server has failed."""


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Lend a channel; a call that fails on it is raised as `CallFailed`."""
    try:
        async with grpc.aio.insecure_channel(address) as lent:
            yield lent
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise CallFailed(f"nothing answers at {address}: {error.details()}") from error
        raise CallFailed(f"{error.code().name}: {error.details()}") from error
