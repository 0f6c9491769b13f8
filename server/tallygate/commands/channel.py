"""Channels to running servers, and what their errors look like to a person.

Guarantees: a server that is not there is said to be not there, with its address; each call says
who makes it.
Refuses to know: which calls are made.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tallygate.api.audited import ACTOR_KEY
from tallygate.commands.actor import os_actor
from tallygate.domain.errors import TallygateError


class CallFailed(TallygateError):
    """A call to a server has failed."""


class _Named(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds who calls to each call."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401  the method's own kind
    ) -> Any:  # noqa: ANN401
        """Make the call with one more header."""
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add(ACTOR_KEY, os_actor())
        named = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(named, request)


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Lend a channel; a call that fails on it is raised as `CallFailed`."""
    try:
        async with grpc.aio.insecure_channel(address, interceptors=[_Named()]) as lent:
            yield lent
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise CallFailed(f"nothing answers at {address}: {error.details()}") from error
        raise CallFailed(f"{error.code().name}: {error.details()}") from error
