"""Channels to running servers, and what their errors look like to a person.

Guarantees: a server that is not there is said to be not there, with its address; each call says
who makes it, and proves it where a token is set. A token leaves this machine over TLS alone, unless
that is allowed.
Refuses to know: which calls are made.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import grpc

from tallygate.api.door import ACTOR_KEY, TOKEN_KEY
from tallygate.commands.actor import os_actor
from tallygate.domain.errors import TallygateError
from tallygate.settings import Settings
from tallygate.settings_access import stays_here
from tallygate.wiring.dialing import Dialing, opened

TOKEN_BYTES_MAX: Final = 16 * 1024
# What a server that speaks TLS does to who does not, in gRPC's words.
CLOSED: Final = "Socket closed"
TLS_HINT: Final = "; if it speaks TLS, set TALLYGATE_CALL_CA_FILE"


class CallFailed(TallygateError):
    """A call to a server has failed."""


class TokenKept(TallygateError):
    """A token was not sent."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Target:
    """A server to call, and what proves who calls."""

    address: str
    token_file: Path | None = None
    bearer_over: str = "private"
    dialing: Dialing | None = None

    @classmethod
    def control(cls, settings: Settings, address: str = "") -> Self:
        """Return the control of these settings, or another one of the same kind."""
        return cls(
            address or settings.control_address,
            settings.token_file,
            settings.bearer_over,
            Dialing.of(settings),
        )

    @classmethod
    def data_plane(cls, settings: Settings) -> Self:
        """Return the data plane of these settings, which takes no tokens."""
        return cls(settings.grpc_address[0], dialing=Dialing.of(settings))

    def headers(self) -> list[tuple[str, str]]:
        """Return what goes with each call. Raises `TokenKept`."""
        headers = [(ACTOR_KEY, os_actor())]
        if self.token_file is not None:
            headers.append((TOKEN_KEY, f"Bearer {self._token(self.token_file)}"))
        return headers

    def _token(self, path: Path) -> str:
        kept = self.dialing is None and not stays_here(self.address)
        if self.bearer_over != "any" and kept:
            raise TokenKept(
                f"the token is not sent to {self.address} unencrypted; TALLYGATE_BEARER_OVER=any"
                " is for a mesh that encrypts on the way"
            )
        try:
            with path.open("rb") as file:
                token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no token"
            raise TokenKept(f"{path} cannot be read: {reason}", field="token_file") from None
        if not token or not token.isprintable() or " " in token:
            raise TokenKept(f"{path} holds no token", field="token_file")
        return token


class _Named(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds to each call who makes it."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401  the method's own kind
    ) -> Any:  # noqa: ANN401
        """Make the call with some more headers."""
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        for name, value in self._target.headers():
            metadata.add(name, value)
        named = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(named, request)


@asynccontextmanager
async def channel(server: str | Target) -> AsyncIterator[grpc.aio.Channel]:
    """Lend a channel; a call that fails on it is raised as `CallFailed`."""
    target = Target(server) if isinstance(server, str) else server
    named = [_Named(target)]
    try:
        async with opened(target.address, target.dialing, named) as lent:
            yield lent
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            why = f"nothing answers at {target.address}: {error.details()}"
            closed = target.dialing is None and CLOSED in (error.details() or "")
            raise CallFailed(f"{why}{TLS_HINT if closed else ''}") from error
        raise CallFailed(f"{error.code().name}: {error.details()}") from error
