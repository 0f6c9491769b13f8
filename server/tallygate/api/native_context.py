"""What a servicer's method gets for a context on the native transport.

Guarantees: has what servicers here use of grpcio's context, with the same meaning.
Refuses to know: who else is being served.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc
from pygrpc_native import STREAM_CLOSED, STREAM_FULL, NativeGrpcFront

from tallygate.api.status import Refusal

Details = tuple[tuple[tuple[str, str | bytes], ...], str, float | None]

# A caller that does not read is looked at again after so long, twice as long each time up to ...
PAUSE_S: Final = 0.002
# ... this, which is soon for who reads again, and costs nothing beside what was written.
PAUSE_MAX_S: Final = 0.25


class Aborted(Exception):
    """A method ended its call with a status of its own."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class CallerGone(Exception):
    """Nobody reads the stream any more."""


class NativeContext:
    """One call's."""

    __slots__ = ("_call", "_details", "_encode", "_ends_at", "_front", "_loop")

    def __init__(
        self,
        front: NativeGrpcFront,
        call: int,
        details: Details,
        *,
        ends_at: float | None,
        encode: Callable[[Any], bytes],
    ) -> None:
        self._front = front
        self._call = call
        self._details = details
        self._ends_at = ends_at
        self._encode = encode
        self._loop = asyncio.get_running_loop()

    def time_remaining(self) -> float | None:
        """Return the seconds that the caller still waits, None if it set no deadline."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._loop.time())

    def peer(self) -> str:
        """Return the caller's address."""
        return self._details[1]

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what the connection has proven of the caller: nothing."""
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return what the caller sent beside its message."""
        return self._details[0]

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status."""
        raise Aborted(Refusal(code, details, tuple(trailing_metadata)))

    async def write(self, message: Any) -> None:  # noqa: ANN401  the method's own kind
        """Send one message; wait while the caller does not read. Raises `CallerGone`."""
        data, pause_s = self._encode(message), PAUSE_S
        while (sent := self._front.stream_try_send(self._call, data)) == STREAM_FULL:
            # There is no telling when there is room; its end cancels us.
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
        if sent == STREAM_CLOSED:
            raise CallerGone
